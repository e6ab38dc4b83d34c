"""What is usual: a decaying histogram per workload, sign and load bin.

Buckets grow by 5 %, so a quantile is at most 5 % too high; what is below the first bucket is taken for its
end. As in core.histogram later samples weigh more, but here the past is made lighter at each fold, for a
fold is of some dozens of samples. When the clock is set back, the past moves with it.
"""

from __future__ import annotations

import math
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
LEAST_WEIGHT = 1e-6
_LOG_GROWTH = math.log(GROWTH)
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
    """Learn these values, all as of `unix` seconds. A past of more than 7 half-lives ago is forgotten."""
    halvings = max(0.0, unix - baseline.at) / half_life_s
    known = {} if halvings > FADED else _faded(baseline, 2.0**-halvings)
    samples = 0 if halvings > FADED else baseline.samples
    first = RULES[sign].floor * FIRST
    for value in values:
        at = _bucket(value, first)
        known[at] = known.get(at, 0.0) + 1.0
    low = min(known)
    weights = tuple([known.get(at, 0.0) for at in range(low, max(known) + 1)])
    q50, q95 = _quantiles(low, weights, first)
    return Baseline(low, weights, unix, samples + len(values), q50, q95)


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
    spread = max((baseline.q95 - baseline.q50) / 1.645, floor, 0.05 * baseline.q50)
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
    known: dict[int, float] = {}
    for part in parts:
        for at, weight in enumerate(part.weights, part.low):
            known[at] = known.get(at, 0.0) + weight
    low = min(known)
    weights = tuple([known.get(at, 0.0) for at in range(low, max(known) + 1)])
    q50, q95 = _quantiles(low, weights, first)
    return Baseline(low, weights, 0.0, sum(part.samples for part in parts), q50, q95)


def _faded(baseline: Baseline, factor: float) -> dict[int, float]:
    lighter = ((at, weight * factor) for at, weight in enumerate(baseline.weights, baseline.low))
    return {at: weight for at, weight in lighter if weight > LEAST_WEIGHT}


def _bucket(value: float, first: float) -> int:
    """Bucket n ends at first * 1.05^n; what is 0 or nearly is in bucket 0, whose end counts as 0."""
    if value <= first:
        return 0
    return min(MOST_BUCKETS, math.ceil(math.log(value / first) / _LOG_GROWTH - 1e-9))


def _quantiles(low: int, weights: tuple[float, ...], first: float) -> tuple[float, float]:
    sums = list(accumulate(weights))
    found = []
    for ratio in (0.5, 0.95):
        wanted = ratio * sums[-1] * (1 - 1e-9)
        at = low + next((n for n, total in enumerate(sums) if total >= wanted), len(sums) - 1)
        found.append(first * GROWTH**at if at else 0.0)
    return found[0], found[1]
