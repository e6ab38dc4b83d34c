"""The capacity formula on each NUMA node, scaled so that the nodes never add up to more than the whole."""

from __future__ import annotations

from msgspec import Struct

from nodeagent.core.formula import offline_available, online_peak
from nodeagent.core.histogram import CPU_FIRST_CORES, MEMORY_FIRST_BYTES
from nodeagent.core.rates import View
from nodeagent.core.usage import Usage
from nodeagent.model.capacity import Amount, Term, Zone
from nodeagent.model.decision import Histogram, Offer, OnlineHistory
from nodeagent.model.policy import CapacityPolicy
from nodeagent.model.topology import NumaNode

SHARED = "share of the node's, by use"


class _Inputs(Struct, frozen=True, gc=False):
    total: float
    ceiling_ratio: float
    reserved: float
    system: float
    online: float
    peak: float


def split(
    view: View,
    usage: Usage,
    policy: CapacityPolicy,
    history: OnlineHistory,
    cpu: Amount,
    memory: Amount,
    offer: Offer,
    step_s: float,
) -> tuple[Zone, ...]:
    """One Zone per NUMA node; `cpu` and `memory` are the node's amounts, already damped."""
    nodes = view.snapshot.topology.nodes
    cpus = {n.id: _cpu(n, view, usage, policy, history) for n in nodes}
    memories = {n.id: _memory(n, view, usage, policy, history) for n in nodes}
    rise = policy.raise_ratio_per_s * step_s
    cores = _fitted(cpus, cpu, offer.zone_cpu_cores, rise)
    sizes = _fitted(memories, memory, offer.zone_memory_bytes, rise)
    return tuple(Zone(n.id, cores[n.id], sizes[n.id]) for n in nodes)


def remember(at: float, cpu: Amount, memory: Amount, zones: tuple[Zone, ...]) -> Offer:
    """What is offered now, for the next tick's slow-up."""
    return Offer(
        at,
        cpu.available,
        memory.available,
        {z.numa_node: z.cpu.available for z in zones},
        {z.numa_node: z.memory.available for z in zones},
    )


def _cpu(node: NumaNode, view: View, usage: Usage, policy: CapacityPolicy, history: OnlineHistory) -> _Inputs:
    total, all_cores = float(len(node.cpus)), max(1, view.snapshot.topology.cores)
    steal = (view.steal_cores or 0.0) * total / all_cores
    online = usage.zone_online_cores.get(node.id, 0.0)
    seen = history.zone_cpu.get(node.id, Histogram())
    return _Inputs(
        max(0.0, total - steal),
        policy.cpu_ceiling_ratio,
        policy.reserved_cpu_cores * total / all_cores,
        usage.zone_system_cores.get(node.id, 0.0),
        online,
        online_peak(seen, online, policy.cpu_peak_percentile, CPU_FIRST_CORES, policy)[0],
    )


def _memory(
    node: NumaNode, view: View, usage: Usage, policy: CapacityPolicy, history: OnlineHistory
) -> _Inputs:
    total, whole = float(node.memory_bytes or 0), max(1.0, usage.memory_total_bytes or 1.0)
    watermark = (view.snapshot.node.watermark_bytes or 0) * total / whole
    online = usage.zone_online_bytes.get(node.id, 0.0)
    seen = history.zone_memory.get(node.id, Histogram())
    return _Inputs(
        max(0.0, total - watermark),
        policy.memory_ceiling_ratio,
        policy.reserved_memory_bytes * total / whole,
        usage.zone_system_bytes.get(node.id, 0.0),
        online,
        online_peak(seen, online, policy.memory_peak_percentile, MEMORY_FIRST_BYTES, policy)[0],
    )


def _fitted(
    inputs: dict[int, _Inputs], node: Amount, last: dict[int, float], rise_ratio: float
) -> dict[int, Amount]:
    """Computed and available per NUMA node, each scaled down to the node's where the sum is larger."""
    computed = _scaled({n: _formula(i) for n, i in inputs.items()}, node.computed)
    damped = {n: min(v, last.get(n, 0.0) + rise_ratio * inputs[n].total) for n, v in computed.items()}
    available = _scaled(damped, node.available)
    return {n: Amount(available[n], computed[n], _terms(inputs[n])) for n in inputs}


def _formula(i: _Inputs) -> float:
    return offline_available(i.total, i.ceiling_ratio, i.reserved, i.system, i.peak)


def _scaled(values: dict[int, float], limit: float) -> dict[int, float]:
    total = sum(values.values())
    if total <= limit:
        return values
    return {n: v * limit / total for n, v in values.items()}


def _terms(i: _Inputs) -> tuple[Term, ...]:
    return (
        Term("total", i.total, "online CPUs or MemTotal, less steal or watermark", 0.0),
        Term("ceiling_ratio", i.ceiling_ratio, "policy", 0.0),
        Term("reserved", i.reserved, SHARED, 0.0),
        Term("system", i.system, SHARED, 0.0),
        Term("online_now", i.online, "use of the NUMA node minus Batch's and the system's share", 0.0),
        Term("online_peak", i.peak, "as the node's", 0.0),
    )
