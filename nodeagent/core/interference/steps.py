"""What is done in one tick: the trial comes to its end, who is held goes up or down, the next trial begins.

Invariant: one trial at a time; while it runs only a victim in dire need makes anything harsher.
"""

from __future__ import annotations

from msgspec.structs import replace

from nodeagent.core.interference import choice, dire, episodes, ladder, patience, trial
from nodeagent.core.interference.choice import Choice
from nodeagent.core.interference.facts import Facts
from nodeagent.core.interference.trial import Ended
from nodeagent.model.course import Case, Course, Probe
from nodeagent.model.interference import Rung, State, TrialResult

MOST_HELD = 5  # for one victim
ELSEWHERE = "another trial is under way"
UNSEEN = "the victim is not seen: what is held stays held"


def taken(course: Course, facts: Facts) -> Course:
    """All of it, for all victims."""
    course = _probed(course, facts)
    choices = {uid: choice.choice(case, facts, course) for uid, case in course.cases.items()}
    course = _turned(course, choices, facts)
    return _told(_begun(course, choices, facts), choices, facts)


def _probed(course: Course, facts: Facts) -> Course:
    """The trial that runs, one tick further."""
    case = next((c for c in course.cases.values() if c.probe is not None), None)
    if case is None or case.probe is None or case.episode is None:
        return course
    probe = trial.watched(case.probe, case, facts)
    end = trial.ended(probe, case, facts)
    if end is None:
        episode = episodes.tried(case.episode, probe.trial)
        return _with(course, replace(case, probe=probe, episode=episode))
    done = replace(probe.trial, until=facts.at, during=end.during, result=end.result)
    case = replace(case, probe=None, episode=episodes.tried(case.episode, done))
    if end.stays:
        return _kept(course, case, probe, facts, end)
    if end.result is TrialResult.UNDONE:
        course = trial.doubted(course, case.uid, probe.suspect.uid)
    why = f"trial {end.result.value}: {end.why}"
    return _with(course, _acted(case, facts, probe.suspect.uid, Rung.FREE, why))


def _kept(course: Course, case: Case, probe: Probe, facts: Facts, end: Ended) -> Course:
    held = ladder.kept(probe, case, facts, end.why, proven=end.result is TrialResult.KEPT)
    if held is None:
        return _with(course, case)
    if patience.came_back(course, held.uid):
        course = patience.relapsed(course, held.uid)
    case = replace(case, held=(*case.held, held))
    return _with(course, _acted(case, facts, held.uid, held.rungs[-1], f"{end.result.value}: {end.why}"))


def _turned(course: Course, choices: dict[str, Choice], facts: Facts) -> Course:
    """Whoever is held goes on, up, or down; up only when nobody else is left to be tried."""
    quiet = all(case.probe is None for case in course.cases.values())
    for uid, case in course.cases.items():
        urgent = dire.urgent(case, facts)
        rise = quiet and choices[uid].suspect is None
        after, left = case, []
        for held in case.held:
            turn = ladder.turned(held, case, facts, course, may_rise=rise, may_fall=quiet, urgent=urgent)
            course = turn.course
            left += [turn.held] if turn.held is not None else []
            if turn.why:
                after = _acted(after, facts, held.uid, turn.rung, turn.why)
        course = _with(course, replace(after, held=tuple(left)))
    return course


def _begun(course: Course, choices: dict[str, Choice], facts: Facts) -> Course:
    """The next trial: for the victim for whom the fewest were made, then for whom it is worst."""
    if facts.idle_because or any(case.probe is not None for case in course.cases.values()):
        return course
    for case in sorted(course.cases.values(), key=lambda c: _urgency(c, facts)):
        suspect = choices[case.uid].suspect
        if suspect is None or case.episode is None or not _may_try(case, facts):
            continue
        probe = trial.begun(case, suspect, facts)
        if probe is None:
            continue
        case = replace(case, probe=probe, episode=episodes.tried(case.episode, probe.trial))  # noqa: PLW2901
        course = patience.stepped(course, suspect.uid)
        return _with(course, _acted(case, facts, suspect.uid, probe.rung, trial.said(probe, facts)))
    return course


def _told(course: Course, choices: dict[str, Choice], facts: Facts) -> Course:
    """Why nothing more is done for a victim, where that is so."""
    on_trial = any(case.probe is not None for case in course.cases.values())
    for uid, case in course.cases.items():
        if case.episode is not None:
            why = _held_because(case, choices[uid], facts, on_trial)
            if why is not None:
                episode = episodes.held_because(case.episode, why)
                course = _with(course, replace(case, episode=episode))
    return course


def _held_because(case: Case, chosen: Choice, facts: Facts, on_trial: bool) -> str | None:
    """None where what was said still holds."""
    state = facts.state(case.uid)
    if facts.idle_because:
        return facts.idle_because
    if state is State.UNKNOWN:
        return UNSEEN
    if case.probe is not None:
        return ""
    if state is not State.CONFIRMED:
        return "" if case.episode is not None and case.episode.held == UNSEEN else None
    if chosen.suspect is not None:
        return ELSEWHERE if on_trial else ""
    if not case.held:
        return chosen.why_not
    stuck = (h.stuck for h in case.held)
    return "; ".join(dict.fromkeys(why for why in stuck if why))


def _may_try(case: Case, facts: Facts) -> bool:
    return facts.state(case.uid) is State.CONFIRMED and len(case.held) < MOST_HELD


def _urgency(case: Case, facts: Facts) -> tuple[int, float, str]:
    verdict = facts.verdicts.get(case.uid)
    trials = 0 if case.episode is None else len(case.episode.trials)
    return trials, -(0.0 if verdict is None else verdict.evidence), case.uid


def _acted(case: Case, facts: Facts, uid: str, rung: Rung, why: str) -> Case:
    """With the step in the record of the trouble that is open; afterwards nobody asks any more."""
    if case.episode is None:
        return case
    return replace(case, episode=episodes.acted(case.episode, facts, uid, rung, why))


def _with(course: Course, case: Case) -> Course:
    return replace(course, cases={**course.cases, case.uid: case})
