"""Processes that hold memory on one NUMA node, and where their pages are."""

from __future__ import annotations

import sys
from pathlib import Path

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.kernel.own_psi import all_below
from nodeagent.kernel.page_round import Round
from nodeagent.model.cpuset import CpuSet

MIB = 1 << 20
# Half of it is in huge pages, unless told otherwise (14: MADV_HUGEPAGE, 15: MADV_NOHUGEPAGE).
HOLD = """
import mmap, sys, time
size = int(sys.argv[1]) << 20
parts = [mmap.mmap(-1, size // 2, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(2)]
for part, advice in zip(parts, (15, 15) if sys.argv[2:] else (14, 15)):
    part.madvise(advice)
    for at in range(0, size // 2, 4096):
        part[at] = 1
print("held", flush=True)
time.sleep(1000)
"""
# As `HOLD`, in small pages that the process itself cannot reach; before v6.5 nor does move_pages.
HIDE = """
import ctypes, mmap, sys, time
size = int(sys.argv[1]) << 20
part = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
part.madvise(15)
for at in range(0, size, 4096):
    part[at] = 1
at = ctypes.addressof(ctypes.c_char.from_buffer(part))
assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(at), ctypes.c_size_t(size), 0) == 0
print("held", flush=True)
time.sleep(1000)
"""
# As `HOLD`, in pages that the kernel has pinned for I/O (io_uring_setup, then register the buffer).
PIN = """
import ctypes, mmap, struct, sys, time
size = int(sys.argv[1]) << 20
part = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
part.madvise(15)
for at in range(0, size, 4096):
    part[at] = 1
at = ctypes.addressof(ctypes.c_char.from_buffer(part))
call = ctypes.CDLL(None).syscall
ring = call(425, 4, ctypes.create_string_buffer(120))
assert ring >= 0
assert call(427, ring, 0, struct.pack("QQ", at, size), 1) == 0
print("held", flush=True)
time.sleep(1000)
"""
NODES = tuple(sorted(int(path.name[4:]) for path in Path("/sys/devices/system/node").glob("node[0-9]*")))


def holds(mib: int, cpu: int | None = None, *, small: bool = False) -> str:
    """A shell command: `mib` MiB of memory near that CPU, held for long; `small`: in no huge page.

    NUMA balancing marks huge pages before others, and kernels before v6.5 hide marked ones from move_pages.
    """
    on = "" if cpu is None else f"taskset -c {cpu} "
    return f"exec {on}{sys.executable} -c '{HOLD}' {mib}{' small' if small else ''}"


def cpu_of(node: int) -> int:
    """The first CPU of the NUMA node."""
    return min(CpuSet.parse(Path(f"/sys/devices/system/node/node{node}/cpulist").read_text()))


def pids(cgroup: str) -> list[int]:
    """The processes in the cgroup and below it, by the cpuset hierarchy."""
    return sorted(all_below(find_hierarchies("/").roots["cpuset"].root, cgroup))


def away_bytes(of: list[int], node: int) -> int:
    """Mapped pages of these processes that are not on the node."""
    return Round("/proc", CpuSet({node}), 1 << 30).off_bytes(of)


def mems(cgroup: str) -> str:
    """The NUMA nodes that the cgroup may use; an empty set on v2 means those of the cgroup around."""
    cpuset = find_hierarchies("/").roots["cpuset"]
    name = "cpuset.mems" if cpuset.version == 1 else "cpuset.mems.effective"
    return Path(cpuset.root, cgroup, name).read_text().strip()
