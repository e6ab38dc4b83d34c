"""A day of a node in ten minutes: `python -m tests.bench soak [--minutes 10 | --quick]`; 1 if one was missed.

A real agent (observe: nothing is written) with all its doors open reports to a real controller by mutual TLS.
An hour of that day takes 25 s: the link fails each 3 minutes of the day, all certificates and the CA are
others each hour, the controller is frozen and killed each hour, and clients come and go all the time.
What the agent holds is looked at every 5 s, and twice when nobody has come for a while, after a tenth of the
time and at the end: what was leaked in between is still there then.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.kernel.place import make_pod_cgroup, remove_pod_cgroup
from nodeagent.model.pod import OWN_ROOT
from tests.bench.soak_clients import NODE, Clients, Reach
from tests.bench.soak_keys import Keys
from tests.bench.soak_link import ControllerProcess, Relay
from tests.bench.soak_seen import Sample, descriptors, sample
from tests.bench.soak_told import figures, view_is_right
from tests.bench.table import show
from tests.live.running import RunningAgent, running

HOUR_S = 25.0  # 24 of them are 10 minutes
FLAP_S = HOUR_S / 20
SAMPLE_S = 5.0
TORN_S = 1.5
STAYING = 6
WARM_RATIO = 0.1
QUIET_S = 18.0  # the agent's patience with who reads nothing, and 5 s for last words
CONFIG = '[cpu]\nwindow_s = {}\n[grpc]\nreaders = ["reader.example"]\n'


class Soak:
    """The agent, all that happens to it, and what was seen of it."""

    def __init__(self, agent: RunningAgent, keys: Keys, relay: Relay, controller: ControllerProcess) -> None:
        self.agent, self.keys, self.relay, self.controller = agent, keys, relay, controller
        self.done: Counter[str] = Counter()
        self.samples: list[Sample] = []
        self.quiet: list[tuple[Sample, Counter[str]]] = []
        self.bugs: list[BaseException] = []
        listening = agent.named("grpc.listening")[0]
        http = agent.named("http.listening")[0]["address"]
        at = f"127.0.0.1:{controller.port}"
        where = Reach(listening["address"], listening["tls_address"], http, at)
        self.clients = Clients(where, keys, self.done)
        self._going = asyncio.Event()
        self._visits: set[asyncio.Task[None]] = set()
        self._busy = itertools.count()

    async def run(self, minutes: float) -> None:
        """The whole of it."""
        pid, warm_s = self.agent.process.pid, minutes * 60.0 * WARM_RATIO
        work = [self._each(visit, every_s) for visit, every_s in self._paces().items()]
        work += [self._hours(), self._look(pid), *(self.clients.stay() for _ in range(STAYING))]
        tasks = [asyncio.create_task(each) for each in work]
        for seconds in (warm_s, minutes * 60.0 - warm_s):
            self._going.set()
            await _first(tasks, seconds)
            self._going.clear()
            await asyncio.sleep(QUIET_S)
            self.quiet.append((sample(pid), descriptors(pid)))
        for task in (*tasks, *self._visits):
            task.cancel()
        await asyncio.gather(*tasks, *self._visits, return_exceptions=True)

    def _paces(self) -> dict[Callable[[], Awaitable[None]], float]:
        """What happens again and again, and each how many seconds."""
        clients = self.clients
        return {
            clients.watch_unix: 0.25,
            clients.watch_tls: 0.5,
            clients.unread: 1.0,
            clients.greedy: 2.0,
            clients.killed: 0.5,
            clients.half: 2.0,
            clients.call: 0.2,
            clients.flood: HOUR_S,
            clients.direct: 0.5,
            clients.send_down: 2.0,
            clients.scrape: 1.0,
            self._pod: 1.0,
            self._reload: HOUR_S / 2,
            self._flap: FLAP_S,
        }

    async def _each(self, visit: Callable[[], Awaitable[None]], every_s: float) -> None:
        """Visits of one kind, which do not wait for each other."""
        while True:
            await self._going.wait()
            task = asyncio.create_task(self._visit(visit))
            self._visits.add(task)
            task.add_done_callback(self._visits.discard)
            await asyncio.sleep(random.uniform(0.5, 1.5) * every_s)

    async def _visit(self, visit: Callable[[], Awaitable[None]]) -> None:
        try:
            await visit()
        except (OSError, grpc.RpcError):
            self.done["visits that were refused or cut"] += 1
        except Exception as error:
            self.bugs.append(error)

    async def _flap(self) -> None:
        self.done[f"link failures: {await self.relay.flap()}"] += 1

    async def _hours(self) -> None:
        """Certificates and the controller, hour by hour."""
        keys, step_s, due = self.keys, HOUR_S / 5, time.monotonic()
        for number in itertools.count():
            for change in (keys.add_authority, keys.renew, keys.tear, None, keys.drop_authority):
                await self._going.wait()
                if change is None:
                    await self._trouble(number)
                else:
                    await asyncio.to_thread(change)
                    self.done[f"certificates: {change.__name__}"] += 1
                if change == keys.tear:
                    await asyncio.sleep(TORN_S)
                    await asyncio.to_thread(keys.mend)
                due = max(due + step_s, time.monotonic())
                await asyncio.sleep(due - time.monotonic())

    async def _trouble(self, number: int) -> None:
        """The controller is silent for a second, then gone, then back."""
        await self.controller.freeze(1.0)
        await self.controller.restart(signal.SIGKILL if number % 2 else signal.SIGTERM)
        self.done["controllers frozen, ended and started"] += 1

    async def _reload(self) -> None:
        number = self.done["reloads"]
        text = "no = toml = " if number % 6 == 5 else CONFIG.format(2 + number % 5)
        (self.agent.home / "agent.toml").write_text(text)
        self.agent.process.send_signal(signal.SIGHUP)
        self.done["reloads"] += 1

    async def _pod(self) -> None:
        """A pod's cgroup, for a few seconds."""
        places, path = find_hierarchies(), f"{OWN_ROOT}/mid/na-soak-{os.getpid()}-{next(self._busy)}"
        try:
            await asyncio.to_thread(make_pod_cgroup, places, path)
            await asyncio.sleep(random.uniform(1.0, 8.0))
        finally:
            remove_pod_cgroup(places, path)
        self.done["pods that came and went"] += 1

    async def _look(self, pid: int) -> None:
        while True:
            self.samples.append(sample(pid))
            if len(self.samples) % 5 == 0:
                print(_progress(self.samples), file=sys.stderr)
            await asyncio.sleep(SAMPLE_S)


def _progress(samples: list[Sample]) -> str:
    last, hours = samples[-1], (samples[-1].at - samples[0].at) / HOUR_S
    return (
        f"{hours:5.1f} h  {last.rss_kib / 1024:6.1f} MiB  {last.descriptors:4} fds  {last.threads:3} threads"
    )


async def _first(tasks: list[asyncio.Task[None]], seconds: float) -> None:
    """Let them work; what one of them raises is raised."""
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


@contextlib.asynccontextmanager
async def soaking(home: Path) -> AsyncIterator[Soak]:
    """Everything started, and stopped on leaving."""
    keys = Keys(home)
    controller = ControllerProcess(home, keys.files["controller"])
    relay = Relay(controller.port)
    await relay.open()
    (home / "agent.toml").write_text(CONFIG.format(5))
    names = ("cert", "key", "ca")
    files = {
        f"{section}__tls_{name}": path
        for section, role in (("grpc", "server"), ("controller", "link"))
        for name, path in zip(names, keys.files[role], strict=True)
    }
    settings = {
        "agent__mode": "observe",
        "log__level": "info",
        "http__address": "127.0.0.1:0",
        "grpc__tls_address": "127.0.0.1:0",
        "grpc__max_connection_age_s": HOUR_S,
        "controller__address": f"127.0.0.1:{relay.port}",
        "controller__node_name": NODE,
        "controller__report_s": 0.25,
        "controller__backoff_s": 0.1,
        "controller__backoff_max_s": 0.4,
        "controller__directives": "true",
    }
    try:
        with running(home, home / "agent.toml", (), **files, **settings) as agent:
            yield Soak(agent, keys, relay, controller)
    finally:
        await relay.close()
        await controller.stop()


async def soak(minutes: float) -> bool:
    """Print the table; True when all targets were held."""
    with tempfile.TemporaryDirectory(prefix="na-soak-") as directory:
        async with soaking(Path(directory)) as made:
            await made.run(minutes)
            right = await view_is_right(made.clients)
            page = await asyncio.to_thread(made.clients.page)
            rows = figures(made, HOUR_S, right=right, page=page)
    for bug in made.bugs[:5]:
        print(f"bench: {bug!r}", file=sys.stderr)
    title = f"{minutes * 60.0 / HOUR_S:g} hours of a node in {minutes:g} minutes"
    return show(title, rows) and not made.bugs


def main(words: list[str]) -> int:
    """Parse the words and soak."""
    parser = argparse.ArgumentParser(prog="tests.bench soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--quick", action="store_true", help="one minute")
    asked = parser.parse_args(words)
    random.seed(7)
    return 0 if asyncio.run(soak(1.0 if asked.quick else asked.minutes)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
