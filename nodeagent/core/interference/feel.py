"""What each sign of a pod feels like after this tick: against what is usual, or else against a limit."""

from __future__ import annotations

from nodeagent.core.interference import cusum
from nodeagent.core.interference.baseline import spread_out
from nodeagent.core.interference.measures import Measures
from nodeagent.core.interference.signs import MEMORY_FULL_LIMIT, RULES, Rule, limits
from nodeagent.core.interference.whole import Sample
from nodeagent.core.rates import PodRates
from nodeagent.model.policy import Policy
from nodeagent.model.senses import Feeling, Usual
from nodeagent.model.symptom import Sign

LEAST_STEAL = 0.01  # less is nothing, of throttling too
RISE_S, FALL_S = 0.9, 5.0  # over which throttling and steal are smoothed
SLO_SPREAD = 0.02  # of the SLO: least spread of a latency
_LIMITED = frozenset({Sign.CPU_STALL, Sign.RUN_DELAY, Sign.LATENCY, Sign.MEMORY_STALL})


def feelings(
    p: PodRates,
    m: Measures,
    sample: Sample,
    before: dict[Sign, Feeling],
    usual: dict[Sign, Usual],
    at: float,
    policy: Policy,
) -> dict[Sign, Feeling]:
    """The feelings after this tick's whole samples; those without a sample stay, unless none can come."""
    after = before
    for sign, value in sample.values.items():
        ref = usual.get(sign)
        if ref is not None and value <= ref.ceiling and sign not in before:
            continue
        rule = RULES.get(sign)
        if rule is None or (ref is None and sign not in _LIMITED):
            continue
        when = at, sample.span_s.get(sign, sample.tick_s)
        feeling = _felt(p, m, sign, value, (before.get(sign), ref, rule), when, policy)
        if feeling is not None or sign in before:
            after = dict(after) if after is before else after
            if feeling is None:
                after.pop(sign)
            else:
                after[sign] = feeling
    if before and not m.unsupported.isdisjoint(after):
        return {sign: feeling for sign, feeling in after.items() if sign not in m.unsupported}
    return after


def _felt(
    p: PodRates,
    m: Measures,
    sign: Sign,
    value: float,
    known: tuple[Feeling | None, Usual | None, Rule],
    when: tuple[float, float],
    policy: Policy,
) -> Feeling | None:
    """`when` is the sample's end, and for how long it is of."""
    (before, ref, rule), (at, span_s), rules = known, when, policy.interference
    slo = p.pod.app.slo if sign is Sign.LATENCY and p.pod.app is not None else None
    slo_s = None if slo is None else slo.bound_s
    if ref is None:
        over = _over(p, m, sign, value, limits(policy, slo_s).get(sign), policy)
        return cusum.felt_cold(before, value, over, at, span_s, rules, rule)
    if slo_s is not None:
        ref = spread_out(ref, SLO_SPREAD * slo_s, rules.cusum_k)
    return cusum.felt(before, value, ref, at, span_s, rules, rule)


def _over(p: PodRates, m: Measures, sign: Sign, value: float, limit: float | None, policy: Policy) -> bool:
    """Whether it is bad whatever is usual. Run delay is relative to what ran: it must be long as well, as PSI
    must in whose place it is asked."""
    if sign is Sign.MEMORY_STALL:
        return m.full.get(sign, 0.0) >= MEMORY_FULL_LIMIT
    if limit is None or value < limit:
        return False
    if sign is Sign.RUN_DELAY:
        long = value * (p.cores or 0.0) >= policy.pressure.ls_cpu_stall_ratio
        return long and Sign.CPU_STALL in m.unsupported
    return True


def smooth(last: float, sample: Sample, sign: Sign) -> float:
    value = sample.values.get(sign)
    if value is None or (value <= LEAST_STEAL and last < LEAST_STEAL):
        return last if value is None else 0.0
    over_s = RISE_S if value > last else FALL_S
    return last + (value - last) * sample.tick_s / (over_s + sample.tick_s)
