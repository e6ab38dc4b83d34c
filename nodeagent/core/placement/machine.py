"""The machine as sets: which cores can be given away whole, and what belongs together.

Invariant: a core is whole when every online sibling is in the agent's hands. Only whole cores are given to
bound pods and to Batch, so neither ever shares a core with CPUs of others.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from nodeagent.core.placement.bits import Bits, bits, members, union
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.topology import Cpu, NumaNode, Topology

_NEAR, _FAR = 10, 20  # what firmware without a distance table means (ACPI SLIT defaults)


class Site(NamedTuple):
    """One NUMA node: its `whole` cores, all its `usable` CPUs, its whole cores by L3 cache.

    `store` is the node that its memory comes from: itself, or the nearest with memory; None without any.
    `foreign`: somebody else owns CPUs here, beyond what the kernel isolates.
    """

    id: int
    whole: Bits
    usable: Bits
    caches: tuple[Bits, ...]
    widest: int  # CPUs behind the largest L3
    sockets: frozenset[int | None]
    store: int | None
    foreign: bool
    distances: Mapping[int, int]


class Machine(NamedTuple):
    """`core_of` maps each CPU of a whole core to its core; `firsts` are the lowest CPU of each.

    `memory` are the NUMA nodes that have any; `devices` name the nodes of NICs and GPUs.
    """

    usable: Bits
    whole: Bits
    firsts: Bits
    core_of: Mapping[int, Bits]
    sites: tuple[Site, ...]
    memory: Bits
    devices: Mapping[str, int]
    thinnest: int  # CPUs of the core that has fewest

    def closed(self, cpus: Bits) -> Bits:
        """All CPUs of the whole cores that these CPUs are part of."""
        rest, found = cpus & self.whole, 0
        while rest:
            core = self.core_of[rest.bit_length() - 1]
            found |= core
            rest &= ~core
        return found


def survey(topology: Topology, hands_off: CpuSet) -> Machine:
    """The machine without `hands_off`; offline CPUs, and CPUs of no NUMA node, are in no core."""
    online = bits(cpu.id for cpu in topology.cpus)
    usable = online & ~bits(hands_off)
    core_of = _whole_cores(topology, online, usable)
    firsts = union(core & -core for core in core_of.values())
    memory = bits(node.id for node in topology.nodes if node.memory_bytes != 0)
    foreign = online & ~usable & ~bits(topology.isolated)
    here: dict[int | None, list[Cpu]] = {}
    for cpu in topology.cpus:
        here.setdefault(cpu.numa_node, []).append(cpu)

    def site(node: NumaNode) -> Site:
        cpus = here.get(node.id, [])
        own = bits(cpu.id for cpu in cpus)
        caches = _by_cache(cpus, firsts, core_of)
        distances = _distances(node, topology)
        return Site(
            id=node.id,
            whole=union(caches),
            usable=own & usable,
            caches=caches,
            widest=max((cache.bit_count() for cache in caches), default=0),
            sockets=frozenset(cpu.socket for cpu in cpus),
            store=min(members(memory), key=partial(_nearest, node.id, distances), default=None),
            foreign=bool(own & foreign),
            distances=distances,
        )

    sites = tuple(site(node) for node in topology.nodes)
    devices = {device.name: device.numa_node for device in topology.devices if device.numa_node is not None}
    thinnest = min((core.bit_count() for core in core_of.values()), default=1)
    return Machine(usable, bits(core_of), firsts, core_of, sites, memory, devices, thinnest)


def _whole_cores(topology: Topology, online: Bits, usable: Bits) -> dict[int, Bits]:
    nodes = {node.id for node in topology.nodes}
    core_of: dict[int, Bits] = {}
    for cpu in topology.cpus:
        if cpu.id not in core_of and cpu.numa_node in nodes:
            core = (bits(cpu.siblings) & online) | 1 << cpu.id
            if not core & ~usable:
                core_of.update(dict.fromkeys(members(core), core))
    return core_of


def _by_cache(cpus: list[Cpu], firsts: Bits, core_of: Mapping[int, Bits]) -> tuple[Bits, ...]:
    """The whole cores of one NUMA node by L3; a core is where its lowest CPU is."""
    caches: dict[int | None, Bits] = {}
    for cpu in cpus:
        if firsts >> cpu.id & 1:
            caches[cpu.l3] = caches.get(cpu.l3, 0) | core_of[cpu.id]
    return tuple(caches.values())


def _distances(node: NumaNode, topology: Topology) -> dict[int, int]:
    """To each node by id; the kernel lists them in the order of the nodes."""
    told = dict(zip((other.id for other in topology.nodes), node.distances, strict=False))
    return {other.id: _FAR for other in topology.nodes} | {node.id: _NEAR} | told


def _nearest(node: int, distances: Mapping[int, int], other: int) -> tuple[bool, int, int]:
    return (other != node, distances[other], other)
