"""Plan against reality: the ordered list of writes.

A held knob that is not in the plan is given back, so stopping is the empty plan. A knob that no longer
holds what we wrote belongs to somebody else now; it is not given back.

Invariant: after every prefix of the list the hierarchy is valid for the kernel. cgroup v1 refuses a quota
above that of the nearest limited ancestor, so: loosen from the root down, then tighten from the leaves up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping

from nodeagent.model.plan import Change, Kind, Knob, KnobReading, Setting

GIVEN_BACK = "no longer wanted"


def diff(
    plan: Mapping[Knob, Setting], readings: Iterable[KnobReading], yielded: Collection[Knob] = ()
) -> tuple[Change, ...]:
    """Writes that take the knobs from what they are to what `plan` says, in a valid order.

    Knobs in `yielded` are neither set nor given back. A setting for a knob that was not read is left out.
    """
    found = {r.knob: r for r in readings}
    wanted = {
        knob: value
        for knob, reading in found.items()
        if knob not in yielded and (value := _wanted(reading, plan.get(knob))) is not None
    }
    final = _valid(wanted, found)
    todo = [
        _change(found[knob], final[knob], plan.get(knob))
        for knob in sorted(wanted, key=lambda k: (k.target.count("/"), k))
        if final[knob] != found[knob].actual or _ends(found[knob], final[knob], plan)
    ]
    loosen = [c for c in todo if c.new >= c.old]
    tighten = [c for c in todo if c.new < c.old]
    return (*loosen, *reversed(tighten))


def fit(reading: KnobReading, value: float) -> float:
    """The nearest value that the kernel takes for this knob; never one that it would refuse."""
    if math.isinf(value) and reading.knob.kind is Kind.CPU_QUOTA:
        return value
    if value == 0.0 and reading.knob.kind is Kind.CPU_WEIGHT and reading.has_idle:
        return value
    clamped = min(max(value, reading.low), reading.high)
    steps = min(max(round(clamped * reading.scale), math.ceil(reading.low * reading.scale - 1e-9)), 2**53)
    return steps / reading.scale


def left_alone(plan: Mapping[Knob, Setting], readings: Iterable[KnobReading]) -> tuple[KnobReading, ...]:
    """Held knobs that nobody wants any more and that somebody else has changed: theirs now."""
    return tuple(r for r in readings if r.held and r.knob not in plan and not r.restorable)


def _wanted(reading: KnobReading, setting: Setting | None) -> float | None:
    if setting is not None:
        return fit(reading, setting.value)
    return reading.original if reading.restorable else None


def _ends(reading: KnobReading, final: float, plan: Mapping[Knob, Setting]) -> bool:
    return reading.knob not in plan and final == reading.original


def _change(reading: KnobReading, new: float, setting: Setting | None) -> Change:
    if setting is not None:
        return Change(reading.knob, reading.actual, new, setting.why, setting.by)
    return Change(reading.knob, reading.actual, new, GIVEN_BACK, "", gives_back=new == reading.original)


def _valid(wanted: Mapping[Knob, float], found: Mapping[Knob, KnobReading]) -> dict[Knob, float]:
    """The nearest final state that the kernel accepts: no nested quota above a limited ancestor's."""
    final, least = dict(wanted), dict.fromkeys(wanted, 0.0)
    nested = sorted((k for k, r in found.items() if r.nested), key=lambda k: k.target.count("/"))
    above = {k: _ancestors(k, found) for k in nested}
    for knob in nested:  # a value that is not ours to change holds its ancestors up
        value = found[knob].actual
        if knob not in wanted and not math.isinf(value):
            for parent in above[knob]:
                if parent in final:
                    least[parent] = max(least[parent], value)
                    final[parent] = max(final[parent], _grid(found[parent], value, math.ceil))
    for knob in nested:  # a value that is ours stays within its ancestors
        if knob in final and not math.isinf(final[knob]):
            roof = min((final.get(p, found[p].actual) for p in above[knob]), default=math.inf)
            if final[knob] > roof:
                within = _grid(found[knob], roof, math.floor)
                fits = within >= max(found[knob].low, least[knob])
                final[knob] = within if fits else math.inf  # then the roof alone bounds it
    return final


def _grid(reading: KnobReading, value: float, nearest: Callable[[float], int]) -> float:
    """`value`, which may come from a cgroup with another period, as this knob can hold it."""
    if math.isinf(value):
        return value
    steps = value * reading.scale
    whole = round(steps)
    return (whole if abs(steps - whole) < 1e-7 else nearest(steps)) / reading.scale


def _ancestors(knob: Knob, found: Mapping[Knob, KnobReading]) -> tuple[Knob, ...]:
    parts = knob.target.split("/")
    parents = (Knob(knob.kind, "/".join(parts[:n])) for n in range(1, len(parts)))
    return tuple(p for p in parents if p in found)
