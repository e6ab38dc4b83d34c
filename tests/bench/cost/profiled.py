"""A program: `nodeagent`, its parts timed and its ticks sampled. `-m tests.bench.cost.profiled OUT run ...`

Each part's own CPU time is that of the loop's thread (CLOCK_THREAD_CPUTIME_ID) without those called in it:
two readings of a clock per call, some microseconds a tick. While a tick runs, a timer looks each 0.5 ms which
function is on. OUT gets both as JSON when the agent stops: of all ticks but the first `SKIPPED`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

SKIPPED = 12
SAMPLE_S = 0.0005

# part: where it is called by name, as module:object or module:class.function
PARTS = {
    "read: pods": ("nodeagent.kernel.reader:NodeReader.read",),
    "read: node": (
        "nodeagent.kernel.node:NodeFiles.read",
        "nodeagent.kernel.topology:TopologyFiles.read",
        "nodeagent.kernel.gate:Gates.read",
    ),
    "read: symptoms": ("nodeagent.kernel.symptoms.pod:SymptomReader.read",),
    "read: knobs": ("nodeagent.kernel.knobs:Knobs.read", "nodeagent.wanted:WantedKnobs.now"),
    "read: walk of the tree": ("nodeagent.host:Host._scan",),
    "read: the rest": ("nodeagent.host:Host.read",),
    "decide: rates": ("nodeagent.core.rates:view",),
    "decide: use": ("nodeagent.core.usage:used",),
    "decide: waits, signals": ("nodeagent.core.waits:add_up", "nodeagent.core.decide:_signals"),
    "decide: what may be written": ("nodeagent.core.decide:_ground", "nodeagent.core.decide:_drifting"),
    "decide: offer": ("nodeagent.core.capacity:assess", "nodeagent.core.capacity:cpu_ceiling"),
    "decide: shares": ("nodeagent.core.decide:_shared", "nodeagent.core.burst:bursting"),
    "decide: places": ("nodeagent.core.decide:_arranged",),
    "decide: plan": ("nodeagent.core.decide:_plan", "nodeagent.loop:diff"),
    "decide: the rest": ("nodeagent.loop:decide",),
    "interference: measures": ("nodeagent.core.interference:measured",),
    "interference: judge": ("nodeagent.core.interference:judge",),
    "interference: history": ("nodeagent.core.interference:remember",),
    "interference: the rest": ("nodeagent.core.interference:watch",),
    "write": ("nodeagent.hands:Directed.write",),
    "journal: encode": ("nodeagent.journal.packed:Packer.pack",),
    "journal: deflate, write": ("nodeagent.journal.write:Journal.append",),
    "report: events": ("nodeagent.telling:events",),
    "report: metrics": ("nodeagent.telling:Telling._count",),
    "report: clients": ("nodeagent.rpc.server:RpcServer.publish",),
    "report: the rest": ("nodeagent.telling:Telling.ticked",),
    "garbage": ("nodeagent.garbage:Garbage.after_tick",),
    "fast lane": ("nodeagent.loop:Loop.look", "nodeagent.lane:Lane.ticking", "nodeagent.lane:Lane.ticked"),
    "NICs between ticks": ("nodeagent.loop:Loop.beat",),
    "wait": ("nodeagent.loop:Loop.wait",),
    "tick: the rest": ("nodeagent.loop:Loop.tick",),
}


class Parts:
    """CPU seconds by part, of the loop's thread."""

    def __init__(self) -> None:
        self.own_s: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []

    def timed(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:  # Any: whatever it is
        """`work`, with its time noted; what it yields counts too."""

        @functools.wraps(work)
        def noted(*args: Any, **named: Any) -> Any:
            began = time.thread_time()
            self._inner.append(0.0)
            try:
                found = work(*args, **named)
                return tuple(found) if part == "report: events" else found
            finally:
                spent = time.thread_time() - began
                self.own_s[part] += spent - self._inner.pop()
                if self._inner:
                    self._inner[-1] += spent

        return noted


class Profile:
    """What is told in the end: of the ticks after the first `SKIPPED`."""

    def __init__(self) -> None:
        self.parts = Parts()
        self.samples: Counter[str] = Counter()
        self.ticks = 0
        self._began: tuple[float, dict[str, float]] = (0.0, {})
        self._ended: tuple[float, dict[str, float]] = (0.0, {})

    def ticking(self, tick: Callable[..., Any]) -> Callable[..., Any]:
        """A tick, sampled. The agent's own way of hearing of signals must not hear of the timer."""

        @functools.wraps(tick)
        def sampled(*args: Any) -> Any:
            wakes = signal.set_wakeup_fd(-1)
            signal.setitimer(signal.ITIMER_REAL, SAMPLE_S, SAMPLE_S)
            try:
                return tick(*args)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0.0)
                signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
                self._count()

        return sampled

    def look(self, _number: int, frame: FrameType | None) -> None:
        """Which function of the agent is on: that it has called (the kernel's time too)."""
        if self.ticks > SKIPPED and frame is not None:
            where = Path(frame.f_code.co_filename)
            self.samples[f"{where.parent.name}/{where.name}: {frame.f_code.co_qualname}"] += 1

    def _count(self) -> None:
        self.ticks += 1
        now = (time.process_time(), dict(self.parts.own_s))
        if self.ticks == SKIPPED:
            self._began = now
        self._ended = now

    def told(self) -> dict[str, object]:
        """CPU ms per tick by part; samples by function."""
        ticks = max(1, self.ticks - SKIPPED)
        spent, before = self._ended[1], self._began[1]
        parts = {part: (spent.get(part, 0.0) - before.get(part, 0.0)) / ticks * 1e3 for part in PARTS}
        whole_ms = (self._ended[0] - self._began[0]) / ticks * 1e3
        parts["other threads (gRPC, HTTP)"] = whole_ms - sum(parts.values())
        return {"ticks": ticks, "ms": whole_ms, "parts": parts, "samples": dict(self.samples.most_common(60))}


def instrument(profile: Profile) -> None:
    """Put the clocks where PARTS says; what this agent has not is left out."""
    for part, places in PARTS.items():
        for place in places:
            module, _, path = place.partition(":")
            owner, _, name = path.rpartition(".")
            if importlib.util.find_spec(module) is None:
                continue
            at: Any = importlib.import_module(module)
            at = getattr(at, owner) if owner else at
            if hasattr(at, name):
                setattr(at, name, profile.parts.timed(part, getattr(at, name)))
    loop: Any = importlib.import_module("nodeagent.loop").Loop
    loop.tick = profile.ticking(loop.tick)
    signal.signal(signal.SIGALRM, profile.look)


def main() -> None:
    """Run the agent until it stops."""
    out, *words = sys.argv[1:]
    profile = Profile()
    importlib.import_module("nodeagent.cli")
    importlib.import_module("nodeagent.agent")
    instrument(profile)
    from nodeagent.cli import cli

    try:
        cli.main(words, prog_name="nodeagent", standalone_mode=False)
    finally:
        Path(out).write_text(json.dumps(profile.told()))


if __name__ == "__main__":
    main()
