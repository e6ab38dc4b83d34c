"""Where CPUs are in use: online and system cores of each NUMA node.

The kernel does not tell on which node a cgroup's CPU time was used. A pod whose CPUs are all on one node used
it there. Of what is left of each node's use, Batch's and the system's shares follow what is left on each, and
the rest counts as online.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from nodeagent.core.rates import View
from nodeagent.model.cpuset import CpuSet, within
from nodeagent.model.decision import KnownUse
from nodeagent.model.plan import Kind


def zone_cores(
    view: View, known: Mapping[str, KnownUse], batch: float, system: float
) -> tuple[dict[int, float], dict[int, float]]:
    """Cores by NUMA node: (online, system). `batch` and `system` are the use of both on the whole machine."""
    here, batch_here = _at_home(view, known)
    used = view.zone_busy_cores
    left = {n: max(0.0, cores - here.get(n, 0.0) - batch_here.get(n, 0.0)) for n, cores in used.items()}
    total = sum(left.values())
    others = max(0.0, batch - sum(batch_here.values())) + system
    online_of, system_of = {}, {}
    for node, cores in left.items():
        share = cores / total if total > 0.0 else 0.0
        system_of[node] = system * share
        online_of[node] = here.get(node, 0.0) + max(0.0, cores - others * share)
    return online_of, system_of


def _at_home(view: View, known: Mapping[str, KnownUse]) -> tuple[dict[int, float], dict[int, float]]:
    """Cores by NUMA node of the online and of the Batch pods that cannot have used another one."""
    online: dict[int, float] = {}
    batch: dict[int, float] = {}
    sets = {r.knob.target: r.effective for r in view.snapshot.knobs if r.knob.kind is Kind.CPUS}
    nodes = [(node.id, _text(node.cpus)) for node in view.snapshot.topology.nodes] if sets else []
    for spec in (p.pod.spec for p in view.pods if p.pod.spec.cgroup in sets):
        cpus, cores = sets[spec.cgroup], known[spec.uid].cpu_cores
        home = next((node for node, whole in nodes if whole and within(cpus, whole)), None) if cpus else None
        if home is not None and cores is not None:
            sums = online if spec.online else batch
            sums[home] = sums.get(home, 0.0) + cores
    return online, batch


@lru_cache(maxsize=256)
def _text(cpus: tuple[int, ...]) -> str:
    return str(CpuSet(cpus))
