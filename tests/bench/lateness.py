"""How late ticks began, by the stamps that the journal has of them.

Ticks are due at fixed times, and none begins before: the phase of that grid is not in the journal, but most
ticks are hardly late, so the first of those that crowd together are taken as on time. It is known to 1 ms.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nodeagent.journal.read import read_segments

CROWD_S = 0.002
AT_WORK_S = 0.025


class Stamp(NamedTuple):
    """Of one tick: monotonic, and what started it."""

    at: float
    woken_by: str


class Late(NamedTuple):
    """A tick that was due, when it began, and how many seconds late that was."""

    at: float
    by_s: float


def lateness(stamps: Sequence[Stamp], tick_s: float) -> list[Late]:
    """Of each tick of the timer, in order: since the first due time after the tick before it.

    One that is due within AT_WORK_S after that has begun is not late but missed: it is still at work.
    """
    timed = [stamp.at for stamp in stamps if stamp.woken_by == "timer"]
    if not timed:
        return []
    phase = phase_s(timed, tick_s)
    found = []
    for before, now in itertools.pairwise(stamps):
        if now.woken_by == "timer":
            passed = math.floor((before.at + AT_WORK_S - phase) / tick_s) + 1
            due = phase + passed * tick_s
            if due > now.at + CROWD_S:  # it was not at work any more
                due -= tick_s
            found.append(Late(now.at, max(0.0, now.at - due)))
    return found


def phase_s(times: Sequence[float], tick_s: float) -> float:
    """Where the grid is: the earliest of the most times that are within CROWD_S of each other on it."""
    base = times[0]
    once = sorted((at - base) % tick_s for at in times)
    around = [*once, *(off + tick_s for off in once)]
    most, first, end = 0, 0.0, 0
    for begin, off in enumerate(once):
        while end < len(around) and around[end] <= off + CROWD_S:
            end += 1
        if end - begin > most:
            most, first = end - begin, off
    return base + first


def lateness_s(journal: Path, tick_s: float, began: float, ended: float) -> list[float]:
    """How late ticks of the timer were between two monotonic times, by what is in the journal."""
    ticks = [tick.snapshot for segment in read_segments(journal, print) for tick in segment.ticks()]
    late = lateness([Stamp(seen.at, seen.woken_by) for seen in ticks], tick_s)
    return [each.by_s for each in late if began <= each.at <= ended]
