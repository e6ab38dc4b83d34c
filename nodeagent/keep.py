"""systemd keeps what we set on its units: the property follows the file, so that no reload undoes it.

    first touch   property, then file: where the controller is off in that cgroup, systemd turns it on
    later         file at once, property at most every PACE_S per unit
    given back    property, its drop-in, then file, for systemd writes the file too

A reload within PACE_S of a change brings the value before it back; that is drift, and written again in the
next tick. So it is where systemd does not answer: files alone, as on a host without it.

Invariant: what systemd is told is in the ledger before; a knob of another writer is never told to it; in all,
a tick waits for systemd no longer than TICK_LIMIT_S, and a systemd that does not answer is left in peace.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping

from nodeagent.model.errors import AgentError, Gone
from nodeagent.model.plan import Change, Held, Kept, Kind, Knob, KnobReading, Outcome, Value, joined
from nodeagent.originals import Originals
from nodeagent.units import dropins
from nodeagent.units.bus import Bus, reachable, unusable
from nodeagent.units.names import unit_of
from nodeagent.units.properties import Property, Raw, property_of, raw, value

PACE_S = 5.0
TICK_LIMIT_S = 1.0
TICK_SHARE_S = 0.5  # no further unit is begun after this; the rest waits for the next tick
LEAVE_LIMIT_S = 10.0  # in all, on the way out: there is no next tick
BACK_OFF_S, BACK_OFF_MAX_S = 5.0, 300.0


class Keeper:
    """Tells systemd what `originals` holds. `versions`: that of the hierarchy of each controller.

    `news` are lines for the log; the owner empties the list.
    """

    def __init__(self, host_root: str, versions: Mapping[str, int], originals: Originals) -> None:
        self._root, self._versions, self._originals = host_root, versions, originals
        why_not = unusable(host_root)
        self.news = [why_not] if why_not else []
        self._usable = reachable(host_root)
        self._told: dict[str, float] = {}  # when each unit was told last
        self._changed: set[Knob] = set()  # written since systemd was told
        self._untold = {k for k, h in originals.held.items() if h.kept is not None}  # as far as we know
        self._strangers: set[str] = set()  # looked like units by their paths
        self._wait_s, self._quiet_until, self._failing = BACK_OFF_S, 0.0, False
        self._leave_until: float | None = None

    def gives(self, path: str) -> bool:
        """True when systemd turns a missing controller on in this cgroup once it keeps a value for it."""
        return self._usable and path not in self._strangers and unit_of(path) is not None

    def begin(self, changes: Iterable[Change]) -> None:
        """Tell of knobs that systemd keeps nothing for yet, before their files are written."""
        if not self._usable:
            return
        held = self._originals.held
        new = {c.knob: c.new for c in joined(changes) if not c.gives_back and c.new != c.old}
        first = {unit_of(k.target) for k in new if held[k].kept is None or k in self._untold} - {None}
        if first:  # with all else that the unit has from us, for systemd writes all that it has
            kept = {k: new.get(k, h.wanted) for k, h in held.items() if h.kept is not None}
            self._tell({k: v for k, v in {**kept, **new}.items() if unit_of(k.target) in first})

    def follow(self, readings: Iterable[KnobReading], outcomes: Iterable[Outcome]) -> None:
        """After a tick's writes: tell of what has changed, where the file holds it and it is time."""
        held = self._originals.held
        if not self._usable or not held:
            return
        actual: dict[Knob, Value | None] = {r.knob: r.actual for r in readings if r.held}
        for outcome in outcomes:
            actual[outcome.change.knob] = outcome.found
            if outcome.ok and outcome.change.new != outcome.change.old:
                self._changed.add(outcome.change.knob)
        told = {k: h for k, h in held.items() if h.kept is not None or h.written is not None}
        ours = {k: h for k, h in told.items() if actual.get(k) == h.wanted}
        due = {unit_of(knob.target) for knob, was in ours.items() if self._due(knob, was)} - {None}
        self._changed &= held.keys()
        self._untold &= held.keys()
        self._tell({knob: was.wanted for knob, was in ours.items() if unit_of(knob.target) in due})

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
        limit_s = self._limit_s(leaving)
        if todo and limit_s > 0:
            try:
                with Bus(self._root, limit_s) as bus:
                    for unit, knobs in todo.items():
                        self._release(bus, unit, knobs, ends)
                self._answered()
            except AgentError as error:
                self._failed(error)
        return frozenset(knob for knobs in todo.values() for knob in knobs if held[knob].kept is not None)

    def _limit_s(self, leaving: bool) -> float:
        now = time.monotonic()
        if not leaving:
            return TICK_LIMIT_S if now >= self._quiet_until else 0.0
        if self._leave_until is None:
            self._leave_until = now + LEAVE_LIMIT_S
        return self._leave_until - now

    def _due(self, knob: Knob, held: Held) -> bool:
        stale = held.kept is None or held.kept.value != held.wanted or knob in self._changed | self._untold
        return stale and self._keeps(knob, held.wanted) and self._paced(knob)

    def _keeps(self, knob: Knob, wish: Value) -> bool:
        """True when systemd has a property for this value of the knob (none for idle on cgroup v1)."""
        prop = self._property(knob.kind)
        if prop is None or knob.target in self._strangers:
            return False
        return raw(knob.kind, prop, wish) is not None

    def _paced(self, knob: Knob) -> bool:
        unit = unit_of(knob.target) or ""
        return time.monotonic() >= self._told.get(unit, -math.inf) + PACE_S

    def _tell(self, wanted: Mapping[Knob, Value]) -> None:
        units: dict[str, dict[Knob, Value]] = {}
        for knob, wish in wanted.items():
            unit = unit_of(knob.target)
            if unit is not None and self._keeps(knob, wish):
                units.setdefault(unit, {})[knob] = wish
        began = time.monotonic()
        if not units or not self._usable or began < self._quiet_until:
            return
        try:
            with Bus(self._root, TICK_LIMIT_S) as bus:
                for unit, values in units.items():
                    if time.monotonic() < began + TICK_SHARE_S:
                        self._tell_unit(bus, unit, values)
            self._answered()
        except AgentError as error:
            self._failed(error)

    def _tell_unit(self, bus: Bus, unit: str, values: Mapping[Knob, Value]) -> None:
        self._told[unit] = time.monotonic()
        kept: dict[Knob, Kept | None] = {}
        properties: dict[Property, Raw] = {}
        try:
            for knob, wish in values.items():
                prop = self._property(knob.kind)
                text = None if prop is None else raw(knob.kind, prop, wish)
                if prop is not None and text is not None:
                    kept[knob] = self._kept(bus, unit, knob, wish, prop)
                    properties[prop] = text
        except Gone:
            self._strangers.update(knob.target for knob in values)
            return
        if properties:
            self._originals.keep(kept)
            self._untold |= values.keys()
            bus.set(unit, properties)
        self._untold -= values.keys()
        self._changed -= values.keys()

    def _kept(self, bus: Bus, unit: str, knob: Knob, wish: Value, prop: Property) -> Kept:
        """What the ledger shall say of it; Gone when the cgroup is not this unit's."""
        before = self._originals.held[knob].kept
        if before is not None:
            return Kept(wish, before.found, before.ours)
        at = bus.unit(unit)
        if bus.cgroup(unit, at) != knob.target:
            raise Gone(f"{unit} is not at {knob.target}")
        found = value(knob.kind, prop, bus.get(unit, at, prop))
        return Kept(wish, found, not dropins.exists(self._root, unit, prop.setting))

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
            if at and text is not None:
                properties[prop] = text
            if kept.ours:
                emptied.add(prop.setting)
        if properties:
            bus.set(unit, properties)
        self.news += filter(None, (dropins.remove(self._root, unit, name) for name in sorted(emptied)))
        self._originals.keep(dict.fromkeys(knobs))

    def _property(self, kind: Kind) -> Property | None:
        version = self._versions.get(kind.value.partition(".")[0])
        return None if version is None else property_of(kind, version)

    def _failed(self, error: AgentError) -> None:
        if not self._failing:
            hint = f" ({error.hint})" if error.hint else ""
            self.news.append(f"{error}{hint}; files alone are written until then")
        self._failing = True
        self._quiet_until = time.monotonic() + self._wait_s
        self._wait_s = min(2 * self._wait_s, BACK_OFF_MAX_S)

    def _answered(self) -> None:
        self._wait_s, self._failing = BACK_OFF_S, False


def _same(a: Value, b: Value) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    return math.isclose(a, b, rel_tol=1e-6)
