"""OfflineAvailable = max(0, total*ceiling - max(reserved, system) - online peak), explained term by term.

What Batch itself uses is never part of the online terms, so it is not subtracted twice. `system` is all
use that belongs to no known pod. Steal time is not available. The value falls in one step and rises
slowly; an input that is unknown for longer than `stale_after_s` withdraws the whole offer. While online work
is confirmed to be disturbed the CPU offer is shrunk in the same tick; it is never more than without.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from nodeagent.core import directives, zones
from nodeagent.core.directives import NO_ORDERS, Orders
from nodeagent.core.formula import SHRINK, Inputs, offline_available, online_peak
from nodeagent.core.histogram import CPU, MEMORY, Scale, observe
from nodeagent.core.rates import View
from nodeagent.core.reach import Reach
from nodeagent.core.usage import SYSTEM_SPAN_S, Usage
from nodeagent.model.capacity import Amount, Capacity, Lent, Term
from nodeagent.model.decision import BatchLimit, Histogram, Memory, Offer, OnlineHistory
from nodeagent.model.interference import Interference, State
from nodeagent.model.interference_policy import InterferencePolicy
from nodeagent.model.policy import CapacityPolicy

RESIZED = 1.5  # a state directory that came from a machine so much larger or smaller tells nothing here

NAMED = 3  # victims in a reason; the rest is counted


class Assessed(Struct, frozen=True, gc=False):
    """The capacity of this tick, and the memory that it leaves."""

    capacity: Capacity
    history: OnlineHistory
    offer: Offer


class Bounds(Struct, frozen=True, gc=False):
    """What bounds the offer beside the formula: Batch's limit, the CPUs that it may have (None: all), orders.

    While Batch is held to less for the sake of LS work no more than that is offered. `shrink` is the share of
    the CPU offer that confirmed interference leaves, None while there is none.
    """

    batch: BatchLimit
    reach: Reach | None = None
    orders: Orders = NO_ORDERS
    shrink: Term | None = None


def shrink(found: Interference, policy: InterferencePolicy) -> Term | None:
    """What confirmed interference leaves of the CPU offer, None while nobody is confirmed to be disturbed."""
    hurt = [e.victim_name for e in found.episodes if e.cleared_unix is None and e.state is State.CONFIRMED]
    if not hurt:
        return None
    names = ", ".join(hurt[:NAMED]) + (f" +{len(hurt) - NAMED}" if len(hurt) > NAMED else "")
    source = f"policy: interference.offer_ratio, while {names} is disturbed"
    return Term(SHRINK, min(1.0, policy.offer_ratio), source, 0.0)


def assess(
    view: View,
    usage: Usage,
    policy: CapacityPolicy,
    memory: Memory,
    bounds: Bounds,
) -> Assessed:
    """Capacity of the node and of each NUMA node in this tick, within `bounds`.

    `policy` is the one that the orders of `bounds` leave.
    """
    orders = bounds.orders
    history = _learn(view, usage, policy, memory.online)
    withdrawn = _withdrawn(usage, policy) or orders.withdrawn
    remembered = directives.remembered(orders, history)
    inputs = Inputs(view, usage, policy, remembered, bounds.reach, bounds.shrink)
    offer = memory.offer
    step_s = growth_s(view, usage, policy, offer)
    known = 0.0 if withdrawn else math.inf
    cpu, size, calm_cores = _offered(inputs, bounds, offer, known, policy.raise_ratio_per_s * step_s)
    by_zone = zones.split(inputs, cpu, size, offer, step_s)
    snapshot = view.snapshot
    capacity = Capacity(
        seq=snapshot.seq,
        boot_id=snapshot.boot_id,
        observed_unix=snapshot.unix,
        valid_until_unix=snapshot.unix + policy.stale_after_s,
        cpu=cpu,
        memory=size,
        zones=by_zone,
        confidence=_confidence(usage, policy, history, withdrawn),
        withdrawn=withdrawn,
        lent=_integrated(memory.lent, usage.batch_cores or 0.0, cpu.available, view.dt_s or 0.0),
    )
    offer = replace(zones.remember(snapshot.at, cpu, size, by_zone), calm_cpu_cores=calm_cores)
    return Assessed(capacity, history, offer)


def _offered(
    inputs: Inputs, bounds: Bounds, last: Offer, known: float, rise: float
) -> tuple[Amount, Amount, float]:
    """CPU, memory, and the CPU that would be offered were nobody disturbed; at most `known`."""
    calm = _pressed(_cpu(inputs), bounds.batch)
    cpu, size = directives.held(bounds.orders, _shrunk(calm, bounds.shrink), _memory(inputs))
    calm, _ = directives.held(bounds.orders, calm, size)
    calm_cores = _damped(calm, known, last.calm_cpu_cores, rise * _total(cpu)).available
    most = known if bounds.shrink is None else min(known, calm_cores * bounds.shrink.value)
    cpu = _damped(cpu, most, last.cpu_cores, rise * _total(cpu))
    return cpu, _damped(size, known, last.memory_bytes, rise * _total(size)), calm_cores


def growth_s(view: View, usage: Usage, policy: CapacityPolicy, offer: Offer) -> float:
    """The time for which the offer may have grown; 0 while not everything is known, and at the start."""
    sure = usage.sure and not view.blind
    step_s = view.snapshot.at - offer.at if sure and offer.at is not None else 0.0
    return min(step_s, policy.stale_after_s)


def _integrated(lent: Lent, used_cores: float, offered_cores: float, dt_s: float) -> Lent:
    return Lent(lent.used_core_s + used_cores * dt_s, lent.offered_core_s + offered_cores * dt_s)


def cpu_ceiling(
    view: View,
    usage: Usage,
    policy: CapacityPolicy,
    online_cores: float | None,
    reach: Reach | None = None,
) -> float | None:
    """The same formula for enforcement, with what online work uses now; None while an input is unknown.

    Where a pod's use is never told it is in the system's, and must not vanish below what is reserved.
    """
    if usage.system_cores is None or online_cores is None or view.steal_cores is None:
        return None
    if usage.online_cores is None:
        online_cores += min(policy.reserved_cpu_cores, usage.system_cores)
    total = max(0.0, view.snapshot.topology.cores - view.steal_cores)
    ratio, reserved, system = policy.cpu_ceiling_ratio, policy.reserved_cpu_cores, usage.system_cores
    value = offline_available(total, ratio, reserved, system, online_cores)
    if reach is None:
        return value
    elsewhere = max(0.0, (usage.told_cores or 0.0) - reach.online_cores)
    there = max(reach.online_cores, online_cores - elsewhere)
    return min(value, offline_available(min(total, reach.cores), ratio, reserved, system, there))


def _learn(view: View, usage: Usage, policy: CapacityPolicy, history: OnlineHistory) -> OnlineHistory:
    """Add this tick's online use, if it is fresh, to the histograms; another machine's begin anew."""
    cores = view.snapshot.topology.cores
    if history.cores and not cores / RESIZED <= history.cores <= cores * RESIZED:
        history = OnlineHistory()
    if view.dt_s is None:
        return history
    seconds, unix = min(view.dt_s, policy.stale_after_s), view.snapshot.unix

    def add(histogram: Histogram, value: float, scale: Scale) -> Histogram:
        times = {"half_life_s": policy.half_life_s, "window_s": policy.window_s}
        return observe(histogram, unix, value, scale, seconds=seconds, **times)

    cpu, memory = history.cpu, history.memory
    zone_cpu, zone_memory = dict(history.zone_cpu), dict(history.zone_memory)
    if usage.online_cores is not None and usage.cpu_age_s < SYSTEM_SPAN_S:
        cpu = add(cpu, usage.online_cores, CPU)
        for node, used in usage.zone_online_cores.items():
            zone_cpu[node] = add(zone_cpu.get(node, Histogram()), used, CPU)
    if usage.online_bytes is not None and usage.memory_age_s == 0.0:
        memory = add(memory, usage.online_bytes, MEMORY)
        for node, size in usage.zone_online_bytes.items():
            zone_memory[node] = add(zone_memory.get(node, Histogram()), size, MEMORY)
    return OnlineHistory(cpu, memory, zone_cpu, zone_memory, cores)


def _withdrawn(usage: Usage, policy: CapacityPolicy) -> str:
    for name, value, age_s in (
        ("online CPU use", usage.online_cores, usage.cpu_age_s),
        ("system CPU use", usage.system_cores, usage.cpu_age_s),
        ("online memory use", usage.online_bytes, usage.memory_age_s),
        ("system memory use", usage.system_bytes, usage.memory_age_s),
        ("node memory", usage.memory_total_bytes, usage.memory_age_s),
    ):
        if value is None:
            return f"{name} is not known"
        if age_s > policy.stale_after_s:
            return f"{name} is {age_s:.0f} s old"
    return ""


def _cpu(inputs: Inputs) -> Amount:
    view, usage, policy = inputs.view, inputs.usage, inputs.policy
    total, steal = float(view.snapshot.topology.cores), view.steal_cores or 0.0
    online, system = usage.online_cores or 0.0, usage.system_cores or 0.0
    top, source = online_peak(inputs.history.cpu, online, policy.cpu_peak_percentile, CPU, policy)
    terms = (
        Term("total", total, "online CPUs in /sys/devices/system/cpu", 0.0),
        Term("steal", steal, "/proc/stat", 0.0),
        Term("ceiling_ratio", policy.cpu_ceiling_ratio, "policy", 0.0),
        Term("reserved", policy.reserved_cpu_cores, "policy", 0.0),
        Term("system", system, "/proc/stat minus all pods", usage.cpu_age_s),
        Term("online_now", online, "sum over LS and MID pods", usage.cpu_age_s),
        Term("online_peak", top, source, 0.0),
    )
    value = offline_available(
        max(0.0, total - steal), policy.cpu_ceiling_ratio, policy.reserved_cpu_cores, system, top
    )
    return _within_reach(Amount(0.0, value, terms), inputs, system, top)


def _within_reach(cpu: Amount, inputs: Inputs, system: float, top: float) -> Amount:
    """No more than fits on the CPUs that nobody owns, which online pods with CPUs of their own do not use."""
    reach, policy = inputs.reach, inputs.policy
    if reach is None:
        return cpu
    owned = max(0.0, _total(cpu) - reach.cores)
    online = max(reach.online_cores, top - owned)
    value = offline_available(
        reach.cores, policy.cpu_ceiling_ratio, policy.reserved_cpu_cores, system, online
    )
    terms = (
        Term("reach", reach.cores, "CPUs that no pod owns", 0.0),
        Term("reach_online", online, "of online_peak, on these CPUs", inputs.usage.cpu_age_s),
    )
    return Amount(0.0, min(cpu.computed, value), (*cpu.terms, *terms))


def _pressed(cpu: Amount, batch: BatchLimit) -> Amount:
    cores = batch.cores
    if cores is None or batch.hurt_at is None or cores >= cpu.computed:
        return cpu
    return Amount(0.0, cores, (*cpu.terms, Term("batch_limit", cores, "cut: LS work waits for CPU", 0.0)))


def _shrunk(cpu: Amount, by: Term | None) -> Amount:
    return cpu if by is None else Amount(0.0, cpu.computed * by.value, (*cpu.terms, by))


def _memory(inputs: Inputs) -> Amount:
    view, usage, policy = inputs.view, inputs.usage, inputs.policy
    total, watermark = usage.memory_total_bytes or 0.0, float(view.snapshot.node.watermark_bytes or 0)
    online, system = usage.online_bytes or 0.0, usage.system_bytes or 0.0
    top, source = online_peak(inputs.history.memory, online, policy.memory_peak_percentile, MEMORY, policy)
    terms = (
        Term("total", total, "/proc/meminfo MemTotal", 0.0),
        Term("watermark", watermark, "high watermarks in /proc/zoneinfo", 0.0),
        Term("ceiling_ratio", policy.memory_ceiling_ratio, "policy", 0.0),
        Term("reserved", float(policy.reserved_memory_bytes), "policy", 0.0),
        Term("system", system, "MemTotal - MemAvailable minus all pods", usage.memory_age_s),
        Term("online_now", online, "working sets of LS and MID pods", usage.memory_age_s),
        Term("online_peak", top, source, 0.0),
    )
    value = offline_available(
        max(0.0, total - watermark), policy.memory_ceiling_ratio, policy.reserved_memory_bytes, system, top
    )
    return Amount(0.0, value, terms)


def _damped(amount: Amount, most: float, last: float, rise: float) -> Amount:
    """Fast down, slow up."""
    return Amount(min(amount.computed, most, last + rise), amount.computed, amount.terms)


def _total(amount: Amount) -> float:
    return next((t.value for t in amount.terms if t.name == "total"), 0.0)


def _confidence(usage: Usage, policy: CapacityPolicy, history: OnlineHistory, withdrawn: str) -> float:
    """0 when withdrawn; else 0.5 for a cold history rising to 1 for a warm one, less for old inputs."""
    if withdrawn:
        return 0.0
    warmth = 1.0 if policy.warm_after_s == 0.0 else min(1.0, history.cpu.seconds / policy.warm_after_s)
    freshness = _freshness((usage.cpu_age_s, usage.memory_age_s), policy.stale_after_s)
    return round((0.5 + 0.5 * warmth) * freshness, 3)


def _freshness(ages_s: Iterable[float], stale_after_s: float) -> float:
    return max(0.0, 1.0 - max(ages_s) / stale_after_s)
