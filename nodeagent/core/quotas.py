"""What makes changes of quotas and bursts valid for the kernel.

cgroup v1 refuses a quota above that of the nearest limited ancestor. Both versions refuse a burst above its
quota and a quota below its burst; without a quota any burst is taken (Linux kernel/sched/core.c,
tg_set_cfs_bandwidth). So quotas are raised, then bursts are written, then quotas are lowered.

Invariant: where both are ours to change the burst gives way; one that is not ours holds its quota up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from nodeagent.core.sets import Related
from nodeagent.model.plan import Kind, Knob, KnobReading, numeric


def untie(found: dict[Knob, KnobReading], ours: Callable[[KnobReading], bool]) -> None:
    """Take from `found` the bounds that quota and burst are to each other now, where these may change."""
    for knob in [knob for knob in found if knob.kind is Kind.CPU_BURST]:
        quota = Knob(Kind.CPU_QUOTA, knob.target)
        if quota in found:
            found[knob] = replace(found[knob], high=math.inf)
            if ours(found[knob]):
                found[quota] = replace(found[quota], burst=0.0)


def valid_numbers(
    wanted: Mapping[Knob, float], found: Mapping[Knob, KnobReading], above: Related
) -> dict[Knob, float]:
    """The nearest final state that the kernel accepts."""
    final = _valid_quotas(wanted, found, above)
    for knob in wanted:
        if knob.kind is Kind.CPU_BURST:
            quota = Knob(Kind.CPU_QUOTA, knob.target)
            there = numeric(found[quota].actual) if quota in found else found[knob].high
            final[knob] = min(final[knob], _grid(found[knob], final.get(quota, there), math.floor))
    return final


def _valid_quotas(
    wanted: Mapping[Knob, float], found: Mapping[Knob, KnobReading], above: Related
) -> dict[Knob, float]:
    """No nested quota above a limited ancestor's."""
    final, least = dict(wanted), dict.fromkeys(wanted, 0.0)
    quotas = {k: numeric(r.actual) for k, r in found.items() if r.nested and not k.kind.is_set}
    nested = sorted(quotas, key=lambda k: k.target.count("/"))
    for knob in nested:  # a value that is not ours to change holds its ancestors up
        value = quotas[knob]
        if knob not in wanted and not math.isinf(value):
            for parent in above[knob]:
                if parent in final:
                    least[parent] = max(least[parent], value)
                    final[parent] = max(final[parent], _grid(found[parent], value, math.ceil))
    for knob in nested:  # a value that is ours stays within its ancestors
        if knob in final and not math.isinf(final[knob]):
            roof = min((final.get(p, quotas[p]) for p in above[knob]), default=math.inf)
            if final[knob] > roof:
                within = _grid(found[knob], roof, math.floor)
                fits = within >= max(least_quota(found[knob]), least[knob])
                final[knob] = within if fits else math.inf  # then the roof alone bounds it
    return final


def least_quota(reading: KnobReading) -> float:
    """The smallest value that the kernel takes here, in the unit of the knob."""
    return max(reading.low, reading.burst)


def _grid(reading: KnobReading, value: float, nearest: Callable[[float], int]) -> float:
    """`value`, which may come from a cgroup with another period, as this knob can hold it."""
    if math.isinf(value):
        return value
    steps = value * reading.scale
    whole = round(steps)
    return (whole if abs(steps - whole) < 1e-7 else nearest(steps)) / reading.scale
