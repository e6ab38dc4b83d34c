"""Cycles, instructions and cache misses of pods: each is counted for 10 s of a minute, a few at a time.

Counting costs at each switch between cgroups, and descriptors: one per event, CPU and pod. So pods take turns
(as CPI2 does: Zhang et al., EuroSys 2013, 3.1), and on large nodes a turn comes round less often.
Invariant: without counters, or without the right to use them, nothing is tried twice and `why` says so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from msgspec import Struct

from nodeagent.kernel.errno import translated
from nodeagent.kernel.perf_event import CACHE_MISSES, CYCLES, INSTRUCTIONS, Event, PerfEvents, scaled
from nodeagent.model.errors import AgentError, Gone, Unsupported
from nodeagent.model.symptom import Pmu

WINDOW_S = 10.0
PERIOD_S = 60.0
MAX_FDS = 1536
EVENTS = (CYCLES, INSTRUCTIONS, CACHE_MISSES)
_GOLDEN = 0.6180339887498949  # multiples of it modulo 1 are spread evenly, however many there are

Key = tuple[str, int]  # cgroup and inode


class _Turn(Struct, gc=False):
    began: float
    fds: list[int]
    leaders: list[int]


class PmuTurns:
    """`error` is None as long as there is something to count with, and we may."""

    def __init__(self, events: Sequence[Event] = EVENTS) -> None:
        self.error: AgentError | None = None
        self._events = tuple(events)
        self._turns: dict[Key, _Turn] = {}
        self._due: dict[Key, float] = {}
        self._last: dict[Key, Pmu] = {}
        self._born = 0
        self._perf: PerfEvents | None = None
        try:
            self._perf = PerfEvents()
        except AgentError as error:
            self._stop(error)

    @property
    def why(self) -> str:
        """Empty as long as there is something to count with, and we may."""
        if self.error is None:
            return ""
        return f"{self.error}; {self.error.hint}" if self.error.hint else str(self.error)

    def probe(self, directory: str | None, cpu: int) -> None:
        """Try to count on one CPU whatever runs in this cgroup; afterwards `why` tells what is in the way."""
        if self._perf is None:
            return
        try:
            if directory is None:
                raise Unsupported("perf_event is in no cgroup hierarchy")
            cgroup = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _close(self._perf.group(cgroup, cpu, self._events))
            finally:
                os.close(cgroup)
        except OSError as error:
            self._stop(translated(error, directory or ""))
        except AgentError as error:
            self._stop(error)

    def read(self, at: float, directories: Mapping[Key, str], cpus: Sequence[int]) -> Mapping[Key, Pmu]:
        """What the last turn of each of these pods has counted; `cpus` are those online.

        `directories` are the pods' own in the hierarchy that perf_event has: v1's of that name, else v2's.
        """
        if self._perf is None:
            return {}
        self._forget(directories)
        for key in [key for key, turn in self._turns.items() if at - turn.began >= WINDOW_S]:
            self._end(key, at, self._perf)
        for key in directories.keys() - self._due.keys():
            self._born += 1
            self._due[key] = at + PERIOD_S * (self._born * _GOLDEN % 1.0)
        self._begin(at, directories, cpus)
        return self._last

    def close(self) -> None:
        """Stop counting."""
        for turn in self._turns.values():
            _close(turn.fds)
        self._turns = {}

    def _begin(self, at: float, directories: Mapping[Key, str], cpus: Sequence[int]) -> None:
        """Those whose turn it is, the longest overdue first, as far as there is room."""
        most = max(1, MAX_FDS // max(1, len(cpus) * len(self._events)))
        due = sorted((when, key) for key, when in self._due.items() if when <= at and key not in self._turns)
        for _, key in due[: max(0, most - len(self._turns))]:
            if self._perf is not None:
                self._due[key] = at + PERIOD_S
                self._start(key, directories[key], at, cpus, self._perf)

    def _start(self, key: Key, directory: str, at: float, cpus: Sequence[int], perf: PerfEvents) -> None:
        turn = _Turn(at, [], [])
        try:
            cgroup = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return  # it has vanished
        try:
            for cpu in cpus:
                fds = perf.group(cgroup, cpu, self._events)
                turn.fds += fds
                turn.leaders.append(fds[0])
        except AgentError as error:
            _close(turn.fds)
            if not isinstance(error, Gone):  # a CPU went offline, or the cgroup
                self._stop(error)
        else:
            self._turns[key] = turn
        finally:
            os.close(cgroup)

    def _end(self, key: Key, at: float, perf: PerfEvents) -> None:
        turn = self._turns.pop(key)
        self._last.pop(key, None)
        try:
            sums = scaled([perf.read(leader, len(self._events)) for leader in turn.leaders])
        except AgentError:
            sums = None
        finally:
            _close(turn.fds)
        if sums is not None:
            self._last[key] = Pmu(at, at - turn.began, *sums)

    def _forget(self, directories: Mapping[Key, str]) -> None:
        for key in self._due.keys() - directories.keys():
            del self._due[key]
            self._last.pop(key, None)
            if (turn := self._turns.pop(key, None)) is not None:
                _close(turn.fds)

    def _stop(self, error: AgentError) -> None:
        """It will not work the next time either."""
        self.error = error
        self.close()
        self._perf, self._last, self._due = None, {}, {}


def _close(fds: Sequence[int]) -> None:
    for fd in reversed(fds):  # the leader last: its members would each become one
        os.close(fd)
