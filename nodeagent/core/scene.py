"""What an enforcer sees: rates, signals, knobs as found, what is in scope, and the Batch limit split."""

from __future__ import annotations

from msgspec import Struct

from nodeagent.core.rates import View
from nodeagent.core.share import Shares
from nodeagent.model.decision import Signal
from nodeagent.model.plan import Knob, KnobReading


class Scene(Struct, frozen=True, gc=False):
    """`scope` holds the cgroups that may be written; `shares` is None while the limit is not known."""

    view: View
    signals: tuple[Signal, ...]
    knobs: dict[Knob, KnobReading]
    scope: frozenset[str]
    shares: Shares | None
    why: str
