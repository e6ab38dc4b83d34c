"""The detector: each online pod's measures against what is usual for its workload -> one verdict per pod.

    measures -> whole samples -> z and cumulative sum per sign -> gates -> fused evidence -> state
                      |                                                          |
                      +-> pending -> baseline, only while all is well <----------+

Invariants: an unknown sign neither calms nor is learned; what is learned was followed by no alarm within its
batch; a pod that did nothing costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set

from nodeagent.core.interference.baseline import load_bin
from nodeagent.core.interference.cusum import LISTED
from nodeagent.core.interference.examine import Around, examined
from nodeagent.core.interference.feel import LEAST_STEAL, feelings, smooth
from nodeagent.core.interference.learn import Lessons
from nodeagent.core.interference.loads import Loads
from nodeagent.core.interference.measures import Measures
from nodeagent.core.interference.signs import MEMORY_FULL_LIMIT, limits
from nodeagent.core.interference.whole import SAMPLE_S, Sample, whole_sample
from nodeagent.core.interference.workload import workload
from nodeagent.core.rates import PodRates, View
from nodeagent.model.interference import Gate, State, Verdict
from nodeagent.model.policy import Policy
from nodeagent.model.senses import Feeling, PodSense, Senses, Served
from nodeagent.model.symptom import Sign

SIGHT_S = 15.0  # for which the wait for CPU counts as known where it is not read in each tick
REGIME_S = 3600.0  # of an alarm that nobody is restrained for: from then on it is what is usual
LONGEST_COUNT_S = 60.0  # in which requests are counted for their CPU time
_SMOOTHED = (Sign.THROTTLED, Sign.STEAL)
_NO_CPUS: Mapping[str, frozenset[int]] = {}


def _harmless(policy: Policy) -> dict[Sign, float]:
    """Up to where a sign of which nothing is known to be usual needs no look; the others never do."""
    least = limits(policy, 0.0) | {Sign.MEMORY_STALL: MEMORY_FULL_LIMIT}
    return {sign: math.nextafter(value, 0.0) for sign, value in least.items()} | dict.fromkeys(
        _SMOOTHED, LEAST_STEAL
    )


class Moment:
    """What all pods of one tick share."""

    __slots__ = ("frozen", "harmless", "lessons", "loads", "policy", "trouble", "view")

    def __init__(
        self,
        view: View,
        policy: Policy,
        senses: Senses,
        frozen: Set[str],
        cpus_of: Mapping[str, frozenset[int]],
    ) -> None:
        self.view, self.policy, self.frozen = view, policy, frozen
        confirmed = (sense.verdict.state is State.CONFIRMED for sense in senses.pods.values())
        self.trouble = bool(frozen) or any(confirmed)
        self.harmless = _harmless(policy)
        self.loads = Loads(view, senses.uses, cpus_of)
        self.lessons = Lessons(senses, view.snapshot.unix, policy.interference)

    def load(self, p: PodRates) -> int:
        """The pod's load bin now."""
        use = self.loads.uses.get(p.pod.spec.uid)
        return load_bin(0.0 if use is None else use.now, p.pod.spec.cpu_request_cores)

    def young(self, sense: PodSense) -> bool:
        """Whether the pod has just begun."""
        since = sense.since
        return since is not None and self.view.snapshot.at - since < self.policy.interference.young_s


def judge(
    view: View,
    measures: Mapping[str, Measures],
    policy: Policy,
    senses: Senses,
    frozen: Set[str],
    cpus_of: Mapping[str, frozenset[int]] = _NO_CPUS,
) -> tuple[tuple[Verdict, ...], Senses]:
    """One verdict for each online pod, in the order of the view, and what is kept for the next tick.

    `frozen` are the victims for whom an episode is open or somebody is restrained: nothing is learned of
    them. A victim may be left out after an hour without a suspect: what it has become is learned then.
    """
    moment = Moment(view, policy, senses, frozen, cpus_of)
    pods: dict[str, PodSense] = {}
    for p in view.pods:
        uid = p.pod.spec.uid
        found = measures.get(uid)
        if found is not None:
            old = senses.pods.get(uid)
            if old is None or old.inode != p.pod.spec.inode:
                old = _newcomer(p, moment, senses.begun)
            pods[uid] = old if _ordinary(p, found, old, moment) else _judged(p, found, old, moment)
    moment.lessons.forget(pods.keys())
    verdicts = tuple([sense.verdict for sense in pods.values()])
    workloads, pending = moment.lessons.learned(), moment.lessons.pending
    return verdicts, Senses(workloads, pods, pending, moment.loads.uses, True)


def _ordinary(p: PodRates, m: Measures, old: PodSense, moment: Moment) -> bool:
    """Whether all is as usual, as mostly: then nothing changes but what is to be learned."""
    if old.feelings or old.part or old.verdict.state is not State.CALM or old.verdict.rejections:
        return False
    if old.throttled or old.stolen:
        return False
    if m.still:
        return True
    dt_s, values = moment.view.dt_s, m.values
    if dt_s is None or dt_s < SAMPLE_S or m.served is not None or Sign.CPU_STALL not in values:
        return False
    load, harmless = moment.load(p), moment.harmless
    usual = moment.lessons.usual(old.workload, load)
    for sign, value in values.items():
        ref = usual.get(sign)
        if value > (harmless.get(sign, math.inf) if ref is None else ref.ceiling):
            return False
    if p.pod.spec.uid not in moment.frozen and not moment.young(old):
        moment.lessons.learn(p.pod.spec.uid, old.workload, load, values)
    return True


def _newcomer(p: PodRates, moment: Moment, begun: bool) -> PodSense:
    spec = p.pod.spec
    since = moment.view.snapshot.at if begun else None
    unknown = Verdict(spec.uid, State.UNKNOWN)
    return PodSense(spec.inode, workload(spec.name), since, None, unknown)


def _judged(p: PodRates, m: Measures, old: PodSense, moment: Moment) -> PodSense:
    snapshot = moment.view.snapshot
    at, uid = snapshot.at, p.pod.spec.uid
    known_at, known = _sighted(m, old, at)
    sample, part_s, part = whole_sample(m, moment.view.dt_s, old)
    load = moment.load(p)
    usual = moment.lessons.usual(old.workload, load)
    felt = feelings(p, m, sample, old.feelings, usual, at, moment.policy)
    throttled = smooth(old.throttled, sample, Sign.THROTTLED)
    stolen = smooth(old.stolen, sample, Sign.STEAL)
    if any(feeling.cusum >= LISTED or feeling.opened is not None for feeling in felt.values()):
        around = Around(moment.loads, moment.policy, throttled, stolen, known)
        onset, verdict = examined(p, m, old, felt, around)
    else:
        onset = None
        verdict = _quiet(old.verdict, uid, known)
    _take_note(p, old, felt, verdict, load, sample, moment)
    return PodSense(
        old.inode,
        old.workload,
        old.since,
        known_at,
        verdict,
        felt,
        part_s,
        part,
        throttled,
        stolen,
        _counted(m, old),
        onset,
    )


def _quiet(last: Verdict, uid: str, known: bool) -> Verdict:
    state = State.CALM if known else State.UNKNOWN
    if last.state is state and not last.rejections and last.evidence == 0.0:
        return last
    return Verdict(uid, state)


def _sighted(m: Measures, old: PodSense, at: float) -> tuple[float | None, bool]:
    """When the pod's wait for CPU was last known, and whether that is good for this tick.

    CPU pressure is read in each tick; what stands in for it may be read less often.
    """
    if Sign.CPU_STALL not in m.unsupported:
        return (at, True) if Sign.CPU_STALL in m.values else (old.known_at, False)
    stand_in = Sign.LATENCY if Sign.RUN_DELAY in m.unsupported else Sign.RUN_DELAY
    if stand_in in m.values:
        return at, True
    return old.known_at, old.known_at is not None and at - old.known_at <= SIGHT_S


def _take_note(
    p: PodRates,
    old: PodSense,
    feelings: dict[Sign, Feeling],
    verdict: Verdict,
    load: int,
    sample: Sample,
    moment: Moment,
) -> None:
    """What is to be learned of this tick; given up where trouble shows that its beginning may be in it."""
    uid, at, lessons = p.pod.spec.uid, moment.view.snapshot.at, moment.lessons
    if uid in moment.frozen or moment.young(old):
        lessons.give_up(uid)
        return
    if not sample.values or verdict.state is State.UNKNOWN:
        return
    wrong = {sign: f.opened for sign, f in feelings.items() if f.opened is not None}
    if not wrong and feelings and moment.trouble:  # what disturbs a neighbour may disturb this one, too
        lessons.give_up(uid)
    elif not wrong:
        steady = all(f.cusum < LISTED for f in feelings.values())
        lessons.learn(uid, old.workload, load, sample.values, ready=steady)
    elif _of_own_load(verdict, len(wrong)):
        lessons.learn(uid, old.workload, load, sample.values)
    elif all(at - opened >= REGIME_S for opened in wrong.values()):
        lessons.learn(uid, old.workload, load, sample.values, anew=frozenset(wrong))
    else:
        lessons.give_up(uid)


def _of_own_load(verdict: Verdict, wrong: int) -> bool:
    """More load of its own is no trouble: what comes with it is learned, in the load bin that it is in."""
    return len(verdict.rejections) == wrong and all(r.gate is Gate.OWN_LOAD for r in verdict.rejections)


def _counted(m: Measures, old: PodSense) -> Served | None:
    """The request count from which CPU time per request is taken: until there are enough of them."""
    new, last = m.served, old.served
    if new is None or last is None or Sign.CPU_PER_REQUEST in m.values:
        return last if new is None else new
    other = last.source != new.source or new.requests < last.requests or new.at - last.at > LONGEST_COUNT_S
    return new if other else last
