"""Which v2 files say how much CPU and memory a cgroup uses (Linux Documentation/admin-guide/cgroup-v2.rst).

Invariant: what is returned is in us and bytes and hierarchical (a cgroup with all below it).
"""

from __future__ import annotations

from nodeagent.kernel.files import KeptFile, Shelf, inside
from nodeagent.kernel.parse import ByNode, FlatKeyed, Numbers, number
from nodeagent.kernel.read_v1 import NO_RECLAIM, Cpu, Details, refaulted
from nodeagent.model.snapshot import MemoryEvents

_cpu_stat = FlatKeyed(b"usage_usec", b"nr_periods", b"nr_throttled", b"throttled_usec")
# workingset_refault was parted in two in Linux 5.9; pgscan, which has kswapd's part too, by who scans in 6.0.
_memory_stat = FlatKeyed(
    b"inactive_file",
    b"anon",
    b"file",
    b"workingset_refault_anon",
    b"workingset_refault_file",
    b"workingset_refault",
    b"pgscan_direct",
    b"pgscan",
    b"pgmajfault",
)
_NOTHING: Numbers = (None,) * 9
_events = FlatKeyed(b"low", b"high", b"max", b"oom", b"oom_kill")  # oom_kill since Linux 4.13

# The pages of user space: shmem and unevictable ones are in these two already. Since Linux 5.10.
pages_by_node = ByNode(b"anon ", b"file ", unit_bytes=1)


class CpuV2:
    """cpu.stat; its throttling lines are there only where the cpu controller is enabled."""

    __slots__ = ("_last", "_seen", "stat")

    def __init__(self, directory: str | None, shelf: Shelf) -> None:
        self.stat = KeptFile(inside(directory, "cpu.stat"), _cpu_stat, shelf, hot=True)
        self._seen = -1
        self._last: Cpu = (None, None, None, None)

    @property
    def files(self) -> tuple[KeptFile[Numbers], ...]:
        return (self.stat,)

    def throttled_us(self) -> int | None:
        """Now, beside the readings, which do not notice."""
        counts = self.stat.value()
        return None if counts is None else counts[3]

    def read(self, _at: float, _waiting: bool) -> Cpu:
        """(usage us, periods, throttled periods, throttled us)."""
        counts = self.stat.value()
        if self.stat.changes != self._seen:
            self._seen = self.stat.changes
            usage, periods, throttled, time_us = counts or (None, None, None, None)
            self._last = (usage, periods, throttled, time_us)
        return self._last

    def still(self) -> bool:
        """True when nothing ran since the last reading."""
        return self.stat.value() is not None and self.stat.changes == self._seen


class MemoryV2:
    """memory.current each tick; memory.stat and memory.events in the slow tier."""

    __slots__ = ("_events", "_stat", "reclaim", "usage")

    def __init__(self, directory: str | None, shelf: Shelf) -> None:
        self.usage = KeptFile(inside(directory, "memory.current"), number, shelf, hot=True)
        self._stat = KeptFile(inside(directory, "memory.stat"), _memory_stat, shelf)
        self._events = KeptFile(inside(directory, "memory.events"), _events, shelf)
        self.reclaim = NO_RECLAIM

    @property
    def files(self) -> tuple[KeptFile[int] | KeptFile[Numbers], ...]:
        return (self.usage, self._stat, self._events)

    def detail(self) -> Details:
        """(inactive file, anonymous, file) bytes; notes `reclaim`: pages (refaulted, scanned, faulted in)."""
        found = self._stat.value() or _NOTHING
        inactive, anon, file, refaults_anon, refaults_file, refaults, direct, scanned, major = found
        whole = refaulted(refaults_anon, refaults_file, refaults)
        self.reclaim = (whole, scanned if direct is None else direct, major)
        return (inactive, anon, file)

    def events(self) -> MemoryEvents | None:
        """How often each limit was hit and a task killed for it."""
        counts = self._events.value()
        return None if counts is None else MemoryEvents(*counts)
