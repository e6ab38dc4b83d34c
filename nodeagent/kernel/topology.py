"""CPUs, sockets, L3 caches and NUMA nodes from /sys/devices/system (Documentation/admin-guide/cputopology).

Invariant: every online CPU is in the result exactly once. What sysfs does not tell is None; without sysfs all
CPUs of /proc/stat are on NUMA node 0.
"""

from __future__ import annotations

import itertools

from msgspec.structs import replace

from nodeagent.kernel.devices import DeviceFiles
from nodeagent.kernel.files import KeptFile, Shelf, read_whole
from nodeagent.kernel.node import cpu_rows, meminfo
from nodeagent.kernel.parse import number
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.errors import AgentError
from nodeagent.model.snapshot import NodeMemory
from nodeagent.model.topology import Cpu, NumaNode, Topology

_MAX_CACHES = 16
_LOOK_AGAIN_S = 30.0  # for memory, devices and isolation, which may change while the CPUs stay


class TopologyFiles:
    """Reads the CPUs anew only when the list of online ones changes, what else comes and goes more often."""

    def __init__(self, proc: str, sys_system: str, shelf: Shelf) -> None:
        self._proc = proc
        self._sys = sys_system
        self._devices = DeviceFiles(sys_system.removesuffix("/devices/system"))
        self._online = KeptFile(f"{sys_system}/cpu/online", _cpu_list, shelf, hot=True)
        self._seen = -1
        self._due_at = 0.0
        self._topology = Topology()

    @property
    def sys_node(self) -> str:
        return f"{self._sys}/node"

    def read(self, at: float = 0.0) -> Topology:
        """The machine as of now, at `at` (monotonic seconds); the same object as long as nothing changed."""
        online = self._online.value()
        anew = self._online.changes != self._seen or not self._topology.cpus
        if anew or at >= self._due_at:
            self._seen, self._due_at = self._online.changes, at + _LOOK_AGAIN_S
            found = self._looked(online, anew)
            if found != self._topology:
                self._topology = found
        return self._topology

    def close(self) -> None:
        self._online.close()

    def _looked(self, online: CpuSet | None, anew: bool) -> Topology:
        """Memory nodes, devices and isolated CPUs as of now; the CPUs too if they are to be read `anew`."""
        if not online:
            found = _from_proc(self._proc) if anew else self._topology
            return replace(found, devices=self._devices.read())
        nodes = _numa_nodes(self.sys_node, online) or (NumaNode(0, tuple(sorted(online)), None, (10,)),)
        home = {cpu: node.id for node in nodes for cpu in node.cpus}
        cpus, offline = self._topology.cpus, self._topology.offline
        if anew or any(home.get(cpu.id) != cpu.numa_node for cpu in cpus):
            cpus = tuple(
                _cpu(f"{self._sys}/cpu/cpu{cpu}", cpu, home.get(cpu), online) for cpu in sorted(online)
            )
            offline = tuple(sorted((_list(f"{self._sys}/cpu/present") or online) - online))
        return Topology(cpus, nodes, offline, _isolated(f"{self._sys}/cpu", online), self._devices.read())


def _isolated(where: str, online: CpuSet) -> tuple[int, ...]:
    """CPUs of isolcpus= and nohz_full=; both files have a word of their own for none ("", "(null)")."""
    found = (_list(f"{where}/{name}") or CpuSet() for name in ("isolated", "nohz_full"))
    return tuple(sorted(online.intersection(itertools.chain.from_iterable(found))))


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
