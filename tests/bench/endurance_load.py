"""What the node does to the agent in turns, and what can be done about it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from tests.bench.endurance_node import CpuGroup, Loops, slice_us, unit_weight_ratio
from tests.bench.soak_told import total

TURN_S = 15.0
SETTLE_S = 1.0
SHORT_SLICE_US = 100
LATE_SOON_S = 30.0
DURATION = ("nodeagent_tick_duration_seconds_count", "nodeagent_tick_duration_seconds_sum")
BETWEEN_S = 1.0  # reloads and looks from one turn to the next
_RESET_ON_FORK = 0x40000000


@dataclass(frozen=True)
class Variant:
    """`weight_ratio` is that of its cgroup, 1.0 as the loops have; nice and slice are of its main thread."""

    name: str
    full: bool = True
    weight_ratio: float = 1.0
    nice: int = 0
    slice_us: int = 0
    realtime: bool = False

    def begin(self, pid: int, group: CpuGroup, loops: Loops) -> None:
        """OSError when it cannot be had here."""
        group.weigh(self.weight_ratio)
        os.setpriority(os.PRIO_PROCESS, pid, self.nice)
        if self.slice_us:
            slice_us(pid, self.slice_us)
        loops.go(on=self.full)

    def end(self, pid: int, group: CpuGroup, loops: Loops) -> None:
        """As it was."""
        loops.go(on=False)
        group.weigh(1.0)
        os.setpriority(os.PRIO_PROCESS, pid, 0)
        if self.slice_us:
            slice_us(pid, 0)

    async def check(self, pid: int) -> None:
        """OSError when the agent is not as this wants it: where SCHED_FIFO is refused, it goes on without.

        It is first in line once it was late, and in the midst of a tick that takes long it is not, either.
        """
        until = time.monotonic() + LATE_SOON_S
        while self.realtime and os.sched_getscheduler(pid) & ~_RESET_ON_FORK != os.SCHED_FIFO:
            if time.monotonic() > until:
                raise OSError(0, "was not late, or may not be real-time here (realtime.refused)")
            await asyncio.sleep(0.01)


@dataclass
class Turn:
    """One variant for a while; what counts is from `began` to `ended` (monotonic).

    `ticks` and `ticks_s` are how many there were, and how long they took in all, by the agent's own count.
    """

    variant: Variant
    seconds: float
    began: float = 0.0
    ended: float = 0.0
    ticks: float = 0.0
    ticks_s: float = 0.0

    async def pass_by(self, look_up: Callable[[], Awaitable[str]]) -> None:
        """`look_up` gives /metrics."""
        await asyncio.sleep(SETTLE_S)
        before, self.began = await look_up(), time.monotonic()
        await asyncio.sleep(self.seconds - SETTLE_S)
        self.ended, after = time.monotonic(), await look_up()
        self.ticks, self.ticks_s = (total(after, name) - total(before, name) for name in DURATION)


def variants() -> tuple[Variant, ...]:
    """No load first; then a full node, and in the end what the agent itself can do."""
    unit = unit_weight_ratio()
    weighed = f"full, the unit's CPUWeight ({unit:g} x)"
    return (
        Variant("no load", full=False),
        Variant("full, no CPUWeight"),
        Variant(weighed, weight_ratio=unit),
        Variant(f"{weighed}, nice -20", weight_ratio=unit, nice=-20),
        Variant(f"{weighed}, slice 0.1 ms", weight_ratio=unit, slice_us=SHORT_SLICE_US),
        Variant("full, no CPUWeight, SCHED_FIFO", realtime=True),
    )


VARIANTS = variants()


def turns(seconds: float) -> Iterator[Turn]:
    """All variants again and again, for about so long; each at least once."""
    rounds = max(1, int(seconds / (TURN_S * len(VARIANTS))))
    for _ in range(rounds):
        for variant in VARIANTS:
            yield Turn(variant, seconds / (rounds * len(VARIANTS)) - BETWEEN_S)
