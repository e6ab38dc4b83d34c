"""What is in force in this tick: one restraint for each pod, the harshest of what its victims need.

Invariant: none is of a pod that works online, and each ends by itself within one lease.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from msgspec.structs import replace

from nodeagent.core.interference.facts import Facts
from nodeagent.core.interference.trial import HARD_S
from nodeagent.model.course import Case, Course, Held, Probe
from nodeagent.model.cpuset import union
from nodeagent.model.interference import Restraint, Rung
from nodeagent.model.symptom import Channel

Number = TypeVar("Number", int, float)
IO_WEIGHT = 0.01  # the smallest on cgroup v2 (io.weight 1 of 100)


def restraints(course: Course, facts: Facts) -> tuple[Restraint, ...]:
    """Complete, ordered by cgroup."""
    merged: dict[str, Restraint] = {}
    for restraint in _each(course, facts):
        known = merged.get(restraint.cgroup)
        merged[restraint.cgroup] = restraint if known is None else _harshest(known, restraint)
    return tuple(merged[cgroup] for cgroup in sorted(merged))


def directed(course: Course, facts: Facts) -> tuple[str, ...]:
    """Victims for whose sake somebody is held. Where one waits far too long all the same, all Batch pays."""
    found = (case for case in course.cases.values() if case.probe is not None or any(map(_bites, case.held)))
    return tuple(sorted(case.uid for case in found if not _too_hard(case, facts)))


def _each(course: Course, facts: Facts) -> Iterator[Restraint]:
    for case in course.cases.values():
        if case.probe is not None and case.episode is not None:
            yield _on_trial(case.probe, case.episode.id, case.episode.channel, facts)
        for held in case.held:
            yield _of(held, _name(case, facts))


def _of(held: Held, victim: str) -> Restraint:
    touches_io = held.channel is Channel.IO and Rung.IDLE in held.rungs
    return Restraint(
        uid=held.uid,
        cgroup=held.cgroup,
        rung=max(held.rungs),
        episode=held.episode,
        until=held.until,
        why=f"{victim} suffers ({held.channel.value}): {held.why}",
        idle=Rung.IDLE in held.rungs,
        quota_cores=held.quota_cores if Rung.QUOTA in held.rungs else None,
        away_from=held.away_from,
        memory_high_bytes=held.memory_high_bytes,
        io_weight=IO_WEIGHT if touches_io else None,
        llc_floor=held.channel is Channel.LLC and Rung.SHRINK in held.rungs,
        frozen=held.frozen,
    )


def _on_trial(probe: Probe, episode: str, channel: Channel, facts: Facts) -> Restraint:
    return Restraint(
        uid=probe.suspect.uid,
        cgroup=probe.suspect.cgroup,
        rung=probe.rung,
        episode=episode,
        until=facts.at + facts.rules.lease_s,
        why=f"on trial for {facts.rules.trial_s:g} s ({channel.value})",
        idle=probe.rung is Rung.IDLE,
        quota_cores=probe.cap_cores,
        memory_high_bytes=probe.memory_high_bytes,
        withheld_cores=probe.withheld_cores,
    )


def _harshest(a: Restraint, b: Restraint) -> Restraint:
    first, other = (a, b) if (a.rung, a.episode) >= (b.rung, b.episode) else (b, a)
    return replace(
        first,
        until=max(a.until, b.until),
        idle=a.idle or b.idle,
        quota_cores=_least((a.quota_cores, b.quota_cores)),
        away_from=union(a.away_from, b.away_from),
        memory_high_bytes=_least((a.memory_high_bytes, b.memory_high_bytes)),
        io_weight=_least((first.io_weight, other.io_weight)),
        llc_floor=a.llc_floor or b.llc_floor,
        frozen=a.frozen or b.frozen,
        withheld_cores=a.withheld_cores + b.withheld_cores,
    )


def _least(values: Iterable[Number | None]) -> Number | None:
    return min((v for v in values if v is not None), default=None)


def _name(case: Case, facts: Facts) -> str:
    rates = facts.pods.get(case.uid)
    return case.uid if rates is None else rates.pod.spec.name


def _bites(held: Held) -> bool:
    return held.rungs != (Rung.IDLE,)


def _too_hard(case: Case, facts: Facts) -> bool:
    return case.hard_since is not None and facts.at - case.hard_since >= HARD_S
