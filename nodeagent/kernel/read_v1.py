"""Which v1 files say how much CPU and memory a cgroup uses (Linux Documentation/admin-guide/cgroup-v1).

Invariant: what is returned is in us and bytes and hierarchical (a cgroup with all below it), as v2's is.
"""

from __future__ import annotations

import os

from nodeagent.kernel.files import KeptFile, Shelf, inside
from nodeagent.kernel.parse import ByNode, FlatKeyed, Numbers, microseconds, number
from nodeagent.model.snapshot import MemoryEvents

# A throttle count can move only while a task runs or waits, or until the period timer (1 s at most) has
# fired idle: so not later than this after usage and pressure were last seen to move.
_SETTLED_S = 2.5

_throttling = FlatKeyed(b"nr_periods", b"nr_throttled", b"throttled_time")
# workingset_refault was parted in two in Linux 5.9; what was scanned is told in v2 only.
_memory_stat = FlatKeyed(
    b"total_inactive_file",
    b"total_rss",
    b"total_cache",
    b"total_workingset_refault_anon",
    b"total_workingset_refault_file",
    b"total_workingset_refault",
    b"total_pgmajfault",
)
_NOTHING: Numbers = (None,) * 7
_oom_control = FlatKeyed(b"oom_kill_disable", b"oom_kill")  # oom_kill since Linux 4.13

# Pages on the LRU lists, which are those of user space; the line is there since Linux 3.13.
pages_by_node = ByNode(b"hierarchical_total=", unit_bytes=os.sysconf("SC_PAGE_SIZE"))

Cpu = tuple[int | None, int | None, int | None, int | None]
Details = tuple[int | None, int | None, int | None]
Reclaim = tuple[int | None, int | None, int | None]
NO_RECLAIM: Reclaim = (None, None, None)


class CpuV1:
    """cpuacct.usage, and cpu.stat (which has nothing but throttling here). A root is None if not mounted."""

    __slots__ = ("_last", "_moved_at", "_seen", "_settled", "stat", "usage")

    def __init__(self, cpu_dir: str | None, cpuacct_dir: str | None, shelf: Shelf) -> None:
        self.usage = KeptFile(inside(cpuacct_dir, "cpuacct.usage"), microseconds, shelf, hot=True)
        self.stat = KeptFile(inside(cpu_dir, "cpu.stat"), _throttling, shelf, hot=True)
        self._seen = -1
        self._moved_at = 0.0
        self._settled = False
        self._last: Cpu = (None, None, None, None)

    @property
    def files(self) -> tuple[KeptFile[int] | KeptFile[Numbers], ...]:
        return (self.usage, self.stat)

    def throttled_us(self) -> int | None:
        """Now, beside the readings, which do not notice."""
        counts = self.stat.value()
        return None if counts is None or counts[2] is None else counts[2] // 1000

    def read(self, at: float, waiting: bool) -> Cpu:
        """(us, periods, throttled periods, throttled us). Not `waiting`: pressure is known not to move."""
        usage = self.usage.value()
        moved = waiting or usage is None or self.usage.changes != self._seen
        if self._settled and not moved:
            return self._last
        if moved:
            self._seen = self.usage.changes
            self._moved_at = at
        self._settled = at - self._moved_at >= _SETTLED_S
        periods, throttled, time_ns = self.stat.value() or (None, None, None)
        self._last = (usage, periods, throttled, None if time_ns is None else time_ns // 1000)
        return self._last

    def still(self) -> bool:
        """True when nothing ran since the last reading, and for long before it."""
        return self._settled and self._last[0] is not None and self.usage.value() is self._last[0]


class MemoryV1:
    """memory.usage_in_bytes each tick; memory.stat, failcnt and oom_control in the slow tier."""

    __slots__ = ("_failcnt", "_oom", "_stat", "reclaim", "usage")

    def __init__(self, directory: str | None, shelf: Shelf) -> None:
        self.usage = KeptFile(inside(directory, "memory.usage_in_bytes"), number, shelf, hot=True)
        self._stat = KeptFile(inside(directory, "memory.stat"), _memory_stat, shelf)
        self._failcnt = KeptFile(inside(directory, "memory.failcnt"), number, shelf)
        self._oom = KeptFile(inside(directory, "memory.oom_control"), _oom_control, shelf)
        self.reclaim = NO_RECLAIM

    @property
    def files(self) -> tuple[KeptFile[int] | KeptFile[Numbers], ...]:
        return (self.usage, self._stat, self._failcnt, self._oom)

    def detail(self) -> Details:
        """(inactive file, anonymous, file) bytes; notes `reclaim`: pages (refaulted, scanned, faulted in)."""
        found = self._stat.value() or _NOTHING
        inactive, anon, cache, refaults_anon, refaults_file, refaults, major = found
        self.reclaim = (refaulted(refaults_anon, refaults_file, refaults), None, major)
        return (inactive, anon, cache)

    def events(self) -> MemoryEvents | None:
        """How often a limit was hit and a task killed for it."""
        failures, oom = self._failcnt.value(), self._oom.value()
        if failures is None and oom is None:
            return None
        return MemoryEvents(max=failures, oom_kill=None if oom is None else oom[1])


def refaulted(anon: int | None, file: int | None, whole: int | None) -> int | None:
    """Pages that came back soon after they were evicted: of both kinds, or as older kernels tell it."""
    if anon is None and file is None:
        return whole
    return (anon or 0) + (file or 0)
