"""The capacity formula on each NUMA node, scaled so that the nodes never add up to more than the whole."""

from __future__ import annotations

import math

from msgspec import Struct

from nodeagent.core.formula import Inputs, offline_available, online_peak
from nodeagent.core.histogram import CPU, MEMORY
from nodeagent.model.capacity import Amount, Term, Zone
from nodeagent.model.decision import Histogram, Offer
from nodeagent.model.topology import NumaNode

SHARED = "share of the node's, by use"
LEFT_OVER = "use of the NUMA node minus Batch's and the system's share"
BY_CPUS = f"use of online pods whose CPUs are all here; of the others {LEFT_OVER}"
BY_PAGES = f"working sets of online pods by memory.numa_stat; where that is not known, {LEFT_OVER}"


class _Row(Struct, frozen=True, gc=False):
    total: float
    ceiling_ratio: float
    reserved: float
    system: float
    online: float
    peak: float
    source: str  # of `online`
    age_s: float  # of `online` and `system`
    most: float = math.inf  # what Batch can get at
    shrink: Term | None = None  # what interference leaves of it


def split(inputs: Inputs, cpu: Amount, memory: Amount, offer: Offer, step_s: float) -> tuple[Zone, ...]:
    """One Zone per NUMA node; `cpu` and `memory` are the node's amounts, already damped."""
    nodes = inputs.view.snapshot.topology.nodes
    rise = inputs.policy.raise_ratio_per_s * step_s
    cores = _fitted({n.id: _cpu(n, inputs) for n in nodes}, cpu, offer.zone_cpu_cores, rise)
    sizes = _fitted({n.id: _memory(n, inputs) for n in nodes}, memory, offer.zone_memory_bytes, rise)
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


def _cpu(node: NumaNode, inputs: Inputs) -> _Row:
    view, usage, policy = inputs.view, inputs.usage, inputs.policy
    total, all_cores = float(len(node.cpus)), max(1, view.snapshot.topology.cores)
    steal = (view.steal_cores or 0.0) * total / all_cores
    online = usage.zone_online_cores.get(node.id, 0.0)
    seen = inputs.history.zone_cpu.get(node.id, Histogram())
    return _Row(
        max(0.0, total - steal),
        policy.cpu_ceiling_ratio,
        policy.reserved_cpu_cores * total / all_cores,
        usage.zone_system_cores.get(node.id, 0.0),
        online,
        online_peak(seen, online, policy.cpu_peak_percentile, CPU, policy)[0],
        BY_CPUS,
        usage.cpu_age_s,
        math.inf if inputs.reach is None else inputs.reach.zone_cores.get(node.id, 0.0),
        inputs.shrink,
    )


def _memory(node: NumaNode, inputs: Inputs) -> _Row:
    view, usage, policy = inputs.view, inputs.usage, inputs.policy
    now = {m.numa_node: m.total_bytes for m in view.snapshot.node.numa_memory}
    total = float(now.get(node.id, node.memory_bytes or 0))  # memory comes and goes without the topology
    whole = max(1.0, usage.memory_total_bytes or 1.0)
    watermark = (view.snapshot.node.watermark_bytes or 0) * total / whole
    online = usage.zone_online_bytes.get(node.id, 0.0)
    seen = inputs.history.zone_memory.get(node.id, Histogram())
    return _Row(
        max(0.0, total - watermark),
        policy.memory_ceiling_ratio,
        policy.reserved_memory_bytes * total / whole,
        usage.zone_system_bytes.get(node.id, 0.0),
        online,
        online_peak(seen, online, policy.memory_peak_percentile, MEMORY, policy)[0],
        BY_PAGES,
        usage.memory_age_s,
    )


def _fitted(
    rows: dict[int, _Row], node: Amount, last: dict[int, float], rise_ratio: float
) -> dict[int, Amount]:
    """Computed and available per NUMA node, each scaled down to the node's where the sum is larger."""
    computed = _scaled({n: _formula(i) for n, i in rows.items()}, node.computed)
    damped = {n: min(v, last.get(n, 0.0) + rise_ratio * rows[n].total) for n, v in computed.items()}
    available = _scaled(damped, node.available)
    return {n: Amount(available[n], computed[n], _terms(rows[n])) for n in rows}


def _formula(i: _Row) -> float:
    value = offline_available(i.total, i.ceiling_ratio, i.reserved, i.system, i.peak)
    value = min(value, i.most * i.ceiling_ratio) if i.most < i.total else value
    return value if i.shrink is None else value * i.shrink.value


def _scaled(values: dict[int, float], limit: float) -> dict[int, float]:
    total = sum(values.values())
    if total <= limit:
        return values
    return {n: v * limit / total for n, v in values.items()}


def _terms(i: _Row) -> tuple[Term, ...]:
    reach = () if math.isinf(i.most) else (Term("reach", i.most, "CPUs that no pod owns", 0.0),)
    return (
        Term("total", i.total, "online CPUs or MemTotal, less steal or watermark", 0.0),
        Term("ceiling_ratio", i.ceiling_ratio, "policy", 0.0),
        Term("reserved", i.reserved, SHARED, 0.0),
        Term("system", i.system, SHARED, i.age_s),
        Term("online_now", i.online, i.source, i.age_s),
        Term("online_peak", i.peak, "as the node's", 0.0),
        *reach,
        *(() if i.shrink is None else (i.shrink,)),
    )
