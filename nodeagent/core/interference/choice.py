"""Who is tried next: of those named beyond chance, who hurts the most victims most and was not tried in vain.

Invariant: nobody is tried who was not named, works online, is out of scope, or has had its steps.
"""

from __future__ import annotations

from msgspec import Struct

from nodeagent.core.interference import patience, rungs
from nodeagent.core.interference.facts import Facts
from nodeagent.model.course import Case, Course
from nodeagent.model.interference import Rung, Suspect

SKIP_S = 1800.0  # after a trial that proved nothing against it
QUIET_CORES = 0.03  # who uses less has nothing to be taken away
QUIET = "quiet now"  # it may be tried in a moment
NOBODY = "nobody is named: no suspect stands out beyond chance"


class Choice(Struct, frozen=True, gc=False):
    """The suspect to be tried and how strongly it is suspected, or why there is none."""

    suspect: Suspect | None = None
    points: float = 0.0
    why_not: str = ""


def choice(case: Case, facts: Facts, course: Course) -> Choice:
    """For one victim with an open episode."""
    suspects = case.episode.suspects if case.episode is not None else ()
    named = [s for s in suspects if s.named] or _proven(case, course)
    held = {h.uid for h in case.held}
    reasons = [(s, _why_not(s, case, facts, course)) for s in named if s.uid not in held]
    able = [s for s, why in reasons if not why]
    if able:
        points = {s.uid: _points(place, s, case, course) for place, s in enumerate(able)}
        best = max(able, key=lambda s: (points[s.uid], -able.index(s)))
        return Choice(best, points[best.uid])
    if not named:
        return Choice(why_not=NOBODY)
    return Choice(why_not="; ".join(dict.fromkeys(why for _, why in reasons if why != QUIET)))


def doubted(course: Course, victim: str, suspect: str) -> bool:
    """True while the suspect is not tried again for this victim."""
    return any(
        (d.victim, d.suspect) == (victim, suspect) and course.at - d.at < SKIP_S for d in course.doubts
    )


def _proven(case: Case, course: Course) -> list[Suspect]:
    """Who was named and proven for this victim not long ago, the last first.

    After long trouble nobody stands out, since there is little calm to compare with.
    """
    return [p.suspect for p in reversed(course.proofs) if p.victim == case.uid]


def _why_not(suspect: Suspect, case: Case, facts: Facts, course: Course) -> str:
    rates = facts.pods.get(suspect.uid)
    if rates is None:
        return f"{suspect.name} is no pod that is here"
    never = facts.why_not(rates.pod.spec)
    if never:
        return never
    if not rungs.has_quota(facts, suspect.cgroup):
        return f"no CPU quota of {suspect.name} can be set here"
    if facts.rules.top_rung < Rung.QUOTA and rungs.is_idle(facts, suspect.cgroup):
        return f"{suspect.name} is idle, and interference.top_rung allows no more"
    if doubted(course, case.uid, suspect.uid):
        return f"{suspect.name} was tried in vain"
    if not patience.may_step(course, suspect.uid, facts.rules):
        return f"{suspect.name} has had its steps for 10 minutes"
    if (rates.cores or 0.0) < QUIET_CORES:
        return QUIET
    return ""


def _points(place: int, suspect: Suspect, case: Case, course: Course) -> float:
    """Its rank for this victim and what it adds to the others' trouble, times the trust in its guilt."""
    others = sum(
        each.contribution
        for other in course.cases.values()
        if other.uid != case.uid and other.episode is not None
        for each in other.episode.suspects
        if each.uid == suspect.uid and each.named
    )
    tried = sum(d.count for d in course.doubts if (d.victim, d.suspect) == (case.uid, suspect.uid))
    return (1.0 / (1 + place) + others) * 0.5**tried
