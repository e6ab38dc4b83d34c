"""Why an alarm is no neighbour's fault: asked in order, the first that holds stops it and says so in numbers.

    own quota -> steal -> own load -> young -> idle -> small -> healthy -> the neighbours

`healthy` stops an accusation only: what is pressed but keeps its promise may be suspected, never confirmed.
Invariant: no gate looks at how bad the signal is, but `small`, which lets more pass the worse it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from nodeagent.core.interference.baseline import load_bin
from nodeagent.core.interference.measures import Measures
from nodeagent.core.interference.signs import RULES
from nodeagent.core.rates import PodRates
from nodeagent.model.interference import Alarm, Gate, Rejection
from nodeagent.model.policy import Policy
from nodeagent.model.senses import Onset, Use
from nodeagent.model.symptom import Channel, Sign

THROTTLED_RATIO = 0.10
THROTTLED_WHOLLY_RATIO = 0.05  # where all that it waits is in "full": nothing of it ran meanwhile
FULL_OF_SOME = 0.9
LASTING = 0.88  # of a limit: the mean of three samples at the limit is above it
STEAL_RATIO = 0.05
OTHERS_PART = 0.5  # of the own rise: from here on the others' rise counts as well
LEAST_RISE_CORES = 0.1
FETCHING_RATIO = 0.5  # of the use before, that fetching pages may add to it
IDLE_RATIO = 0.05  # of the request
IDLE_CORES = 0.02
COUNTED_CORES = 0.25  # below it cycles and CPU time per unit of work are those of cold caches
NEAR_SLO = 0.9

_OF_QUOTA = frozenset({Sign.CPU_STALL, Sign.RUN_DELAY, Sign.LATENCY, Sign.LISTEN_DROPS})
_OF_STEAL = _OF_QUOTA | {Sign.CPU_PER_REQUEST, Sign.CPI}
_PER_WORK = frozenset({Sign.CPU_PER_REQUEST, Sign.CPI, Sign.MPKI})
_STALLS = (Sign.CPU_STALL, Sign.MEMORY_STALL, Sign.IO_STALL)


class Case(NamedTuple):
    """What is known of a pod when its alarms are examined.

    `throttled` and `stolen` are means of the last few samples. `near` is what those
    that share its CPUs use, `everywhere` what all others do. `slack` is None without a fresh SLO. `limits` by
    sign are what is bad in any case, `worst` the largest values since the trouble began.
    """

    p: PodRates
    measures: Measures
    policy: Policy
    throttled: float
    stolen: float
    onset: Onset
    own: Use
    near: Use
    everywhere: Use
    age_s: float | None
    slack: float | None
    slo_s: float | None
    limits: dict[Sign, float]
    worst: dict[Sign, float]


def stopped_by(alarm: Alarm, case: Case) -> Rejection | None:
    """The first gate that stops the alarm; None: the neighbours are next."""
    for gate, ask in _GATES:
        why = ask(alarm, Sign(alarm.sign), case)
        if why:
            return Rejection(alarm, gate, why)
    return None


def _own_quota(_alarm: Alarm, sign: Sign, case: Case) -> str:
    if sign not in _OF_QUOTA:
        return ""
    some, full = case.measures.values.get(Sign.CPU_STALL, 0.0), case.measures.full.get(Sign.CPU_STALL, 0.0)
    wholly = some > 0.0 and full > FULL_OF_SOME * some
    least = THROTTLED_WHOLLY_RATIO if wholly else THROTTLED_RATIO
    if not _lasts(case.throttled, case.measures.values.get(Sign.THROTTLED), least):
        return ""
    told = max(case.throttled, case.measures.values.get(Sign.THROTTLED, 0.0))
    more = f", and full/some is {full / some:.2f}" if wholly else ""
    return f"throttled in {told:.0%} of its periods (from {least:.0%} on it is its own quota){more}"


def _steal(_alarm: Alarm, sign: Sign, case: Case) -> str:
    stolen = case.measures.values.get(Sign.STEAL)
    if sign not in _OF_STEAL or not _lasts(case.stolen, stolen, STEAL_RATIO):
        return ""
    told = max(case.stolen, stolen or 0.0)
    return f"the hypervisor took {told:.0%} of its CPUs' time (from {STEAL_RATIO:.0%} on it is that)"


def _lasts(mean: float, now: float | None, least: float) -> bool:
    """Whether it is not just one moment, such as one throttled period in a second."""
    return mean >= least or (now is not None and now >= least and mean >= LASTING * least)


def _own_load(_alarm: Alarm, sign: Sign, case: Case) -> str:
    """Its own use is in a higher bin than before the trouble, and what is beside it did not rise with it.

    Who lacks memory or waits for a device uses CPU time to fetch what it lacks: there it takes a larger rise.
    """
    request, onset, now = case.p.pod.spec.cpu_request_cores, case.onset, case.own.now
    rise = now - onset.own_cores
    fetches = RULES[sign].channel in (Channel.MEMORY, Channel.IO)
    if rise <= (FETCHING_RATIO * onset.own_cores if fetches else 0.0):
        return ""
    if load_bin(now, request) <= load_bin(onset.own_cores, request):
        return ""
    near = RULES[sign].channel is Channel.CPU
    before, after = (onset.others_cores, case.near.now) if near else (onset.all_cores, case.everywhere.now)
    if after - before >= max(LEAST_RISE_CORES, OTHERS_PART * rise):
        return ""
    return (
        f"its own use rose from {onset.own_cores:.2f} to {now:.2f} cores,"
        f" the others' went from {before:.2f} to {after:.2f}"
    )


def _young(alarm: Alarm, sign: Sign, case: Case) -> str:
    young_s = case.policy.interference.young_s
    if case.age_s is None or case.age_s >= young_s or alarm.baseline is None:
        return ""
    limit = case.limits.get(sign)
    if limit is not None and alarm.value >= limit:
        return ""
    return f"the pod is {case.age_s:.0f} s old (its own signals count from {young_s:.0f} s on)"


def _idle(_alarm: Alarm, sign: Sign, case: Case) -> str:
    """What waits is not idle: use and stalls count together."""
    cores, request = case.p.cores or 0.0, case.p.pod.spec.cpu_request_cores
    if sign in _PER_WORK:
        least, active, what = COUNTED_CORES, cores, "uses"
    else:
        least = IDLE_RATIO * request if request else IDLE_CORES
        values = case.measures.values
        active = cores + max(case.p.run_delay_ratio or 0.0, *(values.get(stall, 0.0) for stall in _STALLS))
        what = "uses and waits for"
    if active >= least:
        return ""
    return f"it {what} {active:.3f} cores (below {least:.3f} the signal means nothing)"


def _small(alarm: Alarm, sign: Sign, case: Case) -> str:
    if alarm.baseline is None:
        return ""
    worst = case.worst.get(sign, alarm.value)
    if sign is Sign.LATENCY and case.slo_s is not None:
        least = NEAR_SLO * case.slo_s
        if worst >= least:
            return ""
        return f"{worst:.4f} s: below {least:.4f} s it is far from breaking its SLO"
    rule = RULES[sign]
    least = max(alarm.baseline + rule.rise, alarm.baseline * rule.ratio)
    if worst >= least:
        return ""
    return f"{worst:.4g} after {alarm.baseline:.4g}: below {least:.4g} it makes no difference"


def _healthy(_alarm: Alarm, _sign: Sign, case: Case) -> str:
    least = case.policy.interference.healthy_slack
    if case.slack is None or case.slack <= least:
        return ""
    return f"it keeps its SLO with {case.slack:.0%} to spare (above {least:.0%} nobody is accused)"


_Ask = Callable[[Alarm, Sign, Case], str]
_GATES: tuple[tuple[Gate, _Ask], ...] = (
    (Gate.OWN_QUOTA, _own_quota),
    (Gate.STEAL, _steal),
    (Gate.OWN_LOAD, _own_load),
    (Gate.YOUNG, _young),
    (Gate.IDLE, _idle),
    (Gate.SMALL, _small),
    (Gate.HEALTHY, _healthy),
)
