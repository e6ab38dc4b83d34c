"""The course of interference: each victim's case goes one tick further, one trial at a time on the node.

    verdicts, values -> seen -> opened -> ranked -> trial ends -> steps up or down -> trial begins -> cleared

While a trial runs nothing else is loosened or tightened, unless a victim is in dire need: else it would prove
nothing. Invariant: same in, same out; who is not named is never restrained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec.structs import replace

from nodeagent.core.interference import dire, episodes, patience, restraints, steps
from nodeagent.core.interference.facts import Facts
from nodeagent.model.course import Case, Course
from nodeagent.model.interference import (
    Episode,
    Interference,
    State,
    Suspect,
    TrialResult,
    Verdict,
)

Rank = Callable[[Verdict], tuple[Suspect, ...]]

RANK_GAP_S = 3.0  # between two rankings for one victim
MOST_RANKED = 4  # in one tick
MOST_CASES = 64
MOST_VERDICTS = 64
REGIME_S = 3600.0


def advance(facts: Facts, rank: Rank, course: Course) -> tuple[Interference, Course]:
    """One tick of everything. `rank` gives the suspects of a confirmed verdict, best first."""
    course = _current(course, facts)
    course, ended = _left(course, facts)
    course = replace(course, cases={uid: _seen(case, facts) for uid, case in _cases(course, facts).items()})
    course = _ranked(course, facts, rank)
    course = steps.taken(course, facts)
    course, cleared = _cleared(course, facts)
    told = Interference(
        verdicts=worth_telling(facts.verdicts.values()),
        episodes=(*ended, *cleared, *(c.episode for c in course.cases.values() if c.episode is not None)),
        restraints=restraints.restraints(course, facts),
        directed=restraints.directed(course, facts),
    )
    return told, course


def victims(course: Course, at: float) -> frozenset[str]:
    """Whose signals are not ordinary now: they have an open episode, or somebody is held for them.

    After an hour in which nobody was named, what has become of a pod is what is ordinary for it.
    """
    return frozenset(uid for uid, case in course.cases.items() if case.held or _unsettled(case, at))


def _unsettled(case: Case, at: float) -> bool:
    episode = case.episode
    if episode is None:
        return False
    return at - episode.opened_at < REGIME_S or any(s.named for s in episode.suspects)


def _current(course: Course, facts: Facts) -> Course:
    """As of now; what was before a reboot, or a clock that went back, is nothing to go on with."""
    boot_id = facts.view.snapshot.boot_id
    if course.boot_id != boot_id or facts.at < course.at:
        return Course(boot_id, facts.at)
    return patience.pruned(replace(course, at=facts.at))


def _left(course: Course, facts: Facts) -> tuple[Course, tuple[Episode, ...]]:
    """Without the victims that are gone; their troubles end with them."""
    gone = [c for c in course.cases.values() if facts.spec(c.uid, c.inode) is None]
    ended = tuple(e for e in (episodes.cleared(_cut_short(c), facts) for c in gone) if e is not None)
    for case in gone:
        for held in case.held:
            course = patience.let_go(course, case.uid, held)
    left = {uid: c for uid, c in course.cases.items() if c not in gone}
    return replace(course, cases=left), ended


def _cut_short(case: Case) -> Case:
    if case.probe is None or case.episode is None:
        return case
    trial = replace(case.probe.trial, result=TrialResult.CUT_SHORT)
    return replace(case, probe=None, calm_since=None, episode=episodes.tried(case.episode, trial))


def _cases(course: Course, facts: Facts) -> dict[str, Case]:
    """Those of before, and one for each pod with an alarm, the worst first while there is room."""
    cases = dict(course.cases)
    alarmed = (v for v in facts.verdicts.values() if v.alarms and v.state is not State.CALM)
    new = sorted((v for v in alarmed if v.uid not in cases), key=lambda v: (-v.evidence, v.uid))
    for verdict in new[: max(0, MOST_CASES - len(cases))]:
        rates = facts.pods.get(verdict.uid)
        if rates is not None and rates.pod.spec.online:
            cases[verdict.uid] = Case(uid=verdict.uid, inode=rates.pod.spec.inode)
    return cases


def _seen(case: Case, facts: Facts) -> Case:
    return dire.felt(episodes.seen(case, facts), facts)


def _ranked(course: Course, facts: Facts, rank: Rank) -> Course:
    """With episodes opened, and the suspects of those that are due: the longest not asked first."""
    cases = dict(course.cases)
    room = episodes.MOST_OPEN - sum(case.episode is not None for case in cases.values())
    for case in sorted(cases.values(), key=lambda c: (-_evidence(c, facts), c.uid)):
        after = episodes.opened(case, facts) if case.episode is not None or room > 0 else case
        room -= case.episode is None and after.episode is not None
        cases[case.uid] = after
    due = [case for case in cases.values() if _due(case, facts)]
    for case in sorted(due, key=lambda c: (c.ranked_at or 0.0, c.uid))[:MOST_RANKED]:
        if case.episode is not None:
            found = rank(facts.verdicts[case.uid])
            episode = episodes.ranked(case.episode, found) if _newer(case, found) else case.episode
            cases[case.uid] = replace(case, episode=episode, ranked_at=facts.at)
    return replace(course, cases=cases)


def _due(case: Case, facts: Facts) -> bool:
    if case.episode is None or case.probe is not None or facts.state(case.uid) is not State.CONFIRMED:
        return False
    return case.ranked_at is None or facts.at - case.ranked_at >= RANK_GAP_S


def _newer(case: Case, found: Iterable[Suspect]) -> bool:
    """Who is held does not stand out any more: that nobody does now is no news."""
    return any(s.named for s in found) or not case.held


def _evidence(case: Case, facts: Facts) -> float:
    verdict = facts.verdicts.get(case.uid)
    return 0.0 if verdict is None else verdict.evidence


def _cleared(course: Course, facts: Facts) -> tuple[Course, tuple[Episode, ...]]:
    """Without the troubles that are over, and without the cases of which nothing is left."""
    cases, ended = {}, []
    for uid, case in course.cases.items():
        over = episodes.is_over(case, facts)
        last = episodes.cleared(case, facts) if over else None
        ended += [last] if last is not None else []
        left = replace(case, episode=None, samples=()) if over else case
        if not over or left.held:
            cases[uid] = left
    return replace(course, cases=cases), tuple(ended)


def worth_telling(verdicts: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """Those that are not calm, or that a gate has made so; the worst first."""
    order = {State.CONFIRMED: 0, State.SUSPECT: 1, State.UNKNOWN: 2, State.CALM: 3}
    found = [v for v in verdicts if v.state is not State.CALM or v.rejections]
    return tuple(sorted(found, key=lambda v: (order[v.state], -v.evidence, v.uid))[:MOST_VERDICTS])
