"""What the kernel says of a knob and what the agent remembers of it, as one value."""

from __future__ import annotations

import math

from msgspec.structs import replace

from nodeagent.kernel.cgroup import Found
from nodeagent.model.cpuset import common
from nodeagent.model.plan import Held, Knob, KnobReading, Value

PERCENT = 100


def reading(knob: Knob, found: Found, memory: Held | None, allowed: str) -> KnobReading:
    """What the kernel says and what the agent remembers, as one value.

    A value left by our own write that was cut short counts as written: it is where we go on from. A set that
    we remember is told without the CPUs that went offline meanwhile, as v1 takes them out of every set.
    """
    original = written = pending = None
    if memory is not None:
        memory = _clipped(memory, allowed)
        original, written, pending = memory.original, memory.written, memory.pending
        if memory.explains(found.actual):
            written = None if found.actual == original else found.actual
    return KnobReading(
        knob,
        *found[:6],
        original=original,
        written=written,
        pending=pending,
        effective=found.effective,
        allowed=allowed,
        burst=found.burst,
    )


def _clipped(memory: Held, allowed: str) -> Held:
    def left(value: Value | None) -> Value | None:
        return common(value, allowed) if isinstance(value, str) else value

    if not allowed:
        return memory
    return replace(
        memory,
        original=left(memory.original),
        written=left(memory.written),
        pending=left(memory.pending),
    )


def same(found: Found, value: Value) -> bool:
    """True when a number is the one that was written, up to the kernel's rounding, or a set is that set."""
    if found.actual == value or isinstance(found.actual, str) or isinstance(value, str):
        return found.actual == value
    return abs(found.actual - value) * found.scale < 0.5


def whole_percents(quota: Found) -> Found:
    """`quota` of a unit, to be set in hundredths of a core: systemd keeps no finer ones over a reload.

    What it writes down of CPUQuotaPerSecUSec is cut to whole percents (systemd, src/core/dbus-cgroup.c).
    """
    if quota.scale % PERCENT:
        return quota  # then it cannot be exact anyway
    return quota._replace(scale=PERCENT, low=math.ceil(quota.low * PERCENT - 1e-9) / PERCENT)
