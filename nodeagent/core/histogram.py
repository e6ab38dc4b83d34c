"""Decaying histogram of usage: exponential buckets, old samples fade by half every half-life.

Instead of shrinking all weights at each sample, later samples weigh more: 2^((t - at) / half_life), as in
the Kubernetes vertical-pod-autoscaler (pkg/recommender/util/decaying_histogram.go). Bucket k ends at
first * 1.05^k, so a percentile is at most 5 % too high. When the clock is set back the past moves with it,
or what was seen by the wrong clock would outweigh all else until that time comes.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate
from typing import NamedTuple

from nodeagent.model.decision import Histogram

GROWTH = 1.05
WINDOW_PARTS = 12
MAX_EXPONENT = 40.0


class Scale(NamedTuple):
    """Bucket 0 ends at `first`; the last of the `buckets` takes all that is larger."""

    first: float
    buckets: int


CPU = Scale(0.025, 219)  # cores, up to 1024
MEMORY = Scale(5 * 2.0**20, 267)  # bytes, up to 2 TiB


def observe(
    histogram: Histogram,
    unix: float,
    value: float,
    scale: Scale,
    *,
    seconds: float,
    half_life_s: float,
    window_s: float,
) -> Histogram:
    """Add `value`, which held for `seconds` until `unix`."""
    weights, at = list(histogram.weights), histogram.at
    if histogram.window and unix < histogram.window[-1][0]:
        at -= histogram.window[-1][0] - unix
    if len(weights) != scale.buckets:
        weights, at = [0.0] * scale.buckets, unix
    exponent = (unix - at) / half_life_s
    if exponent > MAX_EXPONENT:
        weights = [w * 2.0**-exponent for w in weights]
        at, exponent = unix, 0.0
    weights[_bucket(value, scale)] += seconds * 2.0 ** max(exponent, -MAX_EXPONENT)
    window = _slide(histogram.window, unix, value, window_s)
    return Histogram(tuple(weights), at, histogram.seconds + seconds, window)


def percentile(histogram: Histogram, ratio: float, scale: Scale) -> float | None:
    """End of the bucket below which `ratio` of the weight lies; None when there is no sample."""
    sums = list(accumulate(histogram.weights))
    if not sums or sums[-1] <= 0.0:
        return None
    index = min(bisect_left(sums, ratio * sums[-1] * (1 - 1e-9)), len(sums) - 1)
    return float(scale.first * GROWTH**index)


def window_max(histogram: Histogram) -> float | None:
    """Largest value of the last window; None when there is none."""
    return max((value for _, value in histogram.window), default=None)


def _bucket(value: float, scale: Scale) -> int:
    if value <= scale.first:
        return 0
    return min(scale.buckets - 1, math.ceil(math.log(value / scale.first) / math.log(GROWTH) - 1e-9))


def _slide(
    window: tuple[tuple[float, float], ...], unix: float, value: float, window_s: float
) -> tuple[tuple[float, float], ...]:
    """Keep one maximum per twelfth of the window: (start of the part, maximum)."""
    kept = [(t, v) for t, v in window if unix - window_s <= t <= unix]
    if kept and unix - kept[-1][0] < window_s / WINDOW_PARTS:
        kept[-1] = (kept[-1][0], max(kept[-1][1], value))
    else:
        kept.append((unix, value))
    return tuple(kept)
