"""Asks and hears on one thread of its own, which there is only where there is something to ask or to hear.

Invariant: an endpoint that is slow, endless or gone costs a bounded time, and holds up no other and nobody
who reads what is known.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import zlib
from collections.abc import Mapping, MutableMapping

from nodeagent.apps.directory import CgroupOf, Directory
from nodeagent.apps.http import Place
from nodeagent.apps.listener import Listener, Sockets
from nodeagent.apps.scrape import scrape
from nodeagent.apps.scraped import Scraped
from nodeagent.apps.targets import Key, Target
from nodeagent.model.app import AppFigures, AppSettings
from nodeagent.model.errors import AgentError
from nodeagent.model.symptom import AppReading

AT_ONCE = 32  # scrapes
PATIENCE = (1, 1, 2, 4)  # periods until the next try, by failures; the last for all others
TELL_S = 0.25
JOIN_S = 3.0


class AppThread:
    """`scraped` and `heard` are where readings go, by pod. `close` it."""

    def __init__(self, settings: AppSettings, cgroup_of: CgroupOf) -> None:
        self.scraped: MutableMapping[Key, AppReading] = {}
        self.heard: MutableMapping[Key, AppReading] = {}
        self._scrapes: dict[str, int] = {}
        self._settings = settings
        self._sockets = Sockets(settings)
        self._listener = Listener(settings, self.heard, cgroup_of)
        self._wanted: tuple[Mapping[Key, Target], Directory] = {}, Directory()
        self._tasks: dict[Key, tuple[Target, asyncio.Task[None]]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()

    def figures(self) -> AppFigures:
        """As of now; for any thread."""
        dropped = dict(self._listener.dropped) if self._sockets.open else {}
        return AppFigures(dict(self._scrapes), dropped)

    def want(self, targets: Mapping[Key, Target], directory: Directory) -> None:
        """Ask and hear these from now on; does not wait. For the loop's thread."""
        self._wanted = targets, directory
        for key in self.scraped.keys() - targets.keys():
            self.scraped.pop(key, None)
        for key in self.heard.keys() - targets.keys():
            self.heard.pop(key, None)
        if self._thread is None:
            if not self._sockets.open and not any(target.place for target in targets.values()):
                return
            self._thread = threading.Thread(target=self._run, name="apps", daemon=True)
            self._thread.start()
        elif self._ready.is_set() and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._take)

    def close(self) -> None:
        """End it; what is on its way is dropped."""
        if self._thread is not None and self._ready.wait(JOIN_S) and self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._halt.set)
            self._thread.join(JOIN_S)
        self._sockets.close()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._halt, self._room = asyncio.Event(), asyncio.Semaphore(AT_ONCE)
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        self._take()
        self._listener.start(self._sockets.open)
        while not self._halt.is_set():
            self._listener.tell(time.monotonic())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TELL_S if self._sockets.open else None):
                    await self._halt.wait()

    def _take(self) -> None:
        """What is wanted now."""
        targets, directory = self._wanted
        self._listener.want(targets.values(), directory)
        for key, (target, task) in tuple(self._tasks.items()):
            if targets.get(key) != target:
                task.cancel()
                del self._tasks[key]
        for key, target in targets.items():
            if target.place is not None and key not in self._tasks:
                task = asyncio.create_task(self._ask(target, target.place))
                self._tasks[key] = target, task

    async def _ask(self, target: Target, place: Place) -> None:
        name = "" if target.histogram is None else target.histogram.name
        scraped, failures = Scraped(name, target.period_s, target.slo), 0
        due = time.monotonic() + target.period_s * _phase(target.key)
        while True:
            await asyncio.sleep(due - time.monotonic())
            async with self._room:
                told = await self._scrape(target, place, scraped)
            if self._wanted[0].get(target.key) == target:
                self.scraped[target.key] = told
            failures = min(failures + 1, len(PATIENCE) - 1) if told.error else 0
            due = max(due + target.period_s * PATIENCE[failures], time.monotonic())

    async def _scrape(self, target: Target, place: Place, scraped: Scraped) -> AppReading:
        try:
            found = await scrape(place, target.histogram, target.counter, self._settings, scraped.labels)
        except AgentError as error:
            self._count("error")
            return scraped.failed(f"{error} ({error.hint})" if error.hint else str(error))
        except Exception as bug:  # what an endpoint answers must never end the thread
            self._count("error")
            return scraped.failed(f"{place}: {bug!r}, a bug: report it")
        self._count("ok")
        return scraped.take(found, time.monotonic())

    def _count(self, result: str) -> None:
        self._scrapes = {**self._scrapes, result: self._scrapes.get(result, 0) + 1}


def _phase(key: Key) -> float:
    """A part of a period, so that not all are asked at once."""
    return zlib.crc32(key[0].encode("utf-8", "surrogateescape")) / (1 << 32)
