"""Node-wide readings: /proc/stat, meminfo, pressure, loadavg, zoneinfo, disks, and each NUMA node's meminfo.

Invariant: a file that is missing or garbled makes its own part None (or leaves its NUMA node out), no other.
"""

from __future__ import annotations

import os
import re
from typing import Any

from nodeagent.kernel.disks import DiskFiles
from nodeagent.kernel.files import KeptFile, Shelf, read_whole
from nodeagent.kernel.parse import MAX_NUMBER, number
from nodeagent.kernel.reading import PsiFiles
from nodeagent.model.errors import AgentError, Unsupported
from nodeagent.model.snapshot import CpuTimes, Load, Node, NodeMemory

_USER_HZ = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# "        high     4567" counts pages of a zone; "high:  378" is a per-CPU list's.
_HIGH = re.compile(rb"^ +high +(\d{1,18})$", re.MULTILINE)


class NodeFiles:
    """`slow_tick_s`: how often zoneinfo, which is long and all but constant, is read."""

    def __init__(self, proc: str, sys_node: str, sys_block: str, slow_tick_s: float, shelf: Shelf) -> None:
        self._stat = KeptFile(f"{proc}/stat", cpu_rows, shelf, hot=True)
        self._memory = KeptFile(f"{proc}/meminfo", meminfo, shelf, hot=True)
        self._load = KeptFile(f"{proc}/loadavg", loadavg, shelf, hot=True)
        self._disks = DiskFiles(proc, sys_block, shelf)
        self._zoneinfo = f"{proc}/zoneinfo"
        self._psi = PsiFiles(f"{proc}/pressure", shelf, suffix="")
        self._sys_node = sys_node
        self._numa: dict[int, KeptFile[NodeMemory]] = {}
        self._shelf = shelf
        self._slow_tick_s = slow_tick_s
        self._slow_at: float | None = None
        self._watermark: int | None = None

    def read(self, at: float, numa_nodes: tuple[int, ...], *, full: bool = False) -> Node:
        """All of it at `at`; `numa_nodes` are the ids of the nodes to ask for their memory."""
        if full or self._slow_at is None or at >= self._slow_at + self._slow_tick_s:
            self._slow_at = at
            self._watermark = self._watermarks()
        return Node(
            cpus=self._stat.value(),
            memory=self._memory.value(),
            numa_memory=self._numa_memory(numa_nodes),
            watermark_bytes=self._watermark,
            cpu_stall=self._psi.cpu.value(),
            memory_stall=self._psi.memory.value(),
            io_stall=self._psi.io.value(),
            load=self._load.value(),
            disks=self._disks.read(),
        )

    def psi_kinds(self) -> frozenset[str]:
        """The kinds of pressure that this kernel gives (none with psi=0 or before 4.20)."""
        kinds = {"cpu": self._psi.cpu, "memory": self._psi.memory, "io": self._psi.io}
        for file in kinds.values():
            file.value()
        return frozenset(kind for kind, file in kinds.items() if not file.absent)

    def close(self) -> None:
        files: tuple[KeptFile[Any], ...] = (self._stat, self._memory, self._load, *self._psi.files)
        for file in (*files, *self._numa.values()):
            file.close()
        self._disks.close()

    def _watermarks(self) -> int | None:
        try:
            return watermarks(read_whole(self._zoneinfo), _PAGE_BYTES)
        except Unsupported:
            return None
        except AgentError as error:
            self._shelf.misses.count(error)
            return None

    def _numa_memory(self, numa_nodes: tuple[int, ...]) -> tuple[NodeMemory, ...]:
        if self._numa.keys() != set(numa_nodes):
            for file in self._numa.values():
                file.close()
            where = self._sys_node
            self._numa = {
                node: KeptFile(f"{where}/node{node}/meminfo", meminfo, self._shelf, hot=True)
                for node in numa_nodes
            }
        found = [file.value() for file in self._numa.values()]
        return tuple(memory for memory in found if memory is not None)


def cpu_rows(raw: bytes) -> tuple[CpuTimes, ...] | None:
    """The cpuN rows of /proc/stat in us; CPUs that are offline have none. steal is 0 before Linux 2.6.11."""
    rows: list[CpuTimes] = []
    for line in raw.split(b"\nintr", 1)[0].splitlines():
        name, *words = line.split() or [b""]
        if not name.startswith(b"cpu"):
            break
        if name == b"cpu":
            continue
        cpu = number(name[3:])
        times = [number(word) for word in words[:8]]
        if cpu is None or len(times) < 7:
            return None
        us = [time * 1_000_000 // _USER_HZ for time in times if time is not None]
        if len(us) != len(times) or max(us) > MAX_NUMBER:
            return None
        rows.append(CpuTimes(cpu, *us, *[0] * (8 - len(us))))
    return tuple(rows) or None


def meminfo(raw: bytes) -> NodeMemory | None:
    """/proc/meminfo, or a NUMA node's ("Node 0 MemTotal: 24 kB"), which has no MemAvailable."""
    found: dict[bytes, int] = {}
    node = None
    for line in raw.splitlines():
        words = line.split()
        if len(words) < 3 or words[-1] != b"kB":
            continue  # HugePages_Total and its like are counts
        kib = number(words[-2])
        if kib is not None and kib <= MAX_NUMBER // 1024:
            found[words[-3]] = kib * 1024
        if words[0] == b"Node":
            node = number(words[1])
    total, free = found.get(b"MemTotal:"), found.get(b"MemFree:")
    if total is None or free is None:
        return None
    reclaimable = found.get(b"KReclaimable:", found.get(b"SReclaimable:"))  # the former since Linux 4.20
    return NodeMemory(
        total, free, found.get(b"MemAvailable:"), found.get(b"Inactive(file):"), reclaimable, node
    )


def loadavg(raw: bytes) -> Load | None:
    """/proc/loadavg: "0.07 0.02 0.00 1/90 5065"."""
    words = raw.split()
    if len(words) != 5 or not all(_DECIMAL.fullmatch(word) for word in words[:3]):
        return None
    runnable, _, tasks = words[3].partition(b"/")
    counts = number(runnable), number(tasks)
    if counts[0] is None or counts[1] is None:
        return None
    return Load(float(words[0]), float(words[1]), float(words[2]), counts[0], counts[1])


_DECIMAL = re.compile(rb"\d{1,12}\.\d{1,6}")


def watermarks(raw: bytes, page_bytes: int) -> int | None:
    """Sum of all zones' high watermarks (/proc/zoneinfo) in bytes."""
    pages = [int(text) for text in _HIGH.findall(raw)]
    total = sum(pages) * page_bytes
    return total if pages and total <= MAX_NUMBER else None
