"""What detectors and enforcers see."""

from __future__ import annotations

from msgspec import Struct

from nodeagent.core.homes import Home
from nodeagent.core.rates import View
from nodeagent.core.share import Shares
from nodeagent.model.decision import Burst, Signal, Wait
from nodeagent.model.interference import Restraint
from nodeagent.model.nic import KnownNic, Shaping
from nodeagent.model.pages import PageMove
from nodeagent.model.placement import Placement
from nodeagent.model.plan import Knob, KnobReading


class Sight(Struct, frozen=True, gc=False):
    """What a detector sees: the rates of this tick, and how long each LS pod has waited (by uid)."""

    view: View
    waits: dict[str, Wait]


class Scene(Struct, frozen=True, gc=False):
    """What an enforcer sees: rates, signals, knobs as found, what is in scope, and the Batch limit split.

    `scope` holds the cgroups that may be written; `shares` is None while the limit is not known. The sets of
    the cgroups in `left_alone` are not ours to write, whatever the scope. `bursts` are by uid; `homes` are
    the sets of each pod and tier by the placement, `moves` the pods whose pages are not there yet.
    `shaping` is None where no traffic is shaped, `nics` what is known of each NIC, by name. `restraints` are
    what Batch pods are held to for a victim's sake, by cgroup.
    """

    view: View
    signals: tuple[Signal, ...]
    knobs: dict[Knob, KnobReading]
    scope: frozenset[str]
    shares: Shares | None
    why: str
    placement: Placement | None = None
    bursts: dict[str, Burst] = {}
    left_alone: frozenset[str] = frozenset()
    homes: dict[str, Home] = {}
    moves: tuple[PageMove, ...] = ()
    shaping: Shaping | None = None
    nics: dict[str, KnownNic] = {}
    restraints: dict[str, Restraint] = {}
