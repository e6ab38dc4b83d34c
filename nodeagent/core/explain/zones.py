"""Why each NUMA node's part is what it is: the formula, scaled down where the parts are too much."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from nodeagent.core.explain.ground import DAMPED, Ground, damping
from nodeagent.core.explain.law import Given, Unit, reason
from nodeagent.core.formula import SHRINK, offline_available
from nodeagent.model.capacity import Amount, Term
from nodeagent.model.explanation import Reason

BY = "capacity"
FORMULA = "max(0, total * ceiling_ratio - max(reserved, system) - online_peak)"


class _Part(NamedTuple):
    """One resource of one NUMA node: what it has before it is scaled, and after."""

    name: str
    amount: Amount
    terms: dict[str, float]
    raw: float
    damped: float
    last: float


def reasons(ground: Ground) -> Iterator[Reason]:
    """CPU and memory of each NUMA node, formula and offer."""
    found, offer = ground.tick.decision.capacity, ground.before.offer
    rise = ground.thought.formula.raise_ratio_per_s * ground.grown_s
    cpu = {
        f"zone.{z.numa_node}.cpu": (z.cpu, offer.zone_cpu_cores.get(z.numa_node, 0.0)) for z in found.zones
    }
    memory = {
        f"zone.{z.numa_node}.memory": (z.memory, offer.zone_memory_bytes.get(z.numa_node, 0.0))
        for z in found.zones
    }
    for unit, whole, amounts in ((Unit.CORES, found.cpu, cpu), (Unit.BYTES, found.memory, memory)):
        parts = [_part(name, amount, last, rise) for name, (amount, last) in amounts.items()]
        raw, damped = sum(p.raw for p in parts), sum(p.damped for p in parts)
        for part in parts:
            yield _computed(part, unit, whole.computed, raw)
            yield _available(ground, part, unit, (whole.available, damped))


def _part(name: str, amount: Amount, last: float, rise: float) -> _Part:
    terms = {t.name: t.value for t in amount.terms}
    raw = _raw(terms)
    damped = min(amount.computed, last + rise * terms.get("total", 0.0))
    return _Part(name, amount, terms, raw, damped, last)


def _raw(terms: Mapping[str, float]) -> float:
    total, ceiling_ratio = terms.get("total", 0.0), terms.get("ceiling_ratio", 0.0)
    peak, system = terms.get("online_peak", 0.0), terms.get("system", 0.0)
    value = offline_available(total, ceiling_ratio, terms.get("reserved", 0.0), system, peak)
    value = min(value, terms["reach"] * ceiling_ratio) if terms.get("reach", total) < total else value
    return value * terms.get(SHRINK, 1.0)


def _computed(part: _Part, unit: Unit, node: float, zones: float) -> Reason:
    given = [_given(term, unit) for term in part.amount.terms]
    rule = FORMULA
    if "reach" in part.terms and part.terms["reach"] < part.terms["total"]:
        rule = f"min({rule}, reach * ceiling_ratio)"
    if SHRINK in part.terms:
        rule = f"{rule} * {SHRINK}"
    rule, given = _scaled(rule, given, unit, (node, zones), "computed")
    return reason(f"{part.name}.computed", rule, given, part.amount.computed, unit, by=BY)


def _given(term: Term, unit: Unit) -> Given:
    ratio = term.name.endswith("_ratio")
    return Given(term.name, term.value, term.source, Unit.PLAIN if ratio else unit, fine=ratio)


def _available(ground: Ground, part: _Part, unit: Unit, limit: tuple[float, float]) -> Reason:
    computed = Given("computed", part.amount.computed, f"{part.name}.computed", unit)
    total = Given("total", part.terms.get("total", 0.0), f"{part.name}.computed", unit)
    damped = list(damping(ground, computed, part.last, total))
    rule, given = _scaled(DAMPED, damped, unit, limit, "available")
    withdrawn = ground.tick.decision.capacity.withdrawn
    why = f"withdrawn: {withdrawn}" if withdrawn else ""
    return reason(f"{part.name}.available", rule, given, part.amount.available, unit, by=BY, why=why)


def _scaled(
    rule: str, given: list[Given], unit: Unit, limit: tuple[float, float], what: str
) -> tuple[str, list[Given]]:
    """The rule and its numbers, scaled where the NUMA nodes are more than the whole: never more in sum."""
    node, zones = limit
    if zones <= node:
        return rule, given
    resource = "cpu" if unit is Unit.CORES else "memory"
    more = [
        Given("node", node, f"{resource}.{what}", unit, fine=True),
        Given("zones", zones, "sum over the NUMA nodes before this", unit, fine=True),
    ]
    return f"{rule} * node / zones", [*given, *more]
