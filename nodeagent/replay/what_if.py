"""Deciding recorded ticks by another policy; open loop: the readings are those under the recorded one."""

from __future__ import annotations

from collections.abc import Iterable

from nodeagent.core.decide import decide
from nodeagent.core.limit import LS_PRESSURE
from nodeagent.journal import Segment
from nodeagent.model.decision import Decision, Memory, Tick
from nodeagent.model.policy import Policy
from nodeagent.model.snapshot import Snapshot
from nodeagent.replay.answer import LISTED, Otherwise, Said, Stretch, Totals


class WhatIf:
    """Both policies' totals, and the stretches in which they disagree."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._memory = Memory()
        self._recorded: Memory | None = None  # a new segment's, until its first tick
        self._before: tuple[Decision, Decision] | None = None
        self._seconds = 0.0
        self._then = self._now = Totals()
        self._ticks = self._stretch_count = 0
        self._stretches: list[Stretch] = []
        self._open: tuple[Stretch, int] | None = None  # with its direction for Batch

    def begin(self, segment: Segment) -> None:
        """The next ticks are from this segment."""
        self._recorded = segment.head.memory

    def tick(self, tick: Tick, gap_s: float | None) -> None:
        """Judge one tick; `gap_s` is the time since the one that it follows, None when it follows none."""
        if gap_s is None:
            self._close()
            self._before = None
            if self._recorded is not None:
                self._memory = self._recorded
        self._recorded = None
        fresh, self._memory = decide(tick.snapshot, self._policy, self._memory)
        if gap_s is not None and self._before is not None:
            total = tick.snapshot.topology.cores
            self._seconds += gap_s
            self._then = _add(self._then, self._before[0], tick.decision, gap_s, total)
            self._now = _add(self._now, self._before[1], fresh, gap_s, total)
        self._before = (tick.decision, fresh)
        self._compare(tick.snapshot, tick.decision, fresh)

    def answer(self) -> Otherwise:
        self._close()
        return Otherwise(
            seconds=self._seconds,
            ticks=self._ticks,
            then=self._then,
            now=self._now,
            stretch_count=self._stretch_count,
            stretches=tuple(self._stretches),
        )

    def _compare(self, seen: Snapshot, then: Decision, now: Decision) -> None:
        settings = _settings(then, now)
        said_then, said_now = _said(seen, then), _said(seen, now)
        direction = _direction(said_then.low_cores, said_now.low_cores)
        if not (settings or direction or said_then.hurt != said_now.hurt):
            return self._close()
        self._ticks += 1
        if self._open is not None and self._open[1] != direction:
            self._close()
        first = self._open[0] if self._open is not None else None
        stretch = Stretch(
            first_seq=first.first_seq if first else seen.seq,
            last_seq=seen.seq,
            first_unix=first.first_unix if first else seen.unix,
            last_unix=seen.unix,
            then=_both(first.then, said_then) if first else said_then,
            now=_both(first.now, said_now) if first else said_now,
            settings=max(first.settings, settings) if first else settings,
        )
        self._open = (stretch, direction)
        return None

    def _close(self) -> None:
        if self._open is None:
            return
        self._stretch_count += 1
        if len(self._stretches) < LISTED:
            self._stretches.append(self._open[0])
        self._open = None


def _add(totals: Totals, in_force: Decision, judged: Decision, gap_s: float, total: int) -> Totals:
    """One gap more: the limit of the tick before held through it, the pressure now is that of the gap."""
    given = min(in_force.batch_limit_cores or 0.0, float(total))
    hurt = any(signal.name == LS_PRESSURE for signal in judged.signals)
    return Totals(
        totals.batch_core_s + given * gap_s,
        totals.ls_pressure_s + (gap_s if hurt else 0.0),
        totals.offered_core_s + in_force.capacity.cpu.available * gap_s,
    )


def _settings(then: Decision, now: Decision) -> int:
    """How many knobs would be set otherwise."""
    old = {setting.knob: setting.value for setting in then.plan}
    new = {setting.knob: setting.value for setting in now.plan}
    moved = {knob for knob in old.keys() | new.keys() if old.get(knob) != new.get(knob)}
    return len(moved | (set(then.yielded) ^ set(now.yielded)))


def _said(seen: Snapshot, decision: Decision) -> Said:
    limit = decision.batch_limit_cores
    cores = None if limit is None else min(limit, float(seen.topology.cores))
    names = {pod.spec.uid: pod.spec.name for pod in seen.pods}
    hurt = {names.get(s.subject, s.subject) for s in decision.signals if s.name == LS_PRESSURE}
    return Said(cores, cores, tuple(sorted(hurt)))


def _both(a: Said, b: Said) -> Said:
    return Said(
        min(_known(a.low_cores, b.low_cores), default=None),
        max(_known(a.high_cores, b.high_cores), default=None),
        tuple(sorted({*a.hurt, *b.hurt})),
    )


def _known(*values: float | None) -> Iterable[float]:
    return [value for value in values if value is not None]


def _direction(then: float | None, now: float | None) -> int:
    """1 when Batch gets more now, -1 when less, 0 when the same within 1e-9 core."""
    gain = (now or 0.0) - (then or 0.0)
    return 0 if abs(gain) <= 1e-9 else (1 if gain > 0 else -1)
