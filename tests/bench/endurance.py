"""Half an hour of an agent that enforces: `tests.bench endurance [--minutes 30 | --quick] [--json]`.

Pods come and go (1,000 births in 30 minutes, deaths in the middle of what they do), the policy is reloaded
each 30 s, each fifth time from a file that is wrong, watchers stay and count, and the journal may have 1 MiB,
so that it is rotated all the time; of its segments a second link is kept. Nothing may be lost of it.
Meanwhile the node is idle or full (endless loops on every CPU) in turns, with what an operator can do about
it: how late ticks begin is told for each. What the agent holds is looked at every 5 s, and in quiet before
and after it all. 1 if something was lost or a target was missed.
It wants root, and a node on which no other agent enforces.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nodeagent.kernel.mounts import find_hierarchies
from tests.bench.endurance_load import turns
from tests.bench.endurance_node import CpuGroup, Loops, Pod, busy_loops, cpu_group, life_s
from tests.bench.endurance_told import Lasted, figures
from tests.bench.endurance_watch import CapacityWatcher, EventWatcher
from tests.bench.soak_seen import Sample, descriptors, sample
from tests.bench.soak_told import total
from tests.bench.table import show
from tests.live.running import RunningAgent, running

BIRTHS_PER_S = 1000 / 1800
MEAN_LIFE_S = 20.0
RELOAD_S, WRONG_EACH = 30.0, 5
SAMPLE_S, LINK_S = 5.0, 0.5
QUIET_S = 12.0  # garbage is looked for each 10 s
WARM_RATIO, WARM_MOST_S = 0.1, 60.0
PATIENCE_S = 30.0
FAREWELL_S = 5.0
RELOADS = "nodeagent_config_reloads_total"
WRONG = ("no = toml = ", "[cpu]\nwindow_s = -1\n", "[cpu]\nwindow = 5\n")


class Endurance:
    """The agent, all that happens to it, and what was seen of it."""

    def __init__(self, agent: RunningAgent, group: CpuGroup, tick_s: float) -> None:
        self.agent, self.group = agent, group
        self.lasted = Lasted(tick_s, agent.home / "kept")
        self.lasted.kept.mkdir()
        self.page = ""
        self._places = find_hierarchies()
        self._socket: str = agent.named("grpc.listening")[0]["address"]
        self._pods: set[Pod] = set()
        self._number = 0
        self._doing = "no load"
        self._reloading = asyncio.Lock()
        self._realtime = False
        self._window_s = 5.0

    async def run(self, seconds: float, loops: Loops) -> None:
        """The whole of it; whatever fails in it is raised."""
        warm_s = min(WARM_RATIO * seconds, WARM_MOST_S)
        await self._busily(warm_s)
        await self._quietly()
        self.lasted.samples.clear()
        await self._busily(seconds - warm_s, self._turns(seconds - warm_s, loops))
        await self._quietly()
        self.page = await self._look_up()
        self.link()

    def link(self) -> None:
        """Keep a second name of each segment, for the agent removes its own."""
        for segment in (self.agent.state / "journal").glob("*.journal"):
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                os.link(segment, self.lasted.kept / segment.name)

    def end(self) -> None:
        """No pod of ours is left."""
        while self._pods:
            self._bury(next(iter(self._pods)))

    async def _busily(self, seconds: float, *more: Coroutine[Any, Any, None]) -> None:
        """With pods, watchers and reloads; watchers stay until they should have heard of the last death."""
        events = [EventWatcher(self._socket) for _ in range(3)]
        offers = [CapacityWatcher(self._socket) for _ in range(3)]
        self.lasted.events.append(events)
        self.lasted.offers += offers
        stay = [each.watch() for each in (*events, *offers)]
        await _together(
            seconds + FAREWELL_S, self._links(), self._look(), *stay, self._lively(seconds, *more)
        )

    async def _lively(self, seconds: float, *more: Coroutine[Any, Any, None]) -> None:
        try:
            await _together(seconds, self._births(), self._reloads(), *more)
        finally:
            self.end()
        await asyncio.Event().wait()

    async def _quietly(self) -> None:
        """Without anybody, and then what is held still."""
        await _together(QUIET_S, self._links())
        pid = self.agent.process.pid
        self.lasted.quiet.append((sample(pid), descriptors(pid)))

    async def _births(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self._live())
                await asyncio.sleep(random.expovariate(BIRTHS_PER_S))

    async def _live(self) -> None:
        pod = Pod(self._places, self._number)
        self._number += 1
        self._pods.add(pod)
        await asyncio.sleep(life_s(MEAN_LIFE_S, self.lasted.least_s + 0.1))
        self._bury(pod)

    def _bury(self, pod: Pod) -> None:
        self._pods.discard(pod)
        self.lasted.lives.append(pod.die())

    async def _reloads(self) -> None:
        """Another policy, or a file that is wrong: then the one before stays."""
        number = 0
        while True:
            await asyncio.sleep(RELOAD_S)
            number += 1
            if number % WRONG_EACH == 0:
                await self._reload(WRONG[number // WRONG_EACH % len(WRONG)])
            else:
                self._window_s = 3.0 + number % 7
                await self._reload()

    async def _reload(self, wrong: str = "") -> None:
        """SIGHUP, and wait until the agent has counted it."""
        async with self._reloading:
            text = wrong or config(self._window_s, realtime=self._realtime)
            (self.agent.home / "agent.toml").write_text(text)
            before = total(await self._look_up(), RELOADS)
            self.agent.process.send_signal(signal.SIGHUP)
            self.lasted.done["policies refused" if wrong else "policies taken"] += 1
            self.lasted.windows_s += [] if wrong else [self._window_s]
            until = time.monotonic() + PATIENCE_S
            while total(await self._look_up(), RELOADS) == before:
                if time.monotonic() > until:
                    raise TimeoutError(f"not reloaded for {PATIENCE_S:g} s")
                await asyncio.sleep(0.2)

    async def _look_up(self) -> str:
        return await asyncio.to_thread(self.agent.get, "/metrics")

    async def _turns(self, seconds: float, loops: Loops) -> None:
        """Idle or full, with all that can be done about it, again and again."""
        pid = self.agent.process.pid
        for turn in turns(seconds):
            variant = turn.variant
            self._doing = variant.name
            await self._be_realtime(variant.realtime)
            try:
                variant.begin(pid, self.group, loops)
                await variant.check(pid)
                await turn.pass_by(self._look_up)
                self.lasted.turns.append(turn)
            except OSError as error:
                self.lasted.skipped[variant.name] = error.strerror or str(error)
            finally:
                variant.end(pid, self.group, loops)
        await self._be_realtime(False)
        self._doing = "no load"
        await asyncio.Event().wait()

    async def _be_realtime(self, wanted: bool) -> None:
        if self._realtime != wanted:
            self._realtime = wanted
            await self._reload()

    async def _links(self) -> None:
        while True:
            self.link()
            await asyncio.sleep(LINK_S)

    async def _look(self) -> None:
        while True:
            self.lasted.samples.append(sample(self.agent.process.pid))
            print(self._progress(self.lasted.samples), file=sys.stderr)
            await asyncio.sleep(SAMPLE_S)

    def _progress(self, samples: list[Sample]) -> str:
        last, minutes = samples[-1], (samples[-1].at - samples[0].at) / 60.0
        return (
            f"{minutes:5.1f} min  {last.rss_kib / 1024:6.1f} MiB  {last.descriptors:4} fds  "
            f"{self._number:5} births  {len(self._pods):3} pods  {self._doing}"
        )


async def _together(seconds: float, *endless: Coroutine[Any, Any, None]) -> None:
    """Let them work for so long; what one of them raises is raised."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for each in endless:
                group.create_task(each)


def config(window_s: float, *, realtime: bool) -> str:
    """The file of the agent."""
    return f"[agent]\nrealtime = {str(realtime).lower()}\n[cpu]\nwindow_s = {window_s}\n"


@contextlib.contextmanager
def enduring(home: Path, tick_s: float) -> Iterator[Endurance]:
    """The agent in a cgroup of its own, and stopped on leaving; then all of its journal is linked."""
    (home / "agent.toml").write_text(config(5.0, realtime=False))
    settings = {
        "agent__mode": "enforce",
        "agent__tick_s": tick_s,
        "log__level": "info",
        "http__address": "127.0.0.1:0",
        "journal__max_bytes": 1 << 20,
        "journal__segment_bytes": 1 << 16,
    }
    with cpu_group("agent") as group, running(home, home / "agent.toml", (), **settings) as agent:
        with contextlib.suppress(OSError):  # then it is said where it matters
            group.permit_realtime()
        group.add(agent.process.pid)
        made = Endurance(agent, group, tick_s)
        try:
            yield made
        finally:
            made.end()
        made.lasted.exit_status = agent.stop()
        made.link()
        made.lasted.removed = len(os.listdir(made.lasted.kept)) - len(os.listdir(agent.state / "journal"))


def endure(minutes: float, tick_s: float, *, as_json: bool) -> bool:
    """Print the table or JSON; True when nothing was lost and all targets were held."""
    random.seed(7)
    with tempfile.TemporaryDirectory(prefix="na-endurance-", dir=os.environ.get("TMPDIR")) as directory:
        with enduring(Path(directory), tick_s) as made, busy_loops(minutes * 60.0) as loops:
            asyncio.run(made.run(minutes * 60.0, loops))
        rows = figures(made.lasted, made.page)
    for name, why in made.lasted.skipped.items():
        print(f"not measured: {name}: {why}", file=sys.stderr)
    machine = f"Linux {platform.release()}, {os.cpu_count()} CPUs, cgroups {find_hierarchies().mode}"
    title = f"{minutes:g} minutes of an agent that enforces, ticks of {tick_s:g} s; {machine}"
    if not as_json:
        return show(title, rows)
    told = [{**asdict(row), "held": row.held} for row in rows]
    print(json.dumps({"title": title, "skipped": made.lasted.skipped, "figures": told}, indent=1))
    return all(row.held for row in rows)


def main(words: list[str]) -> int:
    """Parse the words and endure."""
    parser = argparse.ArgumentParser(
        prog="tests.bench endurance", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="30 by default; rests come on top")
    parser.add_argument("--quick", action="store_true", help="two minutes: each kind of load once")
    parser.add_argument("--tick-s", type=float, default=0.25, help="of the agent (default: 0.25)")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    asked = parser.parse_args(words)
    if os.geteuid() != 0:
        print("endurance: it makes cgroups: run it as root", file=sys.stderr)
        return 2
    minutes = 2.0 if asked.quick else max(1.0, asked.minutes)
    try:
        return 0 if endure(minutes, asked.tick_s, as_json=asked.json) else 1
    except AssertionError as error:  # the agent did not start, and its log says why
        print(f"endurance: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
