"""The feelings of one pod, put before the gates and fused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from nodeagent.core import apps
from nodeagent.core.interference.cusum import LISTED
from nodeagent.core.interference.fuse import alarm_of, fused
from nodeagent.core.interference.gates import Case, stopped_by
from nodeagent.core.interference.loads import Loads
from nodeagent.core.interference.measures import Measures
from nodeagent.core.interference.signs import limits
from nodeagent.core.rates import PodRates
from nodeagent.model.interference import Rejection, Verdict
from nodeagent.model.policy import Policy
from nodeagent.model.senses import Feeling, Onset, PodSense
from nodeagent.model.symptom import Sign

RENEWED_S = 60.0  # while there is no alarm, what was before it is at most so old
STALE_S = 60.0  # a feeling without a sample for so long is evidence no more, and not calm either


class Around(NamedTuple):
    """`throttled` and `stolen` over the last seconds; `known`: its wait for CPU is known in this tick."""

    loads: Loads
    policy: Policy
    throttled: float
    stolen: float
    known: bool


def examined(
    p: PodRates,
    m: Measures,
    old: PodSense,
    feelings: Mapping[Sign, Feeling],
    around: Around,
) -> tuple[Onset, Verdict]:
    """The pod's verdict, and what was used before its trouble began."""
    loads, policy, known = around.loads, around.policy, around.known
    spec = p.pod.spec
    onset = _onset(old, feelings, loads, spec.uid, spec.cgroup)
    at = loads.at
    stale = {sign for sign, feeling in feelings.items() if at - feeling.at > STALE_S}
    fresh = {sign: feeling for sign, feeling in feelings.items() if sign not in stale}
    case: Case | None = None
    worst = {sign: feeling.worst for sign, feeling in feelings.items()}
    rejections: dict[Sign, Rejection] = {}
    for sign, feeling in fresh.items():
        if feeling.cusum >= LISTED or feeling.opened is not None:
            case = case or _case(p, m, old, around, onset, worst)
            found = stopped_by(alarm_of(sign, feeling), case)
            if found is not None:
                rejections[sign] = found
    sure = known and not any(feelings[sign].opened is not None for sign in stale)
    return onset, fused(spec.uid, fresh, rejections, policy.interference.cusum_h, sure)


def _onset(old: PodSense, feelings: Mapping[Sign, Feeling], loads: Loads, uid: str, cgroup: str) -> Onset:
    last = old.onset
    if last is not None:
        alarmed = any(feeling.opened is not None for feeling in feelings.values())
        if alarmed or loads.at - last.at <= RENEWED_S:
            return last
    return loads.onset(uid, cgroup)


def _case(
    p: PodRates,
    m: Measures,
    old: PodSense,
    around: Around,
    onset: Onset,
    worst: dict[Sign, float],
) -> Case:
    loads = around.loads
    app, spec = p.pod.app, p.pod.spec
    slo_s = None if app is None or app.slo is None else app.slo.bound_s
    near, everywhere = loads.beside(spec.uid, spec.cgroup)
    return Case(
        p,
        m,
        around.policy,
        around.throttled,
        around.stolen,
        onset,
        loads.own(spec.uid),
        near,
        everywhere,
        None if old.since is None else loads.at - old.since,
        apps.slack(app, loads.at),
        slo_s,
        limits(around.policy, slo_s),
        worst,
    )
