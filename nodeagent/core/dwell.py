"""Conditions become signals: rise after, fall after. The only hysteresis on detection there is."""

from __future__ import annotations

from collections.abc import Iterable

from nodeagent.model.decision import Condition, Signal, Spell


def settle(
    now: float, conditions: Iterable[Condition], spells: tuple[Spell, ...], rise_s: float, fall_s: float
) -> tuple[tuple[Signal, ...], tuple[Spell, ...]]:
    """Signals for the conditions that have lasted `rise_s`, kept until `fall_s` after they were last seen."""
    live = {(s.name, s.subject): s for s in spells if now - s.last <= fall_s}
    seen = {(s.name, s.subject): s.since for s in spells}
    for c in conditions:
        since = seen.get((c.name, c.subject), now)
        live[c.name, c.subject] = Spell(c.name, c.subject, since, now, c.level, c.evidence)
    ordered = tuple(live[key] for key in sorted(live))
    signals = tuple(
        Signal(s.name, s.subject, s.level, s.since, s.evidence) for s in ordered if s.last - s.since >= rise_s
    )
    return signals, ordered
