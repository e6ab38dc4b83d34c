"""The trial: the top suspect alone is capped for a while, and the cap stays only if the victim gets better.

What is capped is its CPU time, or its memory where memory is what the victim lacks (`rungs.memory_on_trial`).

Compared are medians of what the victim's main sign is above its baseline, before and during the cap. A tick
counts only where Batch as a whole may use as much as when it was bad: else it would prove nothing against
this one suspect. Invariant: what ends without a proof leaves no restraint, unless the victim cannot be seen.
"""

from __future__ import annotations

import math
from statistics import median

from msgspec import Struct
from msgspec.structs import replace

from nodeagent.core.interference import rungs
from nodeagent.core.interference.episodes import SAMPLE_S
from nodeagent.core.interference.facts import Facts, main_alarm
from nodeagent.core.rates import PodRates
from nodeagent.model.course import Case, Course, Doubt, Probe, Sample
from nodeagent.model.interference import Rung, Suspect, Trial, TrialResult
from nodeagent.model.interference_policy import InterferencePolicy
from nodeagent.model.symptom import Channel, Sign

CPU_SHARE, OTHER_SHARE = (
    0.5,
    0.25,
)  # of its use that the suspect keeps; no other resource follows CPU time as well
SEEN_RATIO = 0.75  # of its use: a cap above this would show nothing
SETTLE_S = 2.0  # at most, until the cap has its effect
TAKEN_S = 3.0  # beyond that, until a cap must hold
TAKEN_TICKS = 2.5  # at least: decided in one, written in the next, seen in the third
TAKEN_RATIO = 1.1  # of the cap: the kernel's and the enforcer's roundings
LEAST = 3  # samples on either side
LONGEST = 3.0  # times trial_s, while Batch as a whole recovers
AS_LOOSE_RATIO = 0.9  # of Batch's limit before
USED_RATIO = 0.25  # of its cap, on average, that a suspect uses if the cap is what holds it
FULL_RATIO = 0.75  # the same of its memory
HARD_S = 3.0  # far too much wait for so long, although the suspect is capped: it is not the one
BLIND_S = 30.0  # until what is not seen is cut short


class Ended(Struct, frozen=True, gc=False):
    """How a trial came out, and why. `stays`: the cap does, as what is known then."""

    result: TrialResult
    during: float | None
    why: str
    stays: bool = False


def begun(case: Case, suspect: Suspect, facts: Facts) -> Probe | None:
    """The trial of this suspect for this victim; None while there is nothing to compare with."""
    verdict = facts.verdicts.get(case.uid)
    alarm = None if verdict is None else main_alarm(verdict)
    spec = facts.pods[suspect.uid].pod.spec
    if verdict is None or alarm is None:
        return None
    baseline = alarm.baseline or 0.0
    before = _before(case.samples, alarm.sign, baseline, facts.at - facts.rules.trial_s)
    if len(before) < LEAST or median(x for x, _ in before) <= 0.0:
        return None
    worse = median(x for x, _ in before)
    limits = [limit for x, limit in before if x >= worse and limit is not None]
    trial = Trial(suspect.uid, facts.at, facts.at + facts.rules.trial_s, worse, sign=alarm.sign)
    limit = median(limits) if limits else None
    high = _high(suspect, facts, verdict.channel)
    cap = None if high is not None else _cap(suspect, facts, verdict.channel)
    return Probe(
        trial=trial,
        suspect=suspect,
        inode=spec.inode,
        cap_cores=cap,
        withheld_cores=0.0 if cap is None else max(0.0, (facts.pods[suspect.uid].cores or 0.0) - cap),
        sign=alarm.sign,
        baseline=baseline,
        limit_cores=limit,
        memory_high_bytes=high,
    )


def watched(probe: Probe, case: Case, facts: Facts) -> Probe:
    """With what this tick tells; while there is too little of it, the trial goes on for longer."""
    rates, value = facts.pods.get(probe.suspect.uid), facts.values(case.uid).get(Sign(probe.sign))
    trial, now = probe.trial, facts.at
    used = None if rates is None else _use(probe, rates, facts)
    if used is not None:
        probe = replace(probe, used=(*probe.used, (now, used)))
    if value is not None and _counts(probe, facts):
        probe = replace(probe, excess=(*probe.excess, (now, max(0.0, value - probe.baseline))))
    if now >= trial.until and not _enough(probe, facts.rules) and now < _latest(probe, facts):
        probe = replace(probe, trial=replace(trial, until=min(_latest(probe, facts), now + SETTLE_S)))
    return probe


def ended(probe: Probe, case: Case, facts: Facts) -> Ended | None:
    """None while it goes on."""
    stopped = _stopped(probe, facts)
    if stopped:
        return Ended(TrialResult.CUT_SHORT, None, stopped)
    if case.blind_since is not None:  # what is not seen is neither judged nor given back
        long = facts.at - case.blind_since >= BLIND_S
        return Ended(TrialResult.CUT_SHORT, None, "the victim is not seen", stays=True) if long else None
    taken_s = max(_settle(facts) + TAKEN_S, TAKEN_TICKS * (facts.view.dt_s or 0.0))
    if not _taken(probe, facts) and facts.at - probe.trial.began > taken_s:
        return Ended(TrialResult.CUT_SHORT, None, "the cap does not hold: it is not ours to write")
    during = median(x for _, x in probe.excess) if probe.excess else None
    hard_since = case.hard_since
    if hard_since is not None and facts.at - max(hard_since, probe.trial.began) >= HARD_S + _settle(facts):
        return Ended(TrialResult.UNDONE, during, "the victim waits far too long all the same")
    if facts.at < probe.trial.until:
        return None
    if during is None or not _enough(probe, facts.rules):
        return Ended(TrialResult.CUT_SHORT, during, "too little was seen that can be compared")
    told = f"{probe.sign} above its ordinary {probe.trial.before:.3g} before, {during:.3g} during"
    if during > facts.rules.better_ratio * probe.trial.before:
        return Ended(TrialResult.UNDONE, during, told)
    if not _used(probe):
        return Ended(TrialResult.CUT_SHORT, during, "it was below its bound anyway: that proves nothing")
    return Ended(TrialResult.KEPT, during, told, stays=True)


def said(probe: Probe, facts: Facts) -> str:
    """What is tried, for people."""
    cap = "idle" if probe.cap_cores is None else f"{probe.cap_cores:.2f} cores"
    if probe.memory_high_bytes is not None:
        cap = f"{probe.memory_high_bytes >> 20} MiB"
    return f"trial: {cap} for {facts.rules.trial_s:g} s"


def doubted(course: Course, victim: str, suspect: str) -> Course:
    """One more trial in vain."""
    same = [d for d in course.doubts if (d.victim, d.suspect) == (victim, suspect)]
    others = tuple(d for d in course.doubts if d not in same)
    count = 1 + max((d.count for d in same), default=0)
    return replace(course, doubts=(*others, Doubt(victim, suspect, course.at, count)))


def _before(
    samples: tuple[Sample, ...], sign: str, baseline: float, since: float
) -> list[tuple[float, float | None]]:
    """(excess, Batch's limit) of the ticks since then."""
    found = [s for s in samples if s.at >= since and sign in s.values]
    return [(max(0.0, s.values[sign] - baseline), s.limit_cores) for s in found]


def _cap(suspect: Suspect, facts: Facts, channel: Channel | None) -> float | None:
    """Half of what it uses; less where that would not show. None where no quota may be set."""
    if facts.rules.top_rung < 2:
        return None
    rates = facts.pods[suspect.uid]
    used = rates.cores or 0.0
    share = used * (CPU_SHARE if channel is Channel.CPU else OTHER_SHARE)
    cap = max(rungs.quota_floor(facts, rates.pod.spec), share)
    return cap if cap <= SEEN_RATIO * used else max(facts.policy.cpu.pod_floor_cores, share)


def _high(suspect: Suspect, facts: Facts, channel: Channel | None) -> int | None:
    """What it may keep of its memory; None where that is not what is tried."""
    if channel is not Channel.MEMORY or not rungs.may(facts, Rung.SHRINK, channel):
        return None
    return rungs.memory_on_trial(facts, suspect.uid)


def _counts(probe: Probe, facts: Facts) -> bool:
    limit, least = facts.limit_cores, probe.limit_cores
    loose = limit is None or least is None or limit + probe.withheld_cores >= AS_LOOSE_RATIO * least
    last = probe.excess[-1][0] if probe.excess else probe.trial.began
    settled = facts.at - probe.trial.began >= _settle(facts)
    return loose and settled and facts.at - last >= SAMPLE_S and _in_force(probe, facts)


def _taken(probe: Probe, facts: Facts) -> bool:
    """True when the last tick's writes were taken, though memory may still be on its way down."""
    if probe.memory_high_bytes is not None:
        return math.isfinite(rungs.memory_high_now(facts, probe.suspect.cgroup))
    return _in_force(probe, facts)


def _in_force(probe: Probe, facts: Facts) -> bool:
    """True when the suspect is held as was decided."""
    if probe.memory_high_bytes is not None:
        return rungs.memory_high_now(facts, probe.suspect.cgroup) <= TAKEN_RATIO * probe.memory_high_bytes
    if probe.cap_cores is None:
        return rungs.is_idle(facts, probe.suspect.cgroup)
    return rungs.quota_now(facts, probe.suspect.cgroup) <= TAKEN_RATIO * probe.cap_cores


def _settle(facts: Facts) -> float:
    return min(SETTLE_S, facts.rules.trial_s / 4)


def _enough(probe: Probe, policy: InterferencePolicy) -> bool:
    seen = probe.excess
    return len(seen) >= LEAST and seen[-1][0] - seen[0][0] >= policy.trial_s / 4


def _latest(probe: Probe, facts: Facts) -> float:
    return probe.trial.began + LONGEST * facts.rules.trial_s


def _stopped(probe: Probe, facts: Facts) -> str:
    spec = facts.spec(probe.suspect.uid, probe.inode)
    if spec is None:
        return f"{probe.suspect.name} is gone"
    return facts.idle_because or facts.why_not(spec)


def _use(probe: Probe, rates: PodRates, facts: Facts) -> float | None:
    """What the suspect uses of what is bounded; of memory only once the bound is there."""
    if probe.memory_high_bytes is None:
        return rates.cores
    return rates.pod.reading.memory_bytes if _in_force(probe, facts) else None


def _used(probe: Probe) -> bool:
    """True where the bound, not the suspect itself, may be why it used no more."""
    least = None if probe.cap_cores is None else USED_RATIO * probe.cap_cores
    if probe.memory_high_bytes is not None:
        least = FULL_RATIO * probe.memory_high_bytes
    if least is None or not probe.used:
        return True
    return sum(x for _, x in probe.used) / len(probe.used) >= least
