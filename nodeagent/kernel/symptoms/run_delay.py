"""Time that a pod's threads spent waiting on a run queue and running, at a bounded cost.

/proc/PID/schedstat is of the first thread alone, so every thread is asked. Of more than SAMPLE threads so
many are looked at in one reading: those that moved most of late, and the others in turn, so that one that
begins to move is found. What counts is what a thread did between two readings that both looked at it.

Time in which a pod's own quota stopped a thread counts as waiting, as before: on Linux 6.18, which throttles
task by task, a thread with a quota of 0.1 cores (v1) waited 2.25 s in 2.5 s, of which 2.19 s were throttled.
Invariant: the sums never fall, for they are made of each thread's growth; one that ends only stops adding.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

from nodeagent.kernel.files import Descriptors, KeptFile, Misses, Shelf
from nodeagent.kernel.own_psi import ids_in
from nodeagent.kernel.parse import schedstat

MAX_THREADS = 4096  # per pod; those beyond are not known of
SAMPLE = 64
_BUSIEST = 40  # of the sample; the rest is taken in turns
_UNKNOWN_LIFE_S = 3600.0  # a thread seen for the first time is ranked as if it were as old as this


class _Look(NamedTuple):
    delay_ns: int
    run_ns: int
    at: float


class RunDelay:
    """`threads` are the files that list the pod's threads: v1 `tasks`, v2 `cgroup.threads`.

    `delay_us` and `run_us` are sums over the threads looked at, `looked_at_ratio` their share of all.
    `listed` is the same object as long as no thread comes or ends. With `keep` their files stay open, which
    pays where they are read in each tick.
    """

    __slots__ = (
        "_at", "_busy", "_delay_ns", "_files", "_last", "_opened", "_proc", "_run_ns", "_shelf",
        "_turn", "delay_us", "keep", "listed", "looked_at_ratio", "run_us", "threads",
    )  # fmt: skip

    def __init__(self, proc: str, threads: tuple[str, ...], shelf: Shelf, *, keep: bool = True) -> None:
        self._proc = proc
        self.threads = threads
        self.keep = keep
        self._shelf = Shelf(shelf.descriptors, Misses())  # that a thread ends is no miss
        self._opened = Shelf(Descriptors(0), Misses())
        self._files: dict[int, KeptFile[tuple[int, int]]] = {}
        self._last: dict[int, _Look] = {}
        self._busy: dict[int, float] = {}  # thread -> ns of movement per second, of those that moved
        self.listed: frozenset[int] = frozenset()
        self._turn = 0
        self._delay_ns = self._run_ns = 0
        self._at: float | None = None
        self.delay_us: int | None = None
        self.run_us: int | None = None
        self.looked_at_ratio = 1.0

    def read(self, at: float) -> int | None:
        """us waited so far, as far as seen; None while there was no thread or if none could be read."""
        if at == self._at:
            return self.delay_us
        listed = self._threads()
        chosen = listed if len(listed) <= SAMPLE else self._sample(listed)
        now = self._looks(chosen, at)
        if not now and (listed or self._at is None):
            self.delay_us = self.run_us = None
            return None
        for thread, look in now.items():
            self._add(thread, look)
        self._remember(now, listed, at)
        self.looked_at_ratio = len(chosen) / len(listed) if listed else 1.0
        self.delay_us, self.run_us = self._delay_ns // 1000, self._run_ns // 1000
        return self.delay_us

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}

    def _threads(self) -> list[int]:
        listed: list[int] = []
        for listing in self.threads:
            listed += ids_in(listing, MAX_THREADS - len(listed))
        return listed

    def _sample(self, listed: list[int]) -> list[int]:
        """The busiest, and as many others as fit, from where the last reading stopped."""
        there = set(listed)
        self._busy = {thread: rate for thread, rate in self._busy.items() if thread in there}
        chosen = heapq.nlargest(_BUSIEST, self._busy, key=self._busy.__getitem__)
        taken = set(chosen)
        start = self._turn % len(listed)
        turn = listed[start:] + listed[:start]
        for passed, thread in enumerate(turn, start=1):
            if thread not in taken:
                chosen.append(thread)
                if len(chosen) == SAMPLE:
                    self._turn = start + passed
                    break
        return chosen

    def _looks(self, chosen: list[int], at: float) -> dict[int, _Look]:
        now: dict[int, _Look] = {}
        for thread in chosen:
            found = self._file(thread).value()
            if found is not None:
                now[thread] = _Look(*found, at)
        for ended in self._files.keys() - now.keys():
            self._files.pop(ended).close()
        return now

    def _add(self, thread: int, look: _Look) -> None:
        """What the thread did since the last reading; one that is new may be old elsewhere, but cannot have
        waited or run here for longer than since then."""
        before = self._last.get(thread)
        known = before is not None and before.delay_ns <= look.delay_ns and before.run_ns <= look.run_ns
        if before is not None and known:
            delay_ns, run_ns = look.delay_ns - before.delay_ns, look.run_ns - before.run_ns
            moved = (delay_ns + run_ns) / max(look.at - before.at, 1e-3)
        else:
            delay_ns, run_ns = look.delay_ns, look.run_ns
            moved = (delay_ns + run_ns) / _UNKNOWN_LIFE_S
        if moved:
            self._busy[thread] = moved
        else:
            self._busy.pop(thread, None)
        if self._at is None:
            pass
        elif known and before is not None:
            if before.at != self._at:
                return
        elif thread in self.listed:
            return
        else:
            most_ns = int((look.at - self._at) * 1e9)
            delay_ns, run_ns = min(delay_ns, most_ns), min(run_ns, most_ns)
        self._delay_ns += delay_ns
        self._run_ns += run_ns

    def _remember(self, now: dict[int, _Look], listed: list[int], at: float) -> None:
        there = frozenset(listed)
        if len(now) == len(there):
            self._last = now
        else:
            self._last = {thread: look for thread, look in self._last.items() if thread in there} | now
        if there != self.listed:
            self.listed = there
        self._at = at

    def _file(self, thread: int) -> KeptFile[tuple[int, int]]:
        """/proc/THREAD is there for every thread, though not listed; same text as /proc/PID/task/THREAD."""
        file = self._files.get(thread)
        if file is None:
            shelf = self._shelf if self.keep else self._opened
            file = KeptFile(f"{self._proc}/{thread}/schedstat", schedstat, shelf)
            if self.keep:
                self._files[thread] = file
        return file
