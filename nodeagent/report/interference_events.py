"""What became of interference between two ticks: one event at open, at each change, at close, at release.

Rejected alarms are for those who debug. Invariant: what stays as it was is not told again.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from nodeagent.model.decision import Tick
from nodeagent.model.interference import Action, Episode, Rung, State, Trial, TrialResult
from nodeagent.model.interference_changes import closed, episodes, rejected, released
from nodeagent.model.interference_told import (
    antagonists,
    done,
    evidence,
    named,
    recovered_s,
    restrained,
    score,
    shown,
    step,
    story,
    worst,
)
from nodeagent.report.event import Event, Value, gist

MOST_SIGNS = 3
MOST_SUSPECTS = 3
TROUBLE = (State.SUSPECT, State.CONFIRMED)


def interference_events(before: Tick | None, now: Tick) -> Iterator[Event]:
    """Episodes that opened, changed and closed; then the alarms that a gate has begun to stop."""
    old = episodes(before)
    for new in episodes(now).values():
        was = old.get(new.id)
        if was == new:
            continue
        if was is None:
            yield _opened(new)
        yield from _changed(was or _unsaid(new), new, now)
    for ended in closed(before, now):
        yield _closed(ended, now)
    names = {p.spec.uid: p.spec.name for p in now.snapshot.pods}
    for held in released(before, now):
        if not _told_free(held.uid, now):
            free: dict[str, Value] = {"pod": names.get(held.uid, held.uid), "id": held.episode}
            yield Event("info", "interference.released", {**free, "was": restrained(held), "why": held.why})
    for uid, each in rejected(before, now):
        keys: dict[str, Value] = {"victim": names.get(uid, uid), "gate": each.gate.value}
        yield Event(
            "debug", "interference.rejected", {**keys, "evidence": evidence(each.alarm), "why": each.why}
        )


def _told_free(uid: str, now: Tick) -> bool:
    """True when a step of this tick says that it is let go."""
    steps = (a for each in episodes(now).values() for a in each.actions if a.unix == now.snapshot.unix)
    return any(a.uid == uid and a.rung is Rung.FREE for a in steps)


def _unsaid(new: Episode) -> Episode:
    """The same as it was opened: nobody suspected, nothing done."""
    return replace(new, suspects=(), trials=(), actions=(), held="")


def _about(episode: Episode) -> dict[str, Value]:
    return {"victim": episode.victim_name, "id": episode.id, "resource": episode.channel.value}


def _signs(episode: Episode) -> str:
    return ", ".join(map(evidence, worst(episode.evidence)[:MOST_SIGNS]))


def _level(state: State) -> str:
    return "warning" if state is State.CONFIRMED else "info"


def _opened(new: Episode) -> Event:
    keys = {**_about(new), "state": new.state.value, "cgroup": new.victim_cgroup, "evidence": _signs(new)}
    return Event(_level(new.state), "interference.opened", keys)


def _changed(was: Episode, new: Episode, now: Tick) -> Iterator[Event]:
    """In the order in which they follow from each other."""
    about = _about(new)
    if was.channel is not new.channel:
        keys = {**about, "was": was.channel.value, "evidence": _signs(new)}
        yield Event("info", "interference.resource", keys)
    if was.state is not new.state:
        keys = {**about, "state": new.state.value, "was": was.state.value}
        keys |= {"evidence": _signs(new)} if new.state in TROUBLE else {}
        yield Event(_level(new.state), "interference.state", keys)
    yield from _suspects(was, new)
    yield from _trials(was, new, now)
    for action in new.actions[_common(was.actions, new.actions) :]:
        yield _step(action, new, now)
    if gist(was.held) != gist(new.held) and new.cleared_unix is None:
        name = "interference.held" if new.held else "interference.resumed"
        yield Event("warning" if new.held else "info", name, {**about, "why": new.held or was.held})


def _common(old: tuple[Action, ...], new: tuple[Action, ...]) -> int:
    """Where those begin that were not told; the oldest may have been dropped since."""
    last = old[-1] if old else None
    return next((at + 1 for at in range(len(new) - 1, -1, -1) if new[at] == last), 0)


def _suspects(was: Episode, new: Episode) -> Iterator[Event]:
    """Who is named is news; who leads without being named is for those who debug."""
    old, now = ([s.uid for s in each.suspects if s.named] for each in (was, new))
    first = [each.suspects[0].uid if each.suspects else "" for each in (was, new)]
    if set(old) == set(now) and first[0] == first[1]:
        return
    ranked = ", ".join(map(score, new.suspects[:MOST_SUSPECTS])) or "none"
    keys = {**_about(new), "antagonist": named(new, now) or "nobody", "suspects": ranked}
    yield Event("info" if set(old) != set(now) else "debug", "interference.suspects", keys)


def _trials(was: Episode, new: Episode, now: Tick) -> Iterator[Event]:
    old = {(t.uid, t.began): t.result for t in was.trials}
    for trial in new.trials:
        before = old.get((trial.uid, trial.began))
        if before is trial.result:
            continue
        keys = {**_about(new), "suspect": _name(new, trial.uid, now)}
        if before is None:
            lasts_s = round(trial.until - trial.began, 1)
            yield Event("info", "interference.trial_began", {**keys, "lasts_s": lasts_s})
        if trial.result is not TrialResult.RUNNING:
            yield Event("info", "interference.trial_ended", {**keys, **_outcome(trial)})


def _outcome(trial: Trial) -> dict[str, Value]:
    """What the trial has shown: how far the victim's sign was above what is usual."""
    keys: dict[str, Value] = {"result": trial.result.value}
    if trial.during is not None:
        before, during = shown(trial.sign, trial.before), shown(trial.sign, trial.during)
        keys |= {"sign": trial.sign, "above_before": before, "above_during": during}
    return keys


def _step(action: Action, episode: Episode, now: Tick) -> Event:
    keys = {**_about(episode), "antagonist": _name(episode, action.uid, now), "step": step(action.rung)}
    if action.rung is not Rung.EVICT:
        return Event("info", "interference.step", {**keys, "why": action.why})
    return Event("warning", "interference.evict_wanted", {**keys, "uid": action.uid, "why": action.why})


def _closed(episode: Episode, now: Tick) -> Event:
    keys = _about(episode)
    keys["lasted_s"] = round((episode.cleared_unix or now.snapshot.unix) - episode.opened_unix, 1)
    who, took_s = antagonists(episode), recovered_s(episode)
    if who:
        keys["antagonist"] = named(episode, who)
    if done(episode):
        keys["done"] = done(episode)
    if took_s is not None:
        keys["recovered_s"] = round(took_s, 1)
    return Event("info", "interference.closed", {**keys, "story": story(episode)})


def _name(episode: Episode, uid: str, now: Tick) -> str:
    names = {p.spec.uid: p.spec.name for p in now.snapshot.pods} | {s.uid: s.name for s in episode.suspects}
    return names.get(uid, uid)
