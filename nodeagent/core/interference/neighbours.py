"""Who shares the contended resource with a victim, and by which quantities its use of it is told.

CPU: a CPU in common, among those that were busy while the victim waited. LLC: an L3 cache in common, where
that is not told a socket or a NUMA node. MEMORY: a NUMA node with memory, or the cgroup around. IO: a device.
NET: the node's NICs, so everybody. APP: nothing tells which, so CPUs or caches.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from nodeagent.core.interference.history import (
    BANDWIDTH,
    CORES,
    FAULTS,
    IO,
    NET,
    OPERATIONS,
    RESIDENT,
    SYSTEM,
)
from nodeagent.core.rates import View
from nodeagent.model.pod import PodSpec
from nodeagent.model.snapshot import Pod
from nodeagent.model.symptom import Channel
from nodeagent.model.topology import Topology

SYSTEM_NAME = "system"  # daemons and kernel threads: what no pod accounts for
LEAST_PAGES_BYTES = 16 << 20  # on a NUMA node, to count as using it
# Who never used as much is no suspect, who did not rise by as much is not named. By a quantity's first word.
LEAST: Mapping[str, float] = {
    CORES: 0.05,
    RESIDENT: float(32 << 20),
    FAULTS: 20.0,
    BANDWIDTH: 50e6,
    NET: 1e6,
    IO: 1e6,
    OPERATIONS: 20.0,
}
_QUANTITIES = {
    Channel.CPU: (CORES,),
    Channel.LLC: (BANDWIDTH, CORES),
    Channel.MEMORY: (FAULTS, RESIDENT),
    Channel.NET: (NET,),
    Channel.APP: (CORES, BANDWIDTH),
}


class Neighbour(Struct, frozen=True, gc=False):
    """Somebody who shares the resource; `uid` is "" for the system."""

    uid: str
    name: str
    cgroup: str
    online: bool


def least(quantity: str) -> float:
    """Less than this of a quantity is nothing."""
    return LEAST[quantity.partition(" ")[0]]


def quantities(channel: Channel, victim: Pod, view: View) -> tuple[str, ...]:
    """Names of the uses in `Moment.uses` that tell who strains the channel."""
    if channel is not Channel.IO:
        return _QUANTITIES[channel]
    devices = _devices(victim) or sorted({d for p in view.pods for d in _devices(p.pod)})
    return tuple(f"{kind} {device}" for device in devices for kind in (IO, OPERATIONS))


def neighbours(
    channel: Channel,
    victim: Pod,
    view: View,
    cpus_of: Mapping[str, frozenset[int]],
    busy: frozenset[int],
) -> tuple[Neighbour, ...]:
    """All who share what `victim` lacks, by uid. `busy` are CPUs that were, as it waited; none: not known."""
    shares = _Sharing(channel, victim, view.snapshot.topology, cpus_of, busy)
    found = [_neighbour(p.pod.spec) for p in view.pods if shares.with_pod(p.pod)]
    if channel in (Channel.CPU, Channel.LLC, Channel.APP):
        found.append(Neighbour(SYSTEM, SYSTEM_NAME, "", online=True))
    return tuple(sorted(found, key=lambda each: each.uid))


def _neighbour(spec: PodSpec) -> Neighbour:
    return Neighbour(spec.uid, spec.name, spec.cgroup, spec.online)


class _Sharing:
    """What the victim needs of the contended resource."""

    __slots__ = (
        "_channel",
        "_cpus",
        "_cpus_of",
        "_domains",
        "_every",
        "_homes",
        "_nodes",
        "_scarce",
        "_victim",
    )

    def __init__(
        self,
        channel: Channel,
        victim: Pod,
        topology: Topology,
        cpus_of: Mapping[str, frozenset[int]],
        busy: frozenset[int],
    ) -> None:
        self._channel, self._victim, self._cpus_of = channel, victim, cpus_of
        self._every = frozenset(cpu.id for cpu in topology.cpus)
        self._domains = {cpu.id: _domain(cpu.l3, cpu.socket, cpu.numa_node) for cpu in topology.cpus}
        self._homes = {cpu.id: cpu.numa_node for cpu in topology.cpus}
        self._cpus = self._of(victim)
        self._scarce = self._cpus & busy or self._cpus
        self._nodes = self._memory_nodes(victim)

    def with_pod(self, other: Pod) -> bool:
        if other.spec.uid == self._victim.spec.uid:
            return False
        match self._channel:
            case Channel.CPU:
                return bool(self._scarce & self._of(other))
            case Channel.LLC:
                return self._caches(other)
            case Channel.APP:
                return bool(self._cpus & self._of(other)) or self._caches(other)
            case Channel.MEMORY:
                return bool(self._nodes & self._memory_nodes(other)) or self._around(other)
            case Channel.IO:
                mine, theirs = _devices(self._victim), _devices(other)
                return bool(theirs) and (not mine or not mine.isdisjoint(theirs))
            case Channel.NET:
                return True

    def _of(self, pod: Pod) -> frozenset[int]:
        return self._cpus_of.get(pod.spec.cgroup) or self._every

    def _caches(self, other: Pod) -> bool:
        mine = {self._domains.get(cpu) for cpu in self._cpus}
        return any(self._domains.get(cpu) in mine for cpu in self._of(other))

    def _memory_nodes(self, pod: Pod) -> set[int | None]:
        pages = pod.reading.pages_by_node
        told: set[int | None] = {node for node, used in pages or () if used >= LEAST_PAGES_BYTES}
        return told or {self._homes.get(cpu) for cpu in self._of(pod)}

    def _around(self, other: Pod) -> bool:
        mine, theirs = _parent(self._victim), _parent(other)
        return mine == theirs != ""


def _domain(l3: int | None, socket: int | None, node: int | None) -> tuple[str, int]:
    """What a CPU's last-level cache is, or the next best that is told."""
    if l3 is not None:
        return "l3", l3
    return ("socket", socket) if socket is not None else ("node", node or 0)


def _devices(pod: Pod) -> set[str]:
    used = () if pod.symptoms is None else pod.symptoms.devices or ()
    return {each.device for each in used if each.operations > 0 or each.bytes > 0}


def _parent(pod: Pod) -> str:
    return pod.spec.cgroup.rpartition("/")[0]
