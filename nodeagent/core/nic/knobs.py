"""What the classes of NICs are as knobs: "eth0/batch" is guaranteed a rate, and never exceeds another.

Whoever has no tree of ours is guaranteed nothing and not limited: that is what is given back.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping

from nodeagent.model.nic import NicsSeen, Scheduler
from nodeagent.model.plan import Kind, Knob, KnobReading, Value
from nodeagent.model.pod import Qos

ORIGINALS = {Kind.NIC_RATE: 0.0, Kind.NIC_CEIL: math.inf}


def told(scheduler: Scheduler, qos: Qos) -> tuple[Kind, ...]:
    """The knobs of a class: departure times bound MID and BATCH, and guarantee nothing."""
    if scheduler is not Scheduler.EDT:
        return Kind.NIC_RATE, Kind.NIC_CEIL
    return () if qos is Qos.LS else (Kind.NIC_CEIL,)


def readings(seen: NicsSeen, names: Collection[str], written: Mapping[Knob, Value]) -> Iterator[KnobReading]:
    """All knobs of NICs with these names or with a tree of ours. `written`: what we wrote last, as read back.

    A tree that the last run left is adopted as it is.
    """
    trees = {tree.name: tree for tree in seen.samples[-1].trees} if seen.samples else {}
    for name in sorted({*names, *trees}):
        tree = trees.get(name)
        for qos in Qos:
            found = next((c for c in tree.classes if c.qos is qos), None) if tree is not None else None
            for kind in told(Scheduler.HTB if tree is None else tree.scheduler, qos):
                knob, original = Knob(kind, f"{name}/{qos.value}"), ORIGINALS[kind]
                actual = original if found is None else found.rate_bps
                if found is not None and kind is Kind.NIC_CEIL:
                    actual = found.ceil_bps
                ours = None if found is None else written.get(knob, actual)
                yield KnobReading(knob, actual, original=original, written=ours)
