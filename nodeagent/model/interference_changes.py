"""What became of interference between two ticks, for all who tell of it or count it: log, metrics, gRPC.

Invariant: each thing that happened is in one pair of consecutive ticks alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from nodeagent.model.decision import Tick
from nodeagent.model.interference import Episode, Rejection, Restraint, Trial, TrialResult


def episodes(tick: Tick | None) -> dict[str, Episode]:
    """By id, with those that were cleared in this tick."""
    return {each.id: each for each in tick.decision.interference.episodes} if tick else {}


def opened(before: Tick | None, now: Tick) -> Iterator[Episode]:
    """Those that were not there before."""
    old = episodes(before)
    return (each for each in episodes(now).values() if each.id not in old)


def closed(before: Tick | None, now: Tick) -> Iterator[Episode]:
    """Those that were cleared in this tick; and those that are not followed any more, cleared or not."""
    old, new = episodes(before), episodes(now)
    for each in new.values():
        told = each.id in old and old[each.id].cleared_unix is not None
        if each.cleared_unix is not None and not told:
            yield each
    for was in old.values():
        if was.cleared_unix is None and was.id not in new:
            yield replace(was, cleared_unix=now.snapshot.unix)


def tried(before: Tick | None, now: Tick) -> Iterator[Trial]:
    """Trials that ended."""
    old = episodes(before)
    for each in episodes(now).values():
        was = {(t.uid, t.began): t for t in old[each.id].trials} if each.id in old else {}
        for trial in each.trials:
            earlier = was.get((trial.uid, trial.began))
            running = earlier is None or earlier.result is TrialResult.RUNNING
            if running and trial.result is not TrialResult.RUNNING:
                yield trial


def rejected(before: Tick | None, now: Tick) -> Iterator[tuple[str, Rejection]]:
    """(uid, rejection) for each alarm that this gate did not stop a tick ago."""
    told = {_key(uid, each) for uid, each in _rejections(before)}
    return ((uid, each) for uid, each in _rejections(now) if _key(uid, each) not in told)


def _rejections(tick: Tick | None) -> Iterator[tuple[str, Rejection]]:
    for verdict in tick.decision.interference.verdicts if tick else ():
        for each in verdict.rejections:
            yield verdict.uid, each


def _key(uid: str, of: Rejection) -> tuple[str, str, str]:
    return uid, of.alarm.sign, of.gate.value


def released(before: Tick | None, now: Tick) -> Iterator[Restraint]:
    """Restraints of the tick before whose pod lives and is held for nobody any more."""
    old = before.decision.interference.restraints if before else ()
    if not old:
        return
    still = {each.uid for each in now.decision.interference.restraints}
    alive = {pod.spec.uid for pod in now.snapshot.pods}
    for each in old:
        if each.uid not in still and each.uid in alive:
            yield each
