"""Which CPUs Batch can get at: where pods are placed, those that nobody owns.

What a pod leaves idle of CPUs of its own is lent to nobody, so it must not be offered either.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from nodeagent.core import foreign
from nodeagent.core.rates import View
from nodeagent.core.usage import cpu_or_request
from nodeagent.model.cpuset import CpuSet, union
from nodeagent.model.decision import KnownUse, Memory


class Reach(Struct, frozen=True, gc=False):
    """CPUs in all and by NUMA node, and the use in cores of the online pods that own none."""

    cores: float
    zone_cores: dict[int, float]
    online_cores: float


def reach(view: View, known: Mapping[str, KnownUse], memory: Memory) -> Reach | None:
    """By the placement until now; None where pods are not placed, so that Batch may run anywhere.

    `known` is what `usage.remember` gave for this tick.
    """
    placed = memory.placement
    if placed is None:
        return None
    pools = CpuSet.parse(union(placed.shared, placed.mid))
    zones = {node.id: float(len(pools.intersection(node.cpus))) for node in view.snapshot.topology.nodes}
    owners = {each.uid for each in placed.bound} | {o.uid for o in foreign.owned(memory.foreign) if o.cpus}
    sharing = (p for p in view.pods if p.pod.spec.online and p.pod.spec.uid not in owners)
    used = (cpu_or_request(p, known[p.pod.spec.uid], view.snapshot.at)[0] for p in sharing)
    return Reach(sum(zones.values()), zones, sum(cores or 0.0 for cores in used))
