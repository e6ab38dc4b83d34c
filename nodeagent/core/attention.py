"""Which pods are to be read wholly in the next tick: those in trouble, and those who may be its cause.

Invariant: without trouble none is, and there are never more than MOST of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nodeagent.model.interference import Interference, State
from nodeagent.model.snapshot import Pod
from nodeagent.model.symptom import Channel

MOST = 64
_ALARMED = (State.SUSPECT, State.CONFIRMED)


def attended(now: Interference, pods: Iterable[Pod]) -> frozenset[str]:
    """uids of victims, suspects and restrained pods; and of all Batch where its use of something else than
    CPU will be compared (that of CPU is read in each tick anyway)."""
    if not now.episodes and not any(v.state in _ALARMED for v in now.verdicts):
        return frozenset()
    found: dict[str, None] = {}  # in order of importance, each once
    for uid in _named(now):
        if len(found) >= MOST:
            break
        found[uid] = None
    if any(channel is not Channel.CPU for channel in _channels(now)):
        batch = (pod.spec.uid for pod in pods if not pod.spec.online and pod.spec.uid not in found)
        found.update(dict.fromkeys(uid for uid, _ in zip(batch, range(MOST - len(found)), strict=False)))
    return frozenset(found)


def _named(now: Interference) -> Iterator[str]:
    yield from (episode.victim for episode in now.episodes)
    yield from (verdict.uid for verdict in now.verdicts if verdict.state in _ALARMED)
    yield from (restraint.uid for restraint in now.restraints)
    for episode in now.episodes:
        yield from (suspect.uid for suspect in episode.suspects)


def _channels(now: Interference) -> Iterator[Channel]:
    yield from (episode.channel for episode in now.episodes)
    yield from (v.channel for v in now.verdicts if v.state in _ALARMED and v.channel is not None)
