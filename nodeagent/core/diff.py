"""Plan against reality: the ordered list of writes.

A held knob that is not in the plan is given back, so stopping is the empty plan. A knob that no longer
holds what we wrote belongs to somebody else now; it is not given back.

Invariant: after every prefix of the list the hierarchy is valid for the kernel. cgroup v1 refuses a quota
above that of the nearest limited ancestor, and a set that its parent's does not hold, so: loosen from the
root down, then tighten from the leaves up; and bursts in between, which no quota may be below. What can fail
leaves nobody frozen: first of all thaw, freeze last.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec.structs import replace

from nodeagent.core.nic import net_class
from nodeagent.core.quotas import least_quota, untie, valid_numbers
from nodeagent.core.sets import Related, by_way_of, fit_set, inherited, taken, valid_sets
from nodeagent.model.plan import Change, Kind, Knob, KnobReading, Setting, Value, listed, numeric

GIVEN_BACK = "no longer wanted"


def diff(
    plan: Mapping[Knob, Setting], readings: Iterable[KnobReading], yielded: Collection[Knob] = ()
) -> tuple[Change, ...]:
    """Writes that take the knobs from what they are to what `plan` says, in a valid order.

    Knobs in `yielded` are neither set nor given back. A setting for a knob that was not read is left out.
    A set may take two writes: to the union of old and new, then to the new one. A change from a value to
    itself writes nothing: it begins or ends our hold of the knob.
    """
    found = {r.knob: r for r in readings}
    untie(found, lambda r: r.knob not in yielded and (r.knob in plan or r.restorable))
    wanted = {
        knob: value
        for knob, reading in found.items()
        if knob not in yielded and (value := _wanted(reading, plan.get(knob))) is not None
    }
    above = {
        knob: _ancestors(knob, found)
        for knob, reading in found.items()
        if reading.nested or knob.kind is Kind.NET_CLASS
    }
    final = _valid(wanted, found, above)
    todo = []
    for knob in sorted(wanted, key=lambda k: (k.target.count("/"), k)):
        around = [found[parent] for parent in above.get(knob, ())]
        change = _change(found[knob], final[knob], plan.get(knob), around)
        marks = _taken(found[knob]) if knob in plan else change.gives_back
        if change.new != change.old or marks:
            todo.append(change)
    return _ordered(todo, found)


def fit(reading: KnobReading, value: Value) -> Value:
    """The nearest value that the kernel takes for this knob; never one that it would refuse."""
    if reading.knob.kind.is_set:
        return fit_set(reading, listed(value))
    value = numeric(value)
    if math.isinf(value) and reading.knob.kind in (Kind.CPU_QUOTA, Kind.MEMORY_HIGH):
        return value
    if value == 0.0 and reading.knob.kind is Kind.CPU_WEIGHT and reading.has_idle:
        return value
    low = least_quota(reading)
    clamped = min(max(value, low), reading.high)
    steps = min(max(round(clamped * reading.scale), math.ceil(low * reading.scale - 1e-9)), 2**53)
    return steps / reading.scale


def left_alone(plan: Mapping[Knob, Setting], readings: Iterable[KnobReading]) -> tuple[KnobReading, ...]:
    """Held knobs that nobody wants any more and that somebody else has changed: theirs now."""
    return tuple(r for r in readings if r.held and r.knob not in plan and not r.restorable)


def _wanted(reading: KnobReading, setting: Setting | None) -> Value | None:
    if setting is not None:
        return fit(reading, setting.value)
    return reading.original if reading.restorable else None


def _taken(reading: KnobReading) -> bool:
    """True when our hold begins, even if nothing is to be written."""
    return taken(reading) or net_class.unremembered(reading)


def _change(
    reading: KnobReading, new: Value, setting: Setting | None, around: Sequence[KnobReading]
) -> Change:
    knob, old = reading.knob, reading.actual
    if setting is None:
        return Change(knob, old, new, GIVEN_BACK, "", gives_back=new == reading.original)
    made_with = (net_class.inherited if knob.kind is Kind.NET_CLASS else inherited)(reading, around)
    return Change(knob, old, new, setting.why, setting.by, inherited=made_with)


def _ordered(todo: Sequence[Change], found: Mapping[Knob, KnobReading]) -> tuple[Change, ...]:
    """Thawed, loosened from the root down, bursts, tightened from the leaves up, frozen.

    `todo` is from the root down.
    """
    inside = _inside(found) if any(change.knob.kind.is_set for change in todo) else {}
    thaw: list[Change] = []
    freeze: list[Change] = []
    loosen, bursts, tighten = [], [], []
    for change in todo:
        old, new = change.old, change.new
        if change.knob.kind is Kind.FREEZE:
            (freeze if new else thaw).append(change)
            continue
        if change.knob.kind is Kind.CPU_BURST:
            bursts.append(change)
            continue
        if change.knob.kind.is_set:
            via: Value = by_way_of(found[change.knob], listed(new), inside.get(change.knob, ()))
        else:
            via = max(numeric(old), numeric(new))
        if via != old or new == old:
            loosen.append(change if via == new else replace(change, new=via, gives_back=False))
        if via != new:
            tighten.append(change if via == old else replace(change, old=via, inherited=None))
    return (*thaw, *loosen, *bursts, *reversed(tighten), *freeze)


def _valid(
    wanted: Mapping[Knob, Value], found: Mapping[Knob, KnobReading], above: Related
) -> dict[Knob, Value]:
    """The nearest final state that the kernel accepts."""
    numbers = {knob: value for knob, value in wanted.items() if not isinstance(value, str)}
    sets = {knob: value for knob, value in wanted.items() if isinstance(value, str)}
    return {**valid_numbers(numbers, found, above), **valid_sets(sets, found, above)}


def _ancestors(knob: Knob, found: Mapping[Knob, KnobReading]) -> tuple[Knob, ...]:
    parts = knob.target.split("/")
    parents = (Knob(knob.kind, "/".join(parts[:n])) for n in range(1, len(parts)))
    return tuple(p for p in parents if p in found)


def _inside(found: Mapping[Knob, KnobReading]) -> dict[Knob, list[KnobReading]]:
    """Of each set, those below it."""
    inside: dict[Knob, list[KnobReading]] = {}
    for knob, reading in found.items():
        for parent in _ancestors(knob, found) if knob.kind.is_set else ():
            inside.setdefault(parent, []).append(reading)
    return inside
