"""The ladder: who is held for a victim goes a step up while it suffers, and a step down when it is calm.

Multiplicative decrease, additive increase of the quota; other steps one by one, the last given back first.
Invariant: without a sight of the victim nothing is loosened; a lease that was not renewed in time has ended.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from nodeagent.core.interference import patience, rungs
from nodeagent.core.interference.facts import Facts
from nodeagent.core.interference.trial import BLIND_S
from nodeagent.model.course import Case, Course, Held, Probe
from nodeagent.model.interference import Rung, State
from nodeagent.model.symptom import Channel

CUT = 0.5  # of the quota, with each step
RECOVER_S = 5.0  # between two additions to a quota
RECOVER_CORES, RECOVER_RATIO = 0.1, 0.05  # the larger of both; the second of all that Batch may have
URGENT_S = 2.0  # between two steps in dire need, as long as they are small ones
SUSPICIOUS_FACTOR = 2.0  # of the patience, while the victim is neither calm nor confirmed
NO_STEPS = "who is held has had its steps for 10 minutes"
LAST_STEP = "who is held is held as much as may be"
_FURTHER = (Rung.QUOTA, Rung.SHRINK)  # these are taken again and again
FROZEN_S = 1.0  # on and off in turns
FAR_APART_S = 10.0  # ticks that are so far apart freeze nobody


class Turn(Struct, frozen=True, gc=False):
    """What came of one tick: held or not, the course with its counts, the step and its reason ("": none)."""

    held: Held | None
    course: Course
    rung: Rung = Rung.FREE
    why: str = ""


def kept(probe: Probe, case: Case, facts: Facts, why: str, *, proven: bool) -> Held | None:
    """What a trial leaves in force."""
    if case.episode is None:
        return None
    channel = case.episode.channel
    rung = probe.rung
    idle = (Rung.IDLE,) if rung is not Rung.IDLE and Rung.IDLE in rungs.LADDERS[channel] else ()
    return Held(
        uid=probe.suspect.uid,
        name=probe.suspect.name,
        cgroup=probe.suspect.cgroup,
        inode=probe.inode,
        rungs=(*idle, rung),
        episode=case.episode.id,
        channel=channel,
        until=facts.at + facts.rules.lease_s,
        stepped_at=facts.at,
        why=why,
        proven=proven,
        quota_cores=probe.cap_cores,
        memory_high_bytes=probe.memory_high_bytes,
    )


def turned(
    held: Held, case: Case, facts: Facts, course: Course, *, may_rise: bool, may_fall: bool, urgent: bool
) -> Turn:
    """One tick of it. `urgent`: the victim is so badly off that small steps are skipped."""
    gone = _ended(held, facts)
    if gone:
        return Turn(None, patience.let_go(course, case.uid, held), Rung.FREE, gone)
    held = _pulsed(replace(held, until=facts.at + facts.rules.lease_s), facts)
    state = facts.state(case.uid)
    if not held.proven and state is not State.UNKNOWN:
        return Turn(None, course, Rung.FREE, "seen again, and nothing is proven")
    if state is State.UNKNOWN:
        return _blind(held, case, facts, course)
    if state is State.CONFIRMED:
        due = held.relaxing or facts.at - held.stepped_at >= _dwell_s(held.rungs[-1], urgent)
        return _up(held, case, facts, course, urgent) if due and (may_rise or urgent) else Turn(held, course)
    return _down(held, case, facts, course) if may_fall else Turn(held, course)


def said(held: Held) -> str:
    """What it is held to, for people."""
    parts = {
        Rung.IDLE: "idle",
        Rung.QUOTA: f"{held.quota_cores or 0.0:.2f} cores",
        Rung.CPUSET: f"away from CPUs {held.away_from}",
        Rung.SHRINK: "smallest share of the cache"
        if held.memory_high_bytes is None
        else f"{held.memory_high_bytes >> 20} MiB",
        Rung.FREEZE: "frozen in turns",
    }
    return ", ".join(parts[rung] for rung in held.rungs if rung in parts) or "free"


def _ended(held: Held, facts: Facts) -> str:
    spec = facts.spec(held.uid, held.inode)
    if spec is None:
        return "it is gone"
    if facts.at > held.until:
        return "its lease ended"
    return facts.idle_because or facts.why_not(spec)


def _dwell_s(last: Rung, urgent: bool) -> float:
    return URGENT_S if urgent and last <= Rung.QUOTA else patience.DWELL_S[last]


def _up(held: Held, case: Case, facts: Facts, course: Course, urgent: bool) -> Turn:
    if not patience.may_step(course, held.uid, facts.rules):
        return Turn(replace(held, stuck=NO_STEPS), course)
    if case.episode is not None:
        held = replace(held, episode=case.episode.id, channel=case.episode.channel)
    after = _harsher(held, case, facts, urgent)
    if held.relaxing:
        course = patience.relapsed(course, held.uid)
    if after is not None:
        after = replace(after, stepped_at=facts.at, relaxing=False, growing=False, stuck="")
        return Turn(after, patience.stepped(course, held.uid), after.rungs[-1], said(after))
    held = replace(held, relaxing=False, growing=False)
    evict = rungs.may(facts, Rung.EVICT, held.channel) and Rung.EVICT in rungs.LADDERS[held.channel]
    if evict and not held.asked_to_evict:
        after = replace(held, asked_to_evict=True, stepped_at=facts.at)
        return Turn(after, course, Rung.EVICT, "nothing gentler is left: to be evicted")
    return Turn(replace(held, stuck=LAST_STEP), course)


def _harsher(held: Held, case: Case, facts: Facts, urgent: bool) -> Held | None:
    """The lowest step that is not taken yet, or that can be taken further."""
    back = _as_it_was_calm(held, facts)
    if back is not None:
        return back
    ladder = rungs.LADDERS[held.channel]
    jump = (Rung.SHRINK,) if urgent and Rung.SHRINK in ladder and Rung.SHRINK not in held.rungs else ()
    steps = (_with(held, rung, case, facts, urgent) for rung in (*jump, *ladder))
    return next((step for step in steps if step is not None), None)


def _as_it_was_calm(held: Held, facts: Facts) -> Held | None:
    """After its quota was raised in vain: with the one at which all was well."""
    if not held.relaxing or held.calm_cores is None or held.frozen:
        return None
    if Rung.QUOTA not in held.rungs and facts.rules.top_rung < Rung.QUOTA:
        return None
    taken = held.rungs if Rung.QUOTA in held.rungs else (*held.rungs, Rung.QUOTA)
    return replace(held, rungs=taken, quota_cores=held.calm_cores, calm_cores=None)


def _with(held: Held, rung: Rung, case: Case, facts: Facts, urgent: bool = False) -> Held | None:
    """The same with this step, or one more of it; None where it cannot be taken."""
    if not rungs.may(facts, rung, held.channel) or (rung in held.rungs and rung not in _FURTHER):
        return None
    after = held if rung in held.rungs else replace(held, rungs=(*held.rungs, rung))
    if rung is Rung.EVICT or rungs.lacks(facts, rung, held.cgroup):
        return None
    if rung is Rung.IDLE:
        return None if rungs.is_idle(facts, held.cgroup) else after
    if rung is Rung.QUOTA:
        cut = _cut(held, facts, urgent)
        return None if cut is None else replace(after, quota_cores=cut)
    if rung is Rung.CPUSET:
        victim = facts.pods[case.uid].pod.spec.cgroup
        away = rungs.away_from(facts, victim, held.cgroup, held.channel)
        return replace(after, away_from=away) if away else None
    if rung is Rung.SHRINK and held.channel is not Channel.LLC:
        lower = rungs.memory_step(facts, held.uid, held.memory_high_bytes)
        return None if lower is None else replace(after, memory_high_bytes=lower)
    return None if after is held else after


def _cut(held: Held, facts: Facts, urgent: bool) -> float | None:
    """The next lower quota, in dire need the lowest; of what it uses, if it has none of ours."""
    rates = facts.pods[held.uid]
    floor = rungs.quota_floor(facts, rates.pod.spec)
    if not rungs.has_quota(facts, held.cgroup):
        return None
    last = rates.cores if held.quota_cores is None else held.quota_cores
    if last is None or (held.quota_cores is not None and last <= floor):
        return None
    return floor if urgent else max(floor, CUT * last)


def _down(held: Held, case: Case, facts: Facts, course: Course) -> Turn:
    asked_s = patience.relax_s(course, held, facts.rules)
    if facts.state(case.uid) is not State.CALM:
        asked_s *= SUSPICIOUS_FACTOR
    quiet_since = max(held.stepped_at, case.bad_at or held.stepped_at)
    if facts.at - quiet_since < (RECOVER_S if held.growing else asked_s):
        return Turn(held, course)
    after = _grown(held, facts) if held.rungs[-1] is Rung.QUOTA else None
    if after is not None and held.growing:
        return Turn(after, course)  # one step down, in parts
    if not patience.may_step(course, held.uid, facts.rules):
        return Turn(held, course)
    course = patience.stepped(course, held.uid)
    after = _without_last(held, facts) if after is None else after
    if not after.rungs:
        return Turn(None, patience.let_go(course, case.uid, held), Rung.FREE, "calm: let go")
    return Turn(after, course, after.rungs[-1], f"calm: {said(after)}")


def _grown(held: Held, facts: Facts) -> Held | None:
    """With more quota; None when that would bound it no longer."""
    total = float(facts.view.snapshot.topology.cores)
    full = min(total, total if facts.limit_cores is None else facts.limit_cores)
    more = (held.quota_cores or 0.0) + max(RECOVER_CORES, RECOVER_RATIO * full)
    if more >= full:
        return None
    calm_cores = held.calm_cores if held.growing else held.quota_cores
    return replace(
        held, quota_cores=more, relaxing=True, growing=True, stepped_at=facts.at, calm_cores=calm_cores
    )


def _without_last(held: Held, facts: Facts) -> Held:
    last, left = held.rungs[-1], held.rungs[:-1]
    return replace(
        held,
        rungs=left,
        quota_cores=None if last is Rung.QUOTA else held.quota_cores,
        memory_high_bytes=None if last is Rung.SHRINK else held.memory_high_bytes,
        away_from="" if last is Rung.CPUSET else held.away_from,
        frozen=held.frozen and last is not Rung.FREEZE,
        relaxing=True,
        growing=False,
        stepped_at=facts.at,
    )


def _blind(held: Held, case: Case, facts: Facts, course: Course) -> Turn:
    """Held as it is; what was given back is taken again after a while: no sight is no proof of health."""
    since = case.blind_since
    capped = not held.relaxing and any(rung in held.rungs for rung in _FURTHER)
    if since is None or facts.at - since < BLIND_S or capped:
        return Turn(held, course)
    if not patience.may_step(course, held.uid, facts.rules):
        return Turn(replace(held, stuck=NO_STEPS), course)
    after = _with(held, Rung.QUOTA, case, facts)
    if after is None:
        return Turn(replace(held, relaxing=False, growing=False), course)
    after = replace(after, relaxing=False, growing=False, stepped_at=facts.at)
    return Turn(after, patience.stepped(course, held.uid), Rung.QUOTA, f"not seen: {said(after)}")


def _pulsed(held: Held, facts: Facts) -> Held:
    """Frozen and running in turns, never frozen for long, and not at all where ticks are far apart."""
    if Rung.FREEZE not in held.rungs or (facts.view.dt_s or 0.0) > FAR_APART_S:
        return replace(held, frozen=False, turned_at=None) if held.frozen else held
    if held.turned_at is not None and facts.at - held.turned_at < FROZEN_S:
        return held
    return replace(held, frozen=not held.frozen, turned_at=facts.at)
