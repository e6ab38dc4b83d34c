"""Machines as the kernel tells them: real layouts by a few numbers, and what goes wrong with them.

Numbering: "split" counts first the first threads of all cores, then the second (n and n + N/2: Intel and AMD
servers); "adjacent" counts thread by thread (n and n + 1: POWER, some virtual machines).
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from nodeagent.model.topology import Cpu, Device, NumaNode, Topology
from tests.unit import captured

GIB = 1 << 30


@dataclass(frozen=True)
class Layout:
    """A regular machine: cores are counted socket by socket, NUMA node by node, L3 by L3."""

    sockets: int = 1
    nodes: int = 1  # per socket
    caches: int = 1  # L3 per node
    cores: int = 2  # per L3
    threads: int = 1
    numbering: str = "split"
    gib: int = 64  # per node

    def topology(self) -> Topology:
        per_node = self.caches * self.cores
        total = self.sockets * self.nodes * per_node
        cpus = []
        for core in range(total):
            siblings = tuple(self._number(core, thread, total) for thread in range(self.threads))
            node = core // per_node
            where = (core, node // self.nodes, node, core // self.cores)
            cpus += [Cpu(number, *where, siblings) for number in siblings]
        cpus.sort(key=lambda cpu: cpu.id)
        return Topology(tuple(cpus), tuple(self._node(n, cpus) for n in range(self.sockets * self.nodes)))

    def _number(self, core: int, thread: int, total: int) -> int:
        return core * self.threads + thread if self.numbering == "adjacent" else core + thread * total

    def _node(self, node: int, cpus: list[Cpu]) -> NumaNode:
        def distance(other: int) -> int:
            return 10 if other == node else 12 if other // self.nodes == node // self.nodes else 21

        here = tuple(cpu.id for cpu in cpus if cpu.numa_node == node)
        distances = tuple(distance(other) for other in range(self.sockets * self.nodes))
        return NumaNode(node, here, self.gib * GIB, distances)


def without(topology: Topology, *offline: int) -> Topology:
    """The same machine with these CPUs offline: the kernel then tells of them in no list but `offline`."""
    gone = set(offline)
    cpus = tuple(
        replace(cpu, siblings=tuple(s for s in cpu.siblings if s not in gone))
        for cpu in topology.cpus
        if cpu.id not in gone
    )
    nodes = tuple(replace(n, cpus=tuple(c for c in n.cpus if c not in gone)) for n in topology.nodes)
    return replace(topology, cpus=cpus, nodes=nodes, offline=tuple(sorted({*topology.offline, *gone})))


def with_memory(topology: Topology, node: int, memory_bytes: int) -> Topology:
    """The same machine with so much memory on one NUMA node."""
    nodes = tuple(replace(n, memory_bytes=memory_bytes) if n.id == node else n for n in topology.nodes)
    return replace(topology, nodes=nodes)


def with_cpuless_node(topology: Topology, gib: int = 256) -> Topology:
    """The same machine with a NUMA node of memory alone (CXL), far from all."""
    last = len(topology.nodes)
    nodes = tuple(replace(n, distances=(*n.distances, 30)) for n in topology.nodes)
    return replace(topology, nodes=(*nodes, NumaNode(last, (), gib * GIB, (*(30 for _ in range(last)), 10))))


def unknown(topology: Topology) -> Topology:
    """The same CPUs as /proc alone tells them: one NUMA node, no cores, caches, sockets or sizes."""
    cpus = tuple(Cpu(cpu.id, None, None, 0, None) for cpu in topology.cpus)
    return Topology(cpus, (NumaNode(0, tuple(cpu.id for cpu in cpus), None, (10,)),))


TWO_CPUS = Layout().topology()
TWO_BY_TWO = Layout(sockets=2, gib=2).topology()
TWO_BY_TWO_SMT = Layout(sockets=2, threads=2, numbering="adjacent", gib=2).topology()
TWO_SOCKETS = replace(
    Layout(sockets=2, cores=64, threads=2, gib=512).topology(),
    devices=(Device("eth0", "nic", 0), Device("eth1", "nic", 1), Device("0000:03:00.0", "gpu", None)),
)
FOUR_NODES = Layout(sockets=4, cores=16, threads=2, gib=192).topology()
EIGHT_NODES = replace(
    Layout(sockets=8, cores=8, threads=2, gib=96).topology(),
    devices=tuple(Device(f"mlx{n}", "nic", n) for n in range(8)),
)
SUB_NUMA = Layout(sockets=2, nodes=4, cores=8, threads=2, numbering="adjacent", gib=64).topology()  # SNC-4
EPYC = Layout(sockets=2, nodes=1, caches=8, cores=8, threads=2, gib=512).topology()  # NPS1, a CCX of 8 cores
EPYC_NPS4 = Layout(sockets=2, nodes=4, caches=2, cores=8, threads=2, gib=128).topology()
EPYC_ROME = Layout(sockets=2, nodes=4, caches=4, cores=4, threads=2, gib=64).topology()  # a CCX of 4 cores
MANY_NODES = Layout(sockets=2, nodes=8, cores=4, threads=1, gib=32).topology()
CPU_LESS = with_cpuless_node(Layout(sockets=2, cores=8, threads=2).topology())
MEMORY_LESS = with_memory(Layout(sockets=2, nodes=2, cores=4, threads=2).topology(), 1, 0)
OFFLINE = without(Layout(sockets=2, cores=8, threads=2).topology(), 3, 17, 20, 21)
ISOLATED = replace(Layout(sockets=2, cores=8, threads=2).topology(), isolated=(6, 7, 22, 23))
UNKNOWN = unknown(Layout(cores=8).topology())

MACHINES: dict[str, Topology] = {
    "1 node, 2 CPUs": TWO_CPUS,
    "2 nodes of 2 CPUs": TWO_BY_TWO,
    "2 nodes of 2 cores, siblings n, n+1": TWO_BY_TWO_SMT,
    "2 sockets of 64 cores SMT": TWO_SOCKETS,
    "4 sockets of 16 cores SMT": FOUR_NODES,
    "8 sockets of 8 cores SMT": EIGHT_NODES,
    "2 sockets in 4 sub-NUMA clusters": SUB_NUMA,
    "2 sockets of 8 L3": EPYC,
    "2 sockets of 4 nodes of 2 L3": EPYC_NPS4,
    "2 sockets of 4 nodes of 4 L3": EPYC_ROME,
    "2 sockets of 8 nodes": MANY_NODES,
    "a CPU-less node": CPU_LESS,
    "a memory-less node": MEMORY_LESS,
    "offline CPUs": OFFLINE,
    "isolated CPUs": ISOLATED,
    "only what /proc tells": UNKNOWN,
    **{f"captured: {name}": captured.topology(name) for name in captured.NAMES},
}


def free_bytes(topology: Topology) -> dict[int, int]:
    """All memory of every node, free."""
    return {node.id: node.memory_bytes for node in topology.nodes if node.memory_bytes is not None}
