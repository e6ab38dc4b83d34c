"""What an agent has noted of pods that came and went: pure, from its ticks and what watchers were told."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple


class Life(NamedTuple):
    """A pod: its cgroup, and when making it began and removing it was done (monotonic)."""

    cgroup: str
    born: float
    died: float


class Noted(NamedTuple):
    """One tick as the journal has it; `pods` are the cgroups of those that we made."""

    run: str
    seq: int
    at: float
    woken_by: str
    pods: frozenset[str]


class Told(NamedTuple):
    """What became of some lives: seconds until it was noted, and the cgroups of which it never was."""

    after_s: list[float]
    never: list[str]


def missing(ticks: Iterable[Noted]) -> int:
    """How many ticks of a run, which counts them one by one, are not there or are there twice."""
    found, last = 0, dict[str, int]()
    for tick in ticks:
        found += abs(tick.seq - last.get(tick.run, tick.seq - 1) - 1)
        last[tick.run] = tick.seq
    return found


def births(lives: Iterable[Life], ticks: Sequence[Noted]) -> Told:
    """From each birth to the first tick with the pod."""
    first: dict[str, float] = {}
    for tick in ticks:
        for cgroup in tick.pods:
            first.setdefault(cgroup, tick.at)
    return _told((life.cgroup, life.born, first.get(life.cgroup)) for life in lives)


def deaths(lives: Iterable[Life], ticks: Sequence[Noted]) -> Told:
    """From each death to the first tick after the last one with the pod."""
    last: dict[str, int] = {}
    for number, tick in enumerate(ticks):
        last |= dict.fromkeys(tick.pods, number)
    after: dict[str, float | None] = {
        cgroup: ticks[number + 1].at if number + 1 < len(ticks) else None for cgroup, number in last.items()
    }
    return _told((life.cgroup, life.died, after.get(life.cgroup)) for life in lives)


def lapses(ticks: Iterable[Noted]) -> list[str]:
    """The cgroups that came back: a pod that lives was missing in a tick."""
    here: frozenset[str] = frozenset()
    gone: set[str] = set()
    back: list[str] = []
    for tick in ticks:
        back += sorted(gone & (tick.pods - here))
        gone |= here - tick.pods
        here = tick.pods
    return back


def long_enough(lives: Iterable[Life], least_s: float) -> list[Life]:
    """Those that a tick must have seen."""
    return [life for life in lives if life.died - life.born >= least_s]


def distinct(values: Iterable[float]) -> list[float]:
    """Without those that are as the one before."""
    found: list[float] = []
    for value in values:
        if not found or found[-1] != value:
            found.append(value)
    return found


def untold(first: int, last: int, received: int, missed: int) -> int:
    """Events from number `first` to `last` which a watcher neither got nor was told to have missed."""
    return last - first + 1 - received - missed if received else 0


def never(cgroups: Iterable[str], told: Collection[str]) -> list[str]:
    return [cgroup for cgroup in cgroups if cgroup not in told]


def _told(found: Iterable[tuple[str, float, float | None]]) -> Told:
    after_s, unseen = [], []
    for cgroup, since, at in found:
        if at is None:
            unseen.append(cgroup)
        else:
            after_s.append(max(0.0, at - since))
    return Told(after_s, unseen)
