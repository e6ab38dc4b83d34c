"""`nodeagent collect`: listens or asks, keeps the view, serves and shows it, until a signal.

Invariant: all that touches the view runs on one event loop; what may block (a terminal, a scrape) does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import click
from msgspec.structs import replace

from nodeagent import __version__
from nodeagent.collect.access import Allowed
from nodeagent.collect.cluster import Cluster
from nodeagent.collect.metrics import ClusterMetrics, Sample, sample
from nodeagent.collect.query import Queried
from nodeagent.collect.screen import Screen, chosen, clock, line, picture, to_json
from nodeagent.collect.server import CollectServer, Reports, allow_files
from nodeagent.collect.tally import Tally
from nodeagent.collect.told import Summary, summary, view_message
from nodeagent.collect.view import View
from nodeagent.report.http import HttpServer
from nodeagent.rpc.tls import Identity, TlsFiles

TURN_S = 0.1
SCRAPE_S = 5.0


class Options(NamedTuple):
    """Of the command, by the names of its options."""

    listen: str
    http: str
    tls: TlsFiles | None
    tls_name: str
    allowed: Allowed
    query: tuple[str, ...]
    max_nodes: int
    clock_skew_s: float
    metrics_nodes: int
    refresh_s: float
    as_json: bool
    on_screen: bool


def run(options: Options) -> None:
    """Until SIGTERM or SIGINT; Failed or Misconfigured when it cannot listen."""
    asyncio.run(_Controller(options).run())


class _Printer:
    """Prints on a thread of its own; what does not fit meanwhile is not printed, for it is old by then."""

    def __init__(self) -> None:
        self.error: OSError | None = None
        self._job: Callable[[], None] | None = None
        self._news = threading.Event()
        threading.Thread(target=self._run, name="print", daemon=True).start()

    @property
    def idle(self) -> bool:
        return self._job is None

    def print(self, job: Callable[[], None]) -> None:
        """Do it, while idle."""
        self._job = job
        self._news.set()

    def _run(self) -> None:
        while self._news.wait():
            self._news.clear()
            try:
                if self._job is not None:
                    self._job()
            except OSError as error:
                self.error = error
            self._job = None


class _Controller:
    def __init__(self, options: Options) -> None:
        self._options = options
        self._view = View(max_nodes=options.max_nodes, clock_skew_s=options.clock_skew_s)
        self._tally = Tally()
        self._tls = Identity(options.tls) if options.tls else None
        self._server: CollectServer | None = None
        self._http: HttpServer | None = None
        self._shown: Summary | None = None

    async def run(self) -> None:
        options, view, tally = self._options, self._view, self._tally
        room = allow_files(options.max_nodes)
        if room < options.max_nodes:
            tally.say("files.limited", connections=room, hint="raise the limit of open files (ulimit -n)")
        cluster = Cluster(view, tally)
        reports = Reports(view, tally, options.max_nodes, own_names=options.allowed.own_names)
        queried = [
            Queried(address, self._tls, view, tally, tls_name=options.tls_name) for address in options.query
        ]
        server = self._server = CollectServer(
            options.listen, self._tls, options.allowed, reports, cluster, options.max_nodes
        )
        await server.start()
        try:
            async with self._scraped():
                http = self._http.address if self._http else ""
                tally.note("collect.listening", address=server.address, http=http, asked=len(queried))
                await self._work(queried)
        finally:
            await server.stop()

    async def _work(self, queried: list[Queried]) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        gc.freeze()  # what is here now stays
        work = [self._turn(), self._show(), *(each.run() for each in queried)]
        tasks = [asyncio.create_task(each) for each in (stop.wait(), *work)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # what only a bug raises
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _turn(self) -> None:
        """What is not valid any more goes out of the sums."""
        while True:
            for node in self._view.expire(time.monotonic()):
                self._tally.say("node.stale", node=node.name, connected=node.source is not None)
            while self._tls is not None and self._tls.news:
                self._tally.tell(self._tls.news.popleft())
            if self._http is not None:
                self._http.tick_finished()
            await asyncio.sleep(TURN_S)

    async def _show(self) -> None:
        printer = _Printer()
        screen = Screen() if self._options.on_screen else None
        before, at = 0, time.monotonic()
        try:
            while True:
                if printer.error is not None:
                    raise printer.error
                now, total = time.monotonic(), sum(self._tally.reports.values())
                if printer.idle:
                    rate = (total - before) / max(now - at, 1e-3)
                    before, at = total, now
                    self._print(printer, screen, rate)
                await asyncio.sleep(self._options.refresh_s)
        finally:
            if screen is not None:
                screen.close()

    def _print(self, printer: _Printer, screen: Screen | None, rate: float) -> None:
        streams = f"{self._tally.streams} stream{'' if self._tally.streams == 1 else 's'}"
        if screen is not None:
            drawn = picture(self._title(), self._summary(listed=True), f"{streams}, {rate:.0f} reports/s")
            printer.print(lambda: screen.show(drawn))
            return
        now = self._summary(listed=False)
        same = replace(now, made_unix=0.0)
        if same != self._shown:
            self._shown = same
            text = to_json(now) if self._options.as_json else f"{clock(now.made_unix)}  {line(now, streams)}"
            printer.print(lambda: click.echo(text))

    def _title(self) -> str:
        return f"nodeagent collect {__version__}  {self._options.listen}  {clock(time.time())}"

    def _summary(self, *, listed: bool) -> Summary:
        nodes = chosen(self._view.nodes.values()) if listed else ()
        return summary(view_message(self._view, nodes, time.time()))

    @contextlib.asynccontextmanager
    async def _scraped(self) -> AsyncIterator[None]:
        """/metrics, /livez and /readyz as long as the context lasts."""
        if not self._options.http:
            yield
            return
        loop = asyncio.get_running_loop()

        async def take() -> Sample:
            found = self._summary(listed=False)
            shown = sample(self._view, self._tally, found, __version__, self._options.metrics_nodes)
            return replace(
                shown,
                refused=self._server.refused if self._server else {},
                tls_not_after_unix=self._tls.material.not_after_unix if self._tls else None,
            )

        metrics = ClusterMetrics(lambda: asyncio.run_coroutine_threadsafe(take(), loop).result(SCRAPE_S))
        self._http = HttpServer(self._options.http, metrics.render)
        self._http.start()
        try:
            yield
        finally:
            self._http.stop()
