"""One cgroup's kept files -> Reading, in two tiers.

    each tick   cpu usage, throttling, cpu pressure, memory usage
    slow        memory.stat, memory events, memory and io pressure, pids, and where a pod's pages are;
                carried over with their `slow_at`

A cgroup at rest (no task of it ran or waited) is not throttled, charges no memory and fails no charge: its
throttling and memory events stand still, and its memory usage, which others may reclaim, is left to the slow
tier or to the tick in which the gate moves. Once a slow reading has found it so, and as long as its memory
usage stays the same, its slow values are what they were, without being read, for REST_S at most. Where all
pods beside it together hardly waited for CPU, its own pressure is not read while nothing runs in it: what it
waits is told by the tick in which it runs, or the slow tier.
Invariant: a cgroup is read only while the one of its name has its inode. A slow value is never shown as newer
than it is; memory and io pressure are carried over under a newer `slow_at` only while the gate is shut.
"""

from __future__ import annotations

import math
import os
from typing import Any

from nodeagent.kernel import read_v1, read_v2
from nodeagent.kernel.files import KeptFile, Shelf, inside
from nodeagent.kernel.mounts import Hierarchies
from nodeagent.kernel.parse import Pages, number, stall
from nodeagent.kernel.read_v1 import Cpu, CpuV1, Details, MemoryV1, Reclaim
from nodeagent.kernel.read_v2 import CpuV2, MemoryV2
from nodeagent.kernel.symptoms.run_delay import RunDelay
from nodeagent.model.errors import Gone
from nodeagent.model.pod import CgroupDir
from nodeagent.model.snapshot import MemoryEvents, Reading, Stall

PSI_KINDS = ("cpu", "memory", "io")
REST_S = 60.0  # for which slow values of a cgroup at rest are carried over

_Cold = tuple[
    float | None, *Details, MemoryEvents | None, Stall | None, Stall | None, int | None, Pages | None
]
_NO_CPU: Cpu = (None,) * 4
_NO_COLD: _Cold = (None,) * 9


class PsiFiles:
    """The three pressure files of one cgroup in the v2 hierarchy, or of the node in /proc/pressure."""

    __slots__ = ("cpu", "directory", "io", "memory")

    def __init__(self, directory: str, shelf: Shelf, suffix: str = ".pressure") -> None:
        self.directory = directory
        self.cpu = KeptFile(f"{directory}/cpu{suffix}", stall, shelf, hot=True)
        self.memory = KeptFile(f"{directory}/memory{suffix}", stall, shelf)
        self.io = KeptFile(f"{directory}/io{suffix}", stall, shelf)

    @property
    def files(self) -> tuple[KeptFile[Stall], ...]:
        return (self.cpu, self.memory, self.io)

    @property
    def lost(self) -> bool:
        return not any(file.kept for file in self.files)

    @property
    def absent(self) -> tuple[str, ...]:
        """Kinds of pressure that this directory did not have when it was last read."""
        if not (self.cpu.absent or self.memory.absent or self.io.absent):
            return ()
        return tuple(kind for kind, file in zip(PSI_KINDS, self.files, strict=True) if file.absent)

    def close(self) -> None:
        for file in self.files:
            file.close()


class CgroupReader:
    """`directory` is looked for in every hierarchy; `psi` is where its pressure is told, None: nowhere.

    `numa`: also tell on which NUMA nodes its pages are. `delay` is what stands in for its CPU pressure: it
    moves only when a thread comes to run.
    """

    __slots__ = (
        "_calm", "_cold", "_cpu", "_directory", "_events", "_files", "_last", "_last_cpu", "_memory",
        "_misses", "_pages", "_pids", "_psi", "_read_at", "_stirred", "_sure", "_walk_root", "delay",
    )  # fmt: skip

    def __init__(
        self, places: Hierarchies, directory: CgroupDir, shelf: Shelf, *, numa: bool = False
    ) -> None:
        path = directory.path
        where = {name: f"{found.root}/{path}" for name, found in places.roots.items()}
        version = {name: found.version for name, found in places.roots.items()}
        self._cpu: CpuV1 | CpuV2
        if 1 in (version.get("cpu"), version.get("cpuacct")):
            self._cpu = CpuV1(where.get("cpu"), where.get("cpuacct"), shelf)
        else:  # usage is in every v2 cgroup's cpu.stat, with or without the controller
            self._cpu = CpuV2(f"{places.unified}/{path}" if places.unified else None, shelf)
        dialect = MemoryV1 if version.get("memory") == 1 else MemoryV2
        self._memory: MemoryV1 | MemoryV2 = dialect(where.get("memory"), shelf)
        self._pids = KeptFile(inside(where.get("pids"), "pids.current"), number, shelf)
        self._files: tuple[KeptFile[Any], ...] = (*self._cpu.files, *self._memory.files, self._pids)
        self._pages: KeptFile[Pages] | None = None
        if numa:
            by_node = read_v1.pages_by_node if dialect is MemoryV1 else read_v2.pages_by_node
            self._pages = KeptFile(inside(where.get("memory"), "memory.numa_stat"), by_node, shelf)
            self._files = (*self._files, self._pages)
        self._psi: PsiFiles | None = None
        self._directory, self._walk_root, self._misses = directory, places.walk_root, shelf.misses
        self.delay: RunDelay | None = None
        self._sure = False  # True while a descriptor is kept that dies with the cgroup
        self._events: MemoryEvents | None = None
        self._stirred = True  # some task ran or waited since the last slow reading
        self._calm = False  # the last slow reading found that none had since the one before
        self._read_at = -math.inf  # when slow files were last read
        self._last, self._last_cpu, self._cold = Reading(), _NO_CPU, _NO_COLD

    @property
    def psi(self) -> PsiFiles | None:
        return self._psi

    @psi.setter
    def psi(self, psi: PsiFiles | None) -> None:
        if self._psi is not None:
            self._psi.close()
        self._psi = psi
        self._cold = (*self._cold[:5], None, None, *self._cold[7:])

    @property
    def files(self) -> tuple[KeptFile[Any], ...]:  # Any: each parses to something else
        return self._files if self._psi is None else (*self._files, *self._psi.files)

    @property
    def reclaim(self) -> Reclaim:
        """Pages (refaulted, scanned directly, read from disk) so far, as of the last slow reading."""
        return self._memory.reclaim

    @property
    def lacks(self) -> tuple[str, ...]:
        """What no file of this cgroup tells: ("memory",) where it is in no memory hierarchy."""
        return ("memory",) if self._memory.usage.absent else ()

    def read(self, at: float, slow: bool, full: bool, parent_moved: bool) -> Reading:
        """`slow`: the slow tier is due. `full`: read every file, even what could be known without.

        Gone when the cgroup is, or when there is another one in its place.
        """
        last, psi, gone_before = self._last, self._psi, self._misses.gone
        if slow:
            self._retry_absent()
        cpu_stall, memory_stall, io_stall = None, last.memory_stall, last.io_stall
        if psi is not None:
            cpu_stall = psi.cpu.value()
            if parent_moved or full or memory_stall is None or io_stall is None:
                memory_stall, io_stall = psi.memory.value(), psi.io.value()
                slow = slow or memory_stall is not last.memory_stall or io_stall is not last.io_stall
        waiting = full or cpu_stall is None or cpu_stall is not last.cpu_stall
        cpu = self._cpu.read(at, waiting)
        resting = not waiting and cpu is self._last_cpu
        delay_us = None if self.delay is None else self._waited(self.delay, at, cpu[0], slow)
        used = last.memory_bytes
        if slow or parent_moved or not resting or used is None:
            used = self._memory.usage.value()
        if slow:
            same = not full and not parent_moved and used is last.memory_bytes
            if self._calm and resting and not self._stirred and same and at < self._read_at + REST_S:
                pids = self._cold[7]
                self._cold = (at, *self._cold[1:5], memory_stall, io_stall, pids, self._where())
            else:
                self._read_cold(at, resting, memory_stall, io_stall)
        elif not resting:
            self._stirred = True
        if not self._sure or self._misses.gone != gone_before:
            self._check()
        if slow or not resting or used is not last.memory_bytes or delay_us != last.run_delay_us:
            self._last_cpu = cpu
            self._last = Reading(*(*cpu, cpu_stall, used, delay_us, *self._cold))
        return self._last

    def waited_us(self, at: float) -> int | None:
        """us that it waited for CPU until `at`, between two readings: PSI some, else run delay."""
        if self._psi is not None:
            stall = self._psi.cpu.value()
            return None if stall is None else stall.some_us
        return None if self.delay is None else self.delay.read(at)

    def throttled_us(self) -> int:
        """us that its own quota stopped it until now; looked at only where it ever did."""
        return (self._last_cpu[3] and self._cpu.throttled_us()) or 0

    def still(self, *, calm: bool) -> bool:
        """True when it rests as at the last reading, which `read` would give again; slow values apart.

        `calm`: that nothing ran in it is enough, as nobody in it can have waited for long.
        """
        psi, gone_before = self._psi, self._misses.gone
        if (
            psi is None
            or not self._sure
            or not self._cpu.still()
            or not (calm or psi.cpu.value() is self._last.cpu_stall)
        ):
            self._sure = self._sure and self._misses.gone == gone_before
            return False
        return self._last.cpu_stall is not None

    def close(self) -> None:
        for file in self.files:
            file.close()

    def _read_cold(
        self, at: float, resting: bool, memory_stall: Stall | None, io_stall: Stall | None
    ) -> None:
        self._calm = resting and not self._stirred
        if not self._calm:
            self._stirred, self._events = not resting, self._memory.events()
        self._read_at = at
        details, pids = self._memory.detail(), self._pids.value()
        pages = None if self._pages is None else self._pages.value()
        self._cold = (at, *details, self._events, memory_stall, io_stall, pids, pages)

    def _where(self) -> Pages | None:
        """The pages of a cgroup at rest: others may move them, if there is anywhere else."""
        last = self._cold[8]
        return self._pages.value() if self._pages is not None and last is not None and len(last) > 1 else last

    def _waited(self, delay: RunDelay, at: float, cpu_us: int | None, slow: bool) -> int | None:
        last = self._last
        known = last.run_delay_us is not None and cpu_us is not None and cpu_us == last.cpu_us
        return last.run_delay_us if known and not slow else delay.read(at)

    def _retry_absent(self) -> None:
        """A controller may have been enabled since."""
        for file in self.files:
            file.absent = False

    def _check(self) -> None:
        """What was read is this cgroup's only if it is still there afterwards."""
        path = f"{self._walk_root}/{self._directory.path}"
        try:
            found = os.stat(path).st_ino
        except OSError:
            found = None
        if found != self._directory.inode:
            self._sure = False  # so that it is Gone the next time too
            self.close()
            raise Gone(f"{path}: " + ("removed" if found is None else "another cgroup of the same name"))
        self._sure = any(file.kept for file in self._cpu.files)
