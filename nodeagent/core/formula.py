"""The capacity formula and the peak that goes into it; the same for the node and for each NUMA node."""

from __future__ import annotations

from msgspec import Struct

from nodeagent.core.histogram import Scale, percentile, window_max
from nodeagent.core.rates import View
from nodeagent.core.reach import Reach
from nodeagent.core.usage import Usage
from nodeagent.model.capacity import Term
from nodeagent.model.decision import Histogram, OnlineHistory
from nodeagent.model.policy import CapacityPolicy

SHRINK = "interference_ratio"  # the term of confirmed interference


class Inputs(Struct, frozen=True, gc=False):
    """Everything that the formula is fed with in one tick; `history` includes this tick.

    `reach` is None where Batch may run on any CPU, `shrink` while no online work is disturbed.
    """

    view: View
    usage: Usage
    policy: CapacityPolicy
    history: OnlineHistory
    reach: Reach | None = None
    shrink: Term | None = None


def offline_available(
    total: float, ceiling_ratio: float, reserved: float, system: float, online: float
) -> float:
    """OfflineAvailable in the unit of its inputs (cores or bytes); never below 0."""
    return max(0.0, total * ceiling_ratio - max(reserved, system) - online)


def online_peak(
    seen: Histogram, now: float, ratio: float, scale: Scale, policy: CapacityPolicy
) -> tuple[float, str]:
    """The larger of current use and what was seen in the past, and its source."""
    past, source = past_peak(seen, ratio, scale, policy)
    return max(now, past), source


def past_peak(seen: Histogram, ratio: float, scale: Scale, policy: CapacityPolicy) -> tuple[float, str]:
    """The larger of the windowed maximum and, once that is warm, the percentile `ratio`; and its source.

    The window keeps what was offered a moment ago from being withdrawn with each wiggle above the percentile.
    """
    lately = window_max(seen) or 0.0
    warm = percentile(seen, ratio, scale) if seen.seconds >= policy.warm_after_s else None
    if warm is None:
        return lately, f"cold start: maximum of {policy.window_s:g} s"
    if lately > warm:
        return lately, f"maximum of {policy.window_s:g} s"
    return warm, f"p{ratio * 100:g} of a histogram, half-life {policy.half_life_s:g} s"
