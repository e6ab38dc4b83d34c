"""CPUs, sockets, L3 caches and NUMA nodes from /sys/devices/system (Documentation/admin-guide/cputopology).

Invariant: every online CPU is in the result exactly once. What sysfs does not tell is None; without sysfs all
CPUs of /proc/stat are on NUMA node 0.
"""

from __future__ import annotations

from nodeagent.kernel.files import KeptFile, Shelf, read_whole
from nodeagent.kernel.node import cpu_rows, meminfo
from nodeagent.kernel.parse import number
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.errors import AgentError
from nodeagent.model.snapshot import NodeMemory
from nodeagent.model.topology import Cpu, NumaNode, Topology

_MAX_CACHES = 16


class TopologyFiles:
    """Reads the topology anew only when the list of online CPUs changes."""

    def __init__(self, proc: str, sys_system: str, shelf: Shelf) -> None:
        self._proc = proc
        self._sys = sys_system
        self._online = KeptFile(f"{sys_system}/cpu/online", _cpu_list, shelf, hot=True)
        self._seen = -1
        self._topology = Topology()

    @property
    def sys_node(self) -> str:
        return f"{self._sys}/node"

    def read(self) -> Topology:
        """The machine as of now."""
        online = self._online.value()
        if self._online.changes != self._seen or not self._topology.cpus:
            self._seen = self._online.changes
            self._topology = _from_proc(self._proc) if not online else _from_sys(self._sys, online)
        return self._topology

    def close(self) -> None:
        self._online.close()


def _from_sys(root: str, online: CpuSet) -> Topology:
    nodes = _numa_nodes(f"{root}/node", online) or (NumaNode(0, tuple(sorted(online)), None, (10,)),)
    home = {cpu: node.id for node in nodes for cpu in node.cpus}
    cpus = tuple(_cpu(f"{root}/cpu/cpu{cpu}", cpu, home.get(cpu), online) for cpu in sorted(online))
    present = _list(f"{root}/cpu/present") or online
    return Topology(cpus, nodes, tuple(sorted(present - online)))


def _from_proc(proc: str) -> Topology:
    rows = cpu_rows(_raw(f"{proc}/stat") or b"") or ()
    memory = meminfo(_raw(f"{proc}/meminfo") or b"")
    cpus = tuple(Cpu(row.cpu, None, None, 0, None) for row in rows)
    node = NumaNode(0, tuple(cpu.id for cpu in cpus), _total(memory), (10,))
    return Topology(cpus, (node,)) if cpus else Topology()


def _cpu(where: str, cpu: int, numa_node: int | None, online: CpuSet) -> Cpu:
    siblings = _list(f"{where}/topology/thread_siblings_list") or CpuSet()
    return Cpu(
        cpu,
        _number(f"{where}/topology/core_id"),
        _number(f"{where}/topology/physical_package_id"),
        numa_node,
        _l3(f"{where}/cache"),
        tuple(sorted(siblings & online)) or (cpu,),
    )


def _l3(cache: str) -> int | None:
    """The L3's id, or its lowest CPU where the kernel gives none (before 4.11 and on some arm64)."""
    for index in range(_MAX_CACHES):
        level = _number(f"{cache}/index{index}/level")
        if level is None:
            return None
        if level == 3:
            shared = _list(f"{cache}/index{index}/shared_cpu_list")
            given = _number(f"{cache}/index{index}/id")
            return given if given is not None or not shared else min(shared)
    return None


def _numa_nodes(where: str, online: CpuSet) -> tuple[NumaNode, ...]:
    """A CPU-less node has an empty cpulist, a memory-less one a MemTotal of 0."""
    nodes = []
    for node in sorted(_list(f"{where}/online") or ()):
        cpus = _list(f"{where}/node{node}/cpulist")
        if cpus is None:
            continue
        memory = meminfo(_raw(f"{where}/node{node}/meminfo") or b"")
        distances = [number(word) for word in (_raw(f"{where}/node{node}/distance") or b"").split()]
        known = tuple(distance for distance in distances if distance is not None)
        nodes.append(NumaNode(node, tuple(sorted(cpus & online)), _total(memory), known))
    return tuple(nodes)


def _total(memory: NodeMemory | None) -> int | None:
    return None if memory is None else memory.total_bytes


def _cpu_list(raw: bytes) -> CpuSet | None:
    try:
        return CpuSet.parse(raw.decode("ascii"))
    except ValueError:  # UnicodeDecodeError is one
        return None


def _list(path: str) -> CpuSet | None:
    raw = _raw(path)
    return None if raw is None else _cpu_list(raw)


def _number(path: str) -> int | None:
    """None too for -1, which stands for "not told"."""
    return number(_raw(path) or b"")


def _raw(path: str) -> bytes | None:
    try:
        return read_whole(path)
    except AgentError:
        return None
