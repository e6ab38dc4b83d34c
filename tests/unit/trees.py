"""Captured trees: what /proc and /sys of some machines say, as path -> text; `plant` puts one on disk.

POD is the path of the one pod in each tree, with a container "app" of process 100.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from nodeagent.model.pod import CgroupDir, Member, PodSpec, Qos

Tree = dict[str, str]

POD = "kubepods/burstable/pod1"
_PRESSURE = (
    "some avg10=0.00 avg60=0.00 avg300=0.00 total={}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total={}\n"
)


def plant(root: Path, tree: Mapping[str, str | bytes]) -> str:
    """Write the files below `root`, which then is a host root; its path."""
    for path, content in tree.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(root)


def member(root: Path, hierarchy: str, cgroup: str = POD, qos: Qos = Qos.LS) -> Member:
    """The pod as a scan of `hierarchy` (below `root`) finds it, its children as its containers."""
    top = root / hierarchy / cgroup
    children = sorted(path.name for path in top.iterdir() if path.is_dir())
    spec = PodSpec(uid=cgroup, name="pod1", cgroup=cgroup, inode=os.stat(top).st_ino, qos=qos, source="rule")
    containers = tuple((name, CgroupDir(f"{cgroup}/{name}", os.stat(top / name).st_ino)) for name in children)
    return Member(spec, containers, tuple(directory.path for _, directory in containers))


def pressure(some: int, full: int) -> str:
    return _PRESSURE.format(some, full)


def _mounts(*lines: str) -> str:
    """mountinfo with / and /sys around these cgroup mounts ("POINT TYPE OPTIONS")."""
    texts = ["21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw", "22 21 0:20 / /sys rw shared:2 - sysfs sysfs rw"]
    for number, line in enumerate(lines):
        point, kind, options = line.split()
        texts.append(
            f"{30 + number} 22 0:{30 + number} / {point} rw shared:{9 + number} - {kind} {kind} {options}"
        )
    return "".join(f"{text}\n" for text in texts)


_PROC: Tree = {
    "proc/stat": "cpu  300 0 60 900 0 0 0 6 0 0\ncpu0 100 0 20 300 0 0 0 2 0 0\n"
    "cpu1 200 0 40 600 0 0 0 4 0 0\nintr 5 1\n",
    "proc/meminfo": "MemTotal: 1000 kB\nMemFree: 400 kB\nMemAvailable: 600 kB\nInactive(file): 50 kB\n"
    "KReclaimable: 30 kB\nSReclaimable: 20 kB\nHugePages_Total: 0\n",
    "proc/loadavg": "0.50 0.25 0.10 2/90 5065\n",
    "proc/zoneinfo": "Node 0, zone      DMA\n  pages free     10\n        min      1\n        high     3\n"
    "  pagesets\n    cpu: 0\n              high:  378\nNode 0, zone   Normal\n        high     7\n",
    "proc/pressure/cpu": pressure(500, 0),
    "proc/pressure/memory": pressure(60, 50),
    "proc/pressure/io": pressure(70, 60),
    "proc/sys/kernel/random/boot_id": "6f1c1a52-8f0f-4b6c-9a2e-0c53c1d1a7b4\n",
    "proc/100/schedstat": "9000000 2500000 12\n",
    "proc/101/schedstat": "1000000 1500000 2\n",
}


def _v1_pod(cpu: str, cpuacct: str, memory: str, pids: str, path: str) -> Tree:
    return {
        f"{cpuacct}/{path}/cpuacct.usage": "7654321\n",
        f"{cpu}/{path}/cpu.stat": "nr_periods 40\nnr_throttled 4\nthrottled_time 9000000\n",
        f"{cpu}/{path}/cgroup.procs": "100\n" if path.endswith("app") else "",
        f"{cpu}/{path}/tasks": "100\n101\n" if path.endswith("app") else "",
        f"{memory}/{path}/memory.usage_in_bytes": "8192000\n",
        f"{memory}/{path}/memory.stat": "cache 1\nrss 2\ninactive_file 3\n"
        "total_cache 4096000\ntotal_rss 4000000\ntotal_inactive_file 1024000\n"
        "hierarchical_memory_limit 18446744073709551615\n",
        f"{memory}/{path}/memory.failcnt": "3\n",
        f"{memory}/{path}/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
        f"{pids}/{path}/pids.current": "2\n",
        f"{memory}/{path}/memory.numa_stat": "total=3 N0=3 N2=0\nfile=1 N0=1 N2=0\nanon=2 N0=2 N2=0\n"
        "unevictable=0 N0=0 N2=0\nhierarchical_total=1000 N0=900 N2=100\nhierarchical_file=500 N0=500 N2=0\n"
        "hierarchical_anon=500 N0=400 N2=100\nhierarchical_unevictable=0 N0=0 N2=0\n",
    }


def _v2_pressure(root: str, path: str) -> Tree:
    return {
        f"{root}/{path}/cpu.pressure": pressure(1000, 10),
        f"{root}/{path}/memory.pressure": pressure(200, 20),
        f"{root}/{path}/io.pressure": pressure(300, 30),
    }


_CG = "sys/fs/cgroup"
_V1_LINES = [
    f"/{_CG}/{name} cgroup rw,{name}" for name in ("cpu", "cpuacct", "cpuset", "memory", "pids", "blkio")
]
_NAMED = f"/{_CG}/systemd cgroup rw,xattr,name=systemd"
_APART = (f"{_CG}/cpu", f"{_CG}/cpuacct", f"{_CG}/memory", f"{_CG}/pids")
_JOINT = (f"{_CG}/cpu,cpuacct", f"{_CG}/cpu,cpuacct", f"{_CG}/memory", f"{_CG}/pids")

V1: Tree = _PROC | {"proc/1/mountinfo": _mounts(*_V1_LINES, _NAMED)}
V1 |= _v1_pod(*_APART, POD) | _v1_pod(*_APART, f"{POD}/app") | {"proc/100/cgroup": f"1:cpu:/{POD}/app\n"}

_V1_JOINT_LINES = [
    f"/{_CG}/cpu,cpuacct cgroup rw,cpu,cpuacct",
    f"/{_CG}/memory cgroup rw,memory",
    f"/{_CG}/pids cgroup rw,pids",
]
V1_JOINT: Tree = _PROC | {"proc/1/mountinfo": _mounts(*_V1_JOINT_LINES, _NAMED)}
V1_JOINT |= (
    _v1_pod(*_JOINT, POD) | _v1_pod(*_JOINT, f"{POD}/app") | {"proc/100/cgroup": f"1:cpu:/{POD}/app\n"}
)

# The v2 tree of a hybrid node has no controllers here, but pressure in every cgroup.
_UNIFIED = f"{_CG}/unified"
HYBRID: Tree = V1 | {"proc/1/mountinfo": _mounts(*_V1_LINES, _NAMED, f"/{_UNIFIED} cgroup2 rw,nsdelegate")}
HYBRID |= {
    "proc/100/cgroup": f"2:cpuacct:/{POD}/app\n1:cpu:/{POD}/app\n0::/{POD}/app\n",
    f"{_UNIFIED}/cgroup.controllers": "hugetlb\n",
    f"{_UNIFIED}/kubepods/burstable/memory.pressure": pressure(200, 20),
    f"{_UNIFIED}/kubepods/burstable/io.pressure": pressure(300, 30),
}
HYBRID |= _v2_pressure(_UNIFIED, POD) | _v2_pressure(_UNIFIED, f"{POD}/app")


def _v2_pod(path: str) -> Tree:
    return _v2_pressure(_CG, path) | {
        f"{_CG}/{path}/cpu.stat": "usage_usec 7654\nuser_usec 7000\nsystem_usec 654\nnice_usec 0\n"
        "nr_periods 40\nnr_throttled 4\nthrottled_usec 9000\n",
        f"{_CG}/{path}/cgroup.procs": "100\n" if path.endswith("app") else "",
        f"{_CG}/{path}/memory.current": "8192000\n",
        f"{_CG}/{path}/memory.stat": "anon 4000000\nfile 4096000\nkernel 5\ninactive_file 1024000\n",
        f"{_CG}/{path}/memory.events": "low 0\nhigh 5\nmax 3\noom 1\noom_kill 1\noom_group_kill 0\n",
        f"{_CG}/{path}/pids.current": "2\n",
        f"{_CG}/{path}/memory.numa_stat": "anon N0=1638400 N2=409600\nfile N0=2048000 N2=0\n"
        "kernel_stack N0=16384 N2=0\nshmem N0=0 N2=0\nunevictable N0=0 N2=409600\n",
    }


V2: Tree = _PROC | {"proc/1/mountinfo": _mounts(f"/{_CG} cgroup2 rw,nsdelegate,memory_recursiveprot")}
V2 |= {f"{_CG}/cgroup.controllers": "cpuset cpu io memory pids\n", "proc/100/cgroup": f"0::/{POD}/app\n"}
V2 |= _v2_pod(POD) | _v2_pod(f"{POD}/app")


def _cpu(number: int, core: int, socket: int, siblings: str, l3: int | None, shared: str) -> Tree:
    top = f"sys/devices/system/cpu/cpu{number}"
    given = {} if l3 is None else {f"{top}/cache/index1/id": f"{l3}\n"}
    return given | {
        f"{top}/topology/core_id": f"{core}\n",
        f"{top}/topology/physical_package_id": f"{socket}\n",
        f"{top}/topology/thread_siblings_list": f"{siblings}\n",
        f"{top}/cache/index0/level": "1\n",
        f"{top}/cache/index1/level": "3\n",
        f"{top}/cache/index1/shared_cpu_list": f"{shared}\n",
    }


def _numa(node: int, cpus: str, total_kb: int, distances: str) -> Tree:
    top = f"sys/devices/system/node/node{node}"
    return {
        f"{top}/cpulist": f"{cpus}\n",
        f"{top}/distance": f"{distances}\n",
        f"{top}/meminfo": f"Node {node} MemTotal: {total_kb} kB\nNode {node} MemFree: {total_kb // 2} kB\n",
    }


# Two sockets of two cores with two threads; node 2 has memory and no CPU (CXL), node 3 a CPU and no memory;
# CPU 7 is offline, so its sibling 3 is alone.
NUMA: Tree = {
    "sys/devices/system/cpu/online": "0-6\n",
    "sys/devices/system/cpu/present": "0-7\n",
    "sys/devices/system/node/online": "0-3\n",
}
for _n in range(7):
    _core, _socket = _n % 4, _n % 4 // 2
    _near = "0-1,4-5" if _socket == 0 else "2-3,6"
    _pair = f"{_core},{_core + 4}" if _core != 3 else "3"
    NUMA |= _cpu(_n, _core % 2, _socket, _pair, _socket if _socket == 0 else None, _near)
NUMA |= _numa(0, "0-1,4-5", 4000, "10 21 30 21") | _numa(1, "2,6", 2000, "21 10 30 12")
NUMA |= _numa(2, "", 8000, "30 30 10 30") | _numa(3, "3,7", 0, "21 12 30 10")
