"""systemd keeps what we set on its units: the property follows the file, so that no reload undoes it.

    first touch   property, then file: where the controller is off in that cgroup, systemd turns it on
    later         file at once, property at most every PACE_S per unit
    given back    property, its drop-in, then file, for systemd writes the file too

A reload within PACE_S of a change brings the value before it back; that is drift, and written again in the
next tick. So it is where systemd does not answer: files alone, as on a host without it.

Invariant: what systemd is told is in the ledger before, and a knob of another writer is never told to it.
How long a tick waits for it: nodeagent.units.patience.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Iterable, Mapping

from nodeagent.model.errors import Gone
from nodeagent.model.plan import Change, Held, Kept, Kind, Knob, KnobReading, Outcome, Value, joined
from nodeagent.originals import Originals
from nodeagent.units import dropins
from nodeagent.units.bus import Bus
from nodeagent.units.names import unit_of
from nodeagent.units.patience import PACE_S, Patience
from nodeagent.units.properties import Property, Raw, property_of, raw, value

STRANGER_S = 60.0  # then it is asked again whether a path is a unit's
IDLE_VERSION = 252  # the first systemd that takes CPUWeight=idle


class Keeper:
    """Tells systemd what `originals` holds. `versions`: that of the hierarchy of each controller.

    `news` are lines for the log; the owner empties the list.
    """

    def __init__(self, host_root: str, versions: Mapping[str, int], originals: Originals) -> None:
        self._root, self._versions, self._originals = host_root, versions, originals
        self._patience = Patience(host_root)
        self.news = self._patience.news
        self._told: dict[str, float] = {}  # when each unit was told last
        self._changed: set[Knob] = set()  # written since systemd was told
        self._untold = {k for k, h in originals.held.items() if h.kept is not None}  # as far as we know
        self._strangers: dict[str, float] = {}  # paths that looked like units, and until when we think so
        self._actual: dict[Knob, Value] = {}  # of held knobs, in this tick
        self._idle: bool | None = None  # whether systemd takes CPUWeight=idle

    def gives(self, path: str) -> bool:
        """True when systemd turns a missing controller on in this cgroup once it keeps a value for it."""
        return self._patience.usable and not self._strange(path) and unit_of(path) is not None

    def look(self, readings: Iterable[KnobReading]) -> None:
        """A tick begins, with these values in the files."""
        self._actual = {r.knob: r.actual for r in readings if r.held}
        self._patience.tick()

    def begin(self, changes: Iterable[Change]) -> None:
        """Tell of knobs that systemd keeps nothing for yet, before their files are written."""
        if not self._patience.usable:
            return
        held, changes = self._originals.held, tuple(changes)
        new = {c.knob: c.new for c in joined(changes) if not c.gives_back and c.new != c.old}
        first = {
            unit_of(k.target)
            for k, wish in new.items()
            if (held[k].kept is None or k in self._untold) and self._keeps(k, wish)
        }
        if not first:
            return
        ended = {c.knob for c in changes if c.gives_back}
        kept = {k: h.wanted for k, h in held.items() if h.kept is not None and self._holds(k, h)}
        told = {k: wish for k, wish in {**kept, **new}.items() if k not in ended}
        # All of ours, for systemd writes all that the unit has.
        self._tell(
            {k: wish for k, wish in told.items() if unit_of(k.target) in first}, self._patience.begin_s()
        )

    def follow(self, outcomes: Iterable[Outcome]) -> None:
        """After a tick's writes: tell of what has changed, where the file holds it and it is time."""
        held = self._originals.held
        if not self._patience.usable:
            return
        for outcome in outcomes:
            knob, found = outcome.change.knob, outcome.found
            self._actual.pop(knob, None)
            if found is not None:
                self._actual[knob] = found
            if outcome.ok and outcome.change.new != outcome.change.old:
                self._changed.add(knob)
        self._changed = {k for k in self._changed if k in held and self._keeps(k, held[k].wanted)}
        self._untold &= held.keys()
        told = {k: h for k, h in held.items() if h.kept is not None or h.written is not None}
        ours = {k: h for k, h in told.items() if self._holds(k, h)}
        due = {unit_of(knob.target) for knob, was in ours.items() if self._due(knob, was)}
        self._tell(
            {k: h.wanted for k, h in ours.items() if unit_of(k.target) in due}, self._patience.left_s()
        )
        self._drop_old()

    def release(self, ends: Mapping[Knob, Value | None], *, leaving: bool = False) -> frozenset[Knob]:
        """Have systemd keep what it kept before us; answers the knobs for which it still keeps ours.

        `ends`: None where our value ends, else the one that somebody else has written to the file.
        """
        held = self._originals.held
        todo: dict[str, dict[Knob, Kept]] = {}
        for knob in ends:
            kept = held[knob].kept if knob in held else None
            if kept is not None and (unit := unit_of(knob.target)) is not None:
                todo.setdefault(unit, {})[knob] = kept
        patience = self._patience
        patience.talk(
            {unit: knobs for unit, knobs in todo.items() if leaving or not patience.refuses(unit)},
            lambda bus, unit, knobs: self._release(bus, unit, knobs, ends),
            patience.leave_s() if leaving else patience.left_s(),
        )
        return frozenset(knob for knobs in todo.values() for knob in knobs if held[knob].kept is not None)

    def _holds(self, knob: Knob, held: Held) -> bool:
        return self._actual.get(knob) == held.wanted

    def _strange(self, path: str) -> bool:
        return time.monotonic() < self._strangers.get(path, 0.0)

    def _due(self, knob: Knob, held: Held) -> bool:
        stale = held.kept is None or held.kept.value != held.wanted
        stale = stale or knob in self._changed or knob in self._untold
        return stale and self._keeps(knob, held.wanted) and self._paced(knob)

    def _keeps(self, knob: Knob, wish: Value) -> bool:
        """True when systemd takes this value of the knob (idle not on cgroup v1, nor before IDLE_VERSION)."""
        prop, unit = self._property(knob.kind), unit_of(knob.target)
        if prop is None or unit is None or self._strange(knob.target):
            return False
        if self._patience.refuses(unit) or (_is_idle(knob, wish) and self._idle is False):
            return False
        return raw(knob.kind, prop, wish) is not None

    def _paced(self, knob: Knob) -> bool:
        unit = unit_of(knob.target) or ""
        return time.monotonic() >= self._told.get(unit, -math.inf) + PACE_S

    def _tell(self, wanted: Mapping[Knob, Value], limit_s: float) -> None:
        units: dict[str, dict[Knob, Value]] = {}
        for knob, wish in wanted.items():
            unit = unit_of(knob.target)
            if unit is not None and self._keeps(knob, wish):
                units.setdefault(unit, {})[knob] = wish
        self._patience.talk(units, self._tell_unit, limit_s)

    def _tell_unit(self, bus: Bus, unit: str, values: Mapping[Knob, Value]) -> None:
        self._told[unit] = time.monotonic()
        kept: dict[Knob, Kept | None] = {}
        properties: dict[Property, Raw] = {}
        try:
            at = self._at(bus, unit, values)
            for knob, wish in values.items():
                prop = self._property(knob.kind)
                text = None if prop is None else raw(knob.kind, prop, wish)
                if prop is None or text is None or (_is_idle(knob, wish) and not self._takes_idle(bus)):
                    continue
                kept[knob] = self._kept(bus, unit, at, knob, wish, prop)
                properties[prop] = text
            if properties:
                self._originals.keep(kept)
                self._untold |= kept.keys()
                bus.set(unit, properties)
        except Gone:
            until = time.monotonic() + STRANGER_S
            self._strangers.update((knob.target, until) for knob in values)
            return
        self._untold -= values.keys()
        self._changed -= values.keys()

    def _at(self, bus: Bus, unit: str, knobs: Iterable[Knob]) -> str:
        """The unit's object, "" where it is known to be ours; Gone when the cgroup is not this unit's."""
        new = {knob.target for knob in knobs if self._originals.held[knob].kept is None}
        at = bus.unit(unit) if new else ""
        if new and new != {bus.cgroup(unit, at)}:
            raise Gone(f"{unit} is not at {', '.join(sorted(new))}")
        return at

    def _kept(self, bus: Bus, unit: str, at: str, knob: Knob, wish: Value, prop: Property) -> Kept:
        """What the ledger shall say of it."""
        before = self._originals.held[knob].kept
        if before is not None:
            return Kept(wish, before.found, before.ours)
        found = value(knob.kind, prop, bus.get(unit, at, prop))
        return Kept(wish, found, not dropins.exists(self._root, unit, prop.setting))

    def _takes_idle(self, bus: Bus) -> bool:
        if self._idle is None:
            number = re.search(r"\d+", bus.version())
            self._idle = number is None or int(number[0]) >= IDLE_VERSION
        return self._idle

    def _release(
        self, bus: Bus, unit: str, knobs: Mapping[Knob, Kept], ends: Mapping[Knob, Value | None]
    ) -> None:
        emptied: set[str] = set()
        properties: dict[Property, Raw] = {}
        try:
            at = bus.unit(unit)
        except Gone:
            at = ""
        for knob, kept in knobs.items():
            prop, end = self._property(knob.kind), ends[knob]
            if prop is None:
                continue
            if at and end is not None and _same(end, value(knob.kind, prop, bus.get(unit, at, prop))):
                continue  # they told systemd themselves: all of it is theirs
            text = raw(knob.kind, prop, kept.found if end is None else end)
            if text is not None and (at or not kept.ours):
                properties[prop] = text  # one that is not loaded has another's drop-in, with our value in it
            if kept.ours:
                emptied.add(prop.setting)
        if properties:
            with contextlib.suppress(Gone):
                bus.set(unit, properties)
        self.news += filter(None, (dropins.remove(self._root, unit, name) for name in sorted(emptied)))
        self._originals.keep(dict.fromkeys(knobs))

    def _property(self, kind: Kind) -> Property | None:
        version = self._versions.get(kind.value.partition(".")[0])
        return None if version is None else property_of(kind, version)

    def _drop_old(self) -> None:
        """What is over, and what is no longer held, need not be remembered."""
        now = time.monotonic()
        paths = {knob.target for knob in self._originals.held}
        self._told = {unit: at for unit, at in self._told.items() if now < at + PACE_S}
        self._strangers = {p: until for p, until in self._strangers.items() if now < until and p in paths}
        self._patience.forget({unit for path in paths if (unit := unit_of(path)) is not None})


def _is_idle(knob: Knob, wish: Value) -> bool:
    return knob.kind is Kind.CPU_WEIGHT and wish == 0.0


def _same(a: Value, b: Value) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    return math.isclose(a, b, rel_tol=1e-6)
