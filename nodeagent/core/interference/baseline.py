"""What is usual: a decaying histogram per workload, sign and load bin.

Buckets grow by 5 %, so a quantile is at most 5 % too high; what is below the first bucket is taken for its
end. As in core.histogram, later samples weigh more: 2^((t - at) / half-life). When the clock is set back, the
past moves with it, or what was seen by the wrong clock would outweigh all else until that time comes.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate

from nodeagent.core.interference.signs import RULES
from nodeagent.model.interference_policy import InterferencePolicy
from nodeagent.model.senses import Baseline, Usual, Workload
from nodeagent.model.symptom import Sign

GROWTH = 1.05
FIRST = 0.1  # end of the first bucket, in least spreads of the sign
MOST_BUCKETS = 600  # from the first to 10^12 times as much
FADED = 7.0  # half-lives after which what was learned is forgotten as a whole
HEAVIEST = 8.0  # half-lives after which all weights are made lighter
_LOG_GROWTH = math.log(GROWTH)
CLUMP = 10  # samples
UNSURE = 5.0  # by which spreads of 100 samples are taken half as large again
LATEST = 3000  # samples that `mean` and `clumped` are of
MOST_LOAD_BIN = 24
UNASKED = 100  # load bins of pods without a request begin here


def load_bin(cores: float, request_cores: float | None) -> int:
    """Fifths of the request up to 1, then doublings: 0..3, 4 from 0.8, 5 from 2, 6 from 4 times the request.

    Without a request: doublings from an eighth of a core on, from UNASKED on.
    """
    if request_cores:
        load = cores / request_cores
        if load < 0.8:
            return int(5.0 * load)
        return min(MOST_LOAD_BIN, 4 + max(0, int(math.log2(max(load, 1.0)))))
    return UNASKED + min(MOST_LOAD_BIN, max(0, 1 + math.floor(math.log2(max(cores, 0.01) / 0.125))))


def fold(
    baseline: Baseline, values: Sequence[float], sign: Sign, unix: float, half_life_s: float
) -> Baseline:
    """Learn these values, all as of `unix` seconds. What is more than 7 half-lives old is forgotten."""
    if not baseline.weights or unix - baseline.last > FADED * half_life_s:
        baseline = Baseline(at=unix, last=unix)
    at = baseline.at - max(0.0, baseline.last - unix)
    weights = list(baseline.weights)
    if unix - at > HEAVIEST * half_life_s:
        lighter = 2.0 ** ((at - unix) / half_life_s)
        weights, at = [weight * lighter for weight in weights], unix
    first, one = RULES[sign].floor * FIRST, 2.0 ** ((unix - at) / half_life_s)
    buckets = [_bucket(value, first) if value > first else 0 for value in values]
    low = _widened(weights, baseline.low, min(buckets), max(buckets))
    for bucket in buckets:
        weights[bucket - low] += one
    samples = baseline.samples + len(values)
    part = len(values) / min(samples, LATEST)
    mean = baseline.mean + part * (sum(values) / len(values) - baseline.mean)
    clumped = baseline.clumped + part * (_clumped(values, mean) - baseline.clumped)
    return Baseline(low, tuple(weights), at, unix, samples, *_quantiles(low, weights, first), mean, clumped)


def _clumped(values: Sequence[float], mean: float) -> float:
    """Variance of sums of CLUMP values in a row / CLUMP times that of one; 1 where it cannot be told."""
    off = [value - mean for value in values]
    single = sum([x * x for x in off[: len(off) // CLUMP * CLUMP]])
    if single <= 0.0:
        return 1.0
    return sum([sum(off[n : n + CLUMP]) ** 2 for n in range(0, len(off) - CLUMP + 1, CLUMP)]) / single


def usuals(workload: Workload, load: int, policy: InterferencePolicy) -> dict[Sign, Usual]:
    """What is usual in this load bin; where it is cold, in the nearest warm one, or in all of them.

    The median and the spread of the upper half, for all signs are skewed to the right. A sign that is cold is
    left out.
    """
    by_sign: dict[str, dict[int, Baseline]] = {}
    for key, baseline in workload.baselines.items():
        name, _, at = key.partition("@")
        by_sign.setdefault(name, {})[int(at)] = baseline
    found = {}
    for name, there in by_sign.items():
        sign = Sign(name)
        chosen = _warm(there, sign, load, policy.warm_samples)
        if chosen is not None:
            found[sign] = _usual(chosen, RULES[sign].floor, policy.cusum_k)
    return found


def spread_out(usual: Usual, floor: float, k: float) -> Usual:
    """The same with a spread of at least `floor`."""
    if usual.spread >= floor:
        return usual
    return Usual(usual.median, floor, usual.median + k * floor)


def _usual(baseline: Baseline, floor: float, k: float) -> Usual:
    """The larger of what q95 and q99 say; more while they are of few samples, and where bad ones come in
    clumps: the cumulative sum adds those up."""
    upper = max((baseline.q95 - baseline.q50) / 1.645, (baseline.q99 - baseline.q50) / 2.326)
    upper *= math.sqrt(max(1.0, baseline.clumped)) * (1.0 + UNSURE / math.sqrt(baseline.samples))
    spread = max(upper, floor, 0.05 * baseline.q50)
    return Usual(baseline.q50, spread, baseline.q50 + k * spread)


def _warm(there: Mapping[int, Baseline], sign: Sign, load: int, warm_samples: int) -> Baseline | None:
    exact = there.get(load)
    if exact is not None and exact.samples >= warm_samples:
        return exact
    warm = [other for other, baseline in there.items() if baseline.samples >= warm_samples]
    if warm:
        return there[min(warm, key=lambda other: (abs(other - load), -other))]
    if sum(baseline.samples for baseline in there.values()) < warm_samples:
        return None
    return _together(list(there.values()), RULES[sign].floor * FIRST)


def _together(parts: list[Baseline], first: float) -> Baseline:
    """All load bins as one, as far as their quantiles go."""
    weights: list[float] = []
    low = parts[0].low
    for part in parts:
        low = _widened(weights, low, part.low, part.low + len(part.weights) - 1)
        for bucket, weight in enumerate(part.weights, part.low - low):
            weights[bucket] += weight
    clumped = max(part.clumped for part in parts)
    samples = sum(part.samples for part in parts)
    return Baseline(0, (), 0.0, 0.0, samples, *_quantiles(low, weights, first), 0.0, clumped)


def _widened(weights: list[float], low: int, lowest: int, highest: int) -> int:
    """Make room for buckets from `lowest` to `highest`; returns which is the first now."""
    if not weights:
        low = lowest
    if lowest < low:
        weights[:0] = [0.0] * (low - lowest)
        low = lowest
    weights.extend([0.0] * (highest - low + 1 - len(weights)))
    return low


def _bucket(value: float, first: float) -> int:
    """Bucket n ends at first * 1.05^n; what is 0 or nearly is in bucket 0, whose end counts as 0."""
    return min(MOST_BUCKETS, math.ceil(math.log(value / first) / _LOG_GROWTH - 1e-9))


def _quantiles(low: int, weights: Sequence[float], first: float) -> tuple[float, float, float]:
    """q50, q95 and q99: ends of their buckets."""
    sums = list(accumulate(weights))
    most = sums[-1] * (1 - 1e-9)
    found = [low + bisect_left(sums, ratio * most) for ratio in (0.5, 0.95, 0.99)]
    q50, q95, q99 = (first * GROWTH**at if at else 0.0 for at in found)
    return q50, q95, q99
