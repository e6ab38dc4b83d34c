"""Why this much is offered: the formula, its damping, its zones, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nodeagent.core import directives
from nodeagent.core.explain import zones
from nodeagent.core.explain.ground import DAMPED, Ground, damping
from nodeagent.core.explain.law import Given, Unit, reason
from nodeagent.core.formula import SHRINK, past_peak
from nodeagent.core.histogram import CPU, MEMORY
from nodeagent.model.capacity import Amount, Term
from nodeagent.model.explanation import Reason

BY = "capacity"
POLICY = "policy: capacity."
REACH = "max(0, reach * ceiling_ratio - max(reserved, system) - reach_online)"


class Resource(NamedTuple):
    """What is explained: `less` is what is taken off the total first, `past` the peak before this tick."""

    name: str
    unit: Unit
    less: str
    amount: Amount
    last: float
    past: tuple[float, str]


def reasons(ground: Ground) -> Iterator[Reason]:
    """CPU, memory, each NUMA node, confidence."""
    found, policy, before = ground.tick.decision.capacity, ground.thought.formula, ground.before.offer
    history = directives.remembered(ground.thought.orders, ground.thought.offered.history)
    past = past_peak(history.cpu, policy.cpu_peak_percentile, CPU, policy)
    yield from _resource(ground, Resource("cpu", Unit.CORES, "steal", found.cpu, before.cpu_cores, past))
    past = past_peak(history.memory, policy.memory_peak_percentile, MEMORY, policy)
    yield from _resource(
        ground, Resource("memory", Unit.BYTES, "watermark", found.memory, before.memory_bytes, past)
    )
    yield from zones.reasons(ground)
    yield _confidence(ground)


def given_term(term: Term, resource: str, unit: Unit) -> Given:
    """A term of the offer; its age belongs to where it came from, and its key to the policy."""
    source, ratio = term.source, term.name.endswith("_ratio")
    if source == "policy":
        source += f": capacity.{f'{resource}_{term.name}' if ratio else f'{term.name}_{resource}_{unit}'}"
    age = f", {term.age_s:.1f} s old" if term.age_s >= 0.05 else ""
    return Given(term.name, term.value, f"{source}{age}", Unit.PLAIN if ratio else unit, fine=ratio)


def _resource(ground: Ground, each: Resource) -> Iterator[Reason]:
    terms = {term.name: given_term(term, each.name, each.unit) for term in each.amount.terms}
    if "online_peak" in terms and "online_now" in terms:
        past = Given("past_peak", each.past[0], each.past[1], each.unit)
        peak = terms["online_peak"]
        given = (terms["online_now"], past)
        yield reason(
            f"{each.name}.online_peak", "max(online_now, past_peak)", given, peak.value, each.unit, by=BY
        )
    given_all = tuple(terms.values())
    yield reason(
        f"{each.name}.computed", _rule(each, terms), given_all, each.amount.computed, each.unit, by=BY
    )
    yield _available(ground, each, terms)


def _rule(each: Resource, terms: dict[str, Given]) -> str:
    rule = f"max(0, max(0, total - {each.less}) * ceiling_ratio - max(reserved, system) - online_peak)"
    if "reach" in terms:
        rule = f"min({rule}, {REACH})"
    if SHRINK in terms:
        rule = f"min({rule}, batch_limit)" if "batch_limit" in terms else rule
        rule = f"{rule} * {SHRINK}"
        return f"min({rule}, hold)" if "hold" in terms else rule
    most = [name for name in ("batch_limit", "hold") if name in terms]
    return f"min({', '.join((rule, *most))})" if most else rule


def _available(ground: Ground, each: Resource, terms: dict[str, Given]) -> Reason:
    """Fast down, slow up; nothing while an input is missing for too long."""
    name, withdrawn = f"{each.name}.available", ground.tick.decision.capacity.withdrawn
    if withdrawn:
        why = f"withdrawn: {withdrawn}"
        return reason(name, "0", (), each.amount.available, each.unit, by=BY, why=why)
    computed = Given("computed", each.amount.computed, f"{each.name}.computed", each.unit)
    total = terms.get("total", Given("total", 0.0, "not known", each.unit))
    why = _why(each, ground.grown_s, first=ground.before.offer.at is None)
    given = damping(ground, computed, each.last, total)
    if SHRINK not in terms:
        return reason(name, DAMPED, given, each.amount.available, each.unit, by=BY, why=why)
    calm = ground.thought.offered.offer.calm_cpu_cores
    more = (
        Given("calm_offer", calm, "what would be offered were nobody disturbed", each.unit),
        terms[SHRINK],
    )
    rule = f"min({DAMPED}, calm_offer * {SHRINK})"
    why = "shrunk: online work is disturbed"
    return reason(name, rule, (*given, *more), each.amount.available, each.unit, by=BY, why=why)


def _why(each: Resource, step_s: float, *, first: bool) -> str:
    computed, available = each.amount.computed, each.amount.available
    if available >= computed:
        return "falls at once" if computed < each.last else "all that the formula gives"
    if first:
        return "begins at 0 and rises slowly"
    return "rises slowly" if step_s > 0.0 else "held: a reading of this tick is missing or not sure"


def _confidence(ground: Ground) -> Reason:
    found, policy, use = ground.tick.decision.capacity, ground.policy.capacity, ground.thought.use
    if found.withdrawn:
        why = f"withdrawn: {found.withdrawn}"
        return reason("confidence", "0", (), found.confidence, Unit.PLAIN, by=BY, why=why)
    seen_s = ground.thought.offered.history.cpu.seconds
    given = (
        Given("observed_s", seen_s, "time in the histogram of online CPU use", Unit.SECONDS),
        Given("warm_after_s", policy.warm_after_s, f"{POLICY}warm_after_s", Unit.SECONDS),
        Given("age_s", max(use.cpu_age_s, use.memory_age_s), "the oldest input", Unit.SECONDS),
        Given("stale_after_s", policy.stale_after_s, f"{POLICY}stale_after_s", Unit.SECONDS),
    )
    warmth = "min(1, observed_s / warm_after_s)" if policy.warm_after_s else "1"
    rule = f"(0.5 + 0.5 * {warmth}) * max(0, 1 - age_s / stale_after_s)"
    return reason("confidence", rule, given, found.confidence, Unit.PLAIN, by=BY)
