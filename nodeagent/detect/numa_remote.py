"""An online pod whose CPUs are on few NUMA nodes has much of its memory on others: each access pays for it.

Asked of a pod that is bound, and of one whose CPUs all lie on one node; for any other, every node is near.
Pages are those of memory.numa_stat, CPUs those of the cpuset in effect (Linux
Documentation/admin-guide/cgroup-v2.rst, cpuset.cpus.effective). Where a node with CPUs has no memory, the
nearest memory there is counts as its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nodeagent.core.scene import Sight
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.decision import Condition
from nodeagent.model.plan import Kind, KnobReading
from nodeagent.model.pod import PodSpec
from nodeagent.model.policy import NumaPolicy, Policy
from nodeagent.model.topology import Topology
from nodeagent.model.units import format_bytes

NUMA_REMOTE = "numa-remote"


def detect(sight: Sight, policy: Policy) -> Iterator[Condition]:
    """Yield one condition per online pod with too much memory elsewhere; level = share of its pages."""
    view, topology = sight.view, sight.view.snapshot.topology
    if len(topology.nodes) < 2:
        return
    cpus_of = {r.knob.target: _cpus(r) for r in view.snapshot.knobs if r.knob.kind is Kind.CPUS}
    homes_of = {cpus: _homes(topology, cpus) for cpus in {*cpus_of.values()}}
    memory_of = _nearest_memory(topology)
    for pod in (p.pod for p in view.pods if p.pod.spec.online):
        homes, pages = homes_of.get(cpus_of.get(pod.spec.cgroup, "")), pod.reading.pages_by_node
        if homes and pages and (pod.spec.numa_bind or len(homes) == 1):
            near = frozenset(memory_of[home] for home in homes if home in memory_of)
            yield from _remote(pod.spec, pages, near, policy.numa)


def _remote(
    spec: PodSpec, pages: tuple[tuple[int, int], ...], near: frozenset[int], policy: NumaPolicy
) -> Iterator[Condition]:
    away = {node: size for node, size in pages if node not in near and size > 0}
    remote, total = sum(away.values()), sum(size for _, size in pages)
    if near and remote > policy.remote_ratio * total and remote >= policy.remote_min_bytes:
        where = f"on NUMA node {CpuSet(away)}, its CPUs are near {CpuSet(near)}"
        evidence = f"{spec.name} has {remote / total:.0%} of its pages ({format_bytes(remote)}) {where}"
        yield Condition(NUMA_REMOTE, spec.uid, remote / total, evidence)


def _cpus(reading: KnobReading) -> str:
    """The CPUs in effect; none while they cannot be told."""
    found = reading.effective or reading.actual
    return found if isinstance(found, str) else ""


def _homes(topology: Topology, cpus: str) -> frozenset[int]:
    """The NUMA nodes that the CPUs are on."""
    ids = CpuSet.parse(cpus)
    return frozenset(node.id for node in topology.nodes if not ids.isdisjoint(node.cpus))


def _nearest_memory(topology: Topology) -> Mapping[int, int]:
    """For each NUMA node the one whose memory is near: itself, or the nearest if it has none."""
    with_memory = [at for at, node in enumerate(topology.nodes) if node.memory_bytes != 0]
    nearest: dict[int, int] = {}
    for at, node in enumerate(topology.nodes):
        if at in with_memory:
            nearest[node.id] = node.id
        elif with_memory and len(node.distances) == len(topology.nodes):
            distances = node.distances
            nearest[node.id] = topology.nodes[min(with_memory, key=lambda other: distances[other])].id
    return nearest
