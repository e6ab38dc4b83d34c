"""A program: how others read pods, once per line of input. `peers.py WAY LISTING`.

koordlet    stat, open, read, close and a dictionary of strings for each file     LISTING: paths of files
wca         8 files opened anew for each pod (Intel WCA, Cgroup.get_measurements)  paths of cgroup directories
cgroupspy   its controllers' properties: usage, stat, memory usage and stat        the same, v1 alone
psutil      one kept Process for each pod: cpu_times and memory_info               process ids
"""

import os
import sys
from collections.abc import Callable
from typing import NamedTuple

WCA_V1 = (
    ("cpuacct", "cpuacct.usage"),
    ("cpu", "cpu.cfs_quota_us"),
    ("memory", "memory.usage_in_bytes"),
    ("memory", "memory.max_usage_in_bytes"),
    ("memory", "memory.limit_in_bytes"),
    ("memory", "memory.soft_limit_in_bytes"),
    ("memory", "memory.numa_stat"),
    ("memory", "memory.stat"),
)
WCA_V2 = (
    ("cpu", "cpu.stat"),
    ("cpu", "cpu.max"),
    ("memory", "memory.current"),
    ("memory", "memory.peak"),
    ("memory", "memory.max"),
    ("memory", "memory.high"),
    ("memory", "memory.numa_stat"),
    ("memory", "memory.stat"),
)


def textual(path: str) -> dict[str, str]:
    """A file's words by its lines' first."""
    with open(path) as file:
        lines = file.read().strip().splitlines()
    return {words[0]: words[-1] for line in lines if (words := line.split())}


def koordlet(paths: list[str]) -> Callable[[], object]:
    """As Koordinator's node agent reads, if it were in Python."""
    return lambda: [(os.stat(path), textual(path)) for path in paths]


def wca(pods: list[str]) -> Callable[[], object]:
    """`pods` are directories by controller: "cpu=/sys/fs/... memory=/sys/fs/..."."""
    paths: list[str] = []
    for line in pods:
        where = dict(each.split("=", 1) for each in line.split())
        wanted = WCA_V1 if "cpuacct" in where else WCA_V2
        found = (f"{where[controller]}/{name}" for controller, name in wanted if controller in where)
        paths += [path for path in found if os.path.exists(path)]
    return lambda: [textual(path) for path in paths]


def cgroupspy(pods: list[str]) -> Callable[[], object]:
    """The properties of its controllers, which read v1's files."""
    from cgroupspy.controllers import CpuAcctController, CpuController, MemoryController

    class Place(NamedTuple):
        full_path: bytes

    kept = []
    for line in pods:
        where = {
            name: Place(os.fsencode(path)) for name, path in (each.split("=", 1) for each in line.split())
        }
        kept.append(
            (
                CpuAcctController(where["cpuacct"]),
                CpuController(where["cpu"]),
                MemoryController(where["memory"]),
            )
        )
    return lambda: [(a.usage, c.stat, m.usage_in_bytes, m.stat) for a, c, m in kept]


def psutil(pids: list[str]) -> Callable[[], object]:
    """What most monitors in Python do."""
    import psutil as library

    kept = [library.Process(int(pid)) for pid in pids]
    return lambda: [(process.cpu_times(), process.memory_info()) for process in kept]


WAYS = {"koordlet": koordlet, "wca": wca, "cgroupspy": cgroupspy, "psutil": psutil}


def main() -> None:
    """Say "ready", then "done" after each tick."""
    way, listing = sys.argv[1:]
    with open(listing) as file:
        tick = WAYS[way](file.read().splitlines())
    print("ready", flush=True)
    for _ in sys.stdin:
        tick()
        print("done", flush=True)


if __name__ == "__main__":
    main()
