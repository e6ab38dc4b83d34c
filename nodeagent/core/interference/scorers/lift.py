"""How much more than evenly a neighbour's use falls on bad samples: what is always on has none."""

from __future__ import annotations

from nodeagent.core.interference.algebra import dot
from nodeagent.core.interference.frame import Frame
from nodeagent.core.interference.scorers.amplitude_free import weighed


def lift(frame: Frame) -> tuple[float, ...]:
    """Sum of (share of use - even share) x relative harm, good and bad weighing the same; within [-1, 1]."""
    found = weighed(frame)
    if found is None:
        return (0.0,) * len(frame.uses)
    weights, relative = found
    even = dot(weights, relative)
    weighted = [weight * harm for weight, harm in zip(weights, relative, strict=True)]
    lifts = []
    for row in frame.uses:
        total = dot(row, weights)
        lifts.append(max(-1.0, min(1.0, dot(row, weighted) / total - even)) if total > 0.0 else 0.0)
    return tuple(lifts)
