"""Network classes of cgroup v1: who shall have which, and what is ours of those that nobody remembers.

A new cgroup begins with the class of the one around it (Linux net/core/netclassid_cgroup.c, cgrp_css_online),
so one made after our write has our class without a write, and no original of its own.

Invariant: a class of ours is recognised by its major, and never becomes anybody's original value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nodeagent.model.nic import MAJOR
from nodeagent.model.plan import Kind, KnobReading, Value, numeric
from nodeagent.model.pod import Qos

NONE = 0.0


def class_of(target: str, homes: Mapping[str, Qos]) -> Qos | None:
    """Of the innermost of these cgroups that `target` is, or is inside of."""
    while target:
        if target in homes:
            return homes[target]
        target = target.rpartition("/")[0]
    return None


def unremembered(reading: KnobReading) -> bool:
    """True for a class of ours in a cgroup that we hold nothing of: it was made with it."""
    ours = reading.knob.kind is Kind.NET_CLASS and int(numeric(reading.actual)) >> 16 == MAJOR
    return ours and not reading.held


def inherited(reading: KnobReading, around: Sequence[KnobReading]) -> Value | None:
    """What it would have been made with, had we not written to one `around` it; None for what is not ours."""
    if not unremembered(reading):
        return None
    near = (parent.original for parent in reversed(around) if parent.actual == reading.actual)
    return next((original for original in near if original is not None), NONE)
