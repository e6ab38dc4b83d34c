"""From a value to a feeling: robust one-sided z, and the cumulative sum of what is more than usual.

    z = (x - q50) / s clipped to [-6, 6]         S = max(0, S + (min(z, 4.5) - k) * w)        alarm at S >= h

Page's CUSUM (Biometrika 1954); with k = 1 and h = 7 two samples far beyond what is usual or three bad ones
are needed, and by Siegmund's formula an alarm without cause comes once in 6 million independent normal
samples. A sample of less than a second weighs less, one of a longer time up to 1.75 times as much: the time
to detect does not depend on the pace.
The sum of an open alarm is halved by each good sample, so that it does not outlive its cause.
Invariant: from the same feeling, a worse value never leads to a smaller sum.
"""

from __future__ import annotations

from typing import NamedTuple

from nodeagent.core.interference.signs import Rule
from nodeagent.model.interference_policy import InterferencePolicy
from nodeagent.model.senses import Feeling, Usual

Z_CLIP, Z_COUNTED, Z_BAD, Z_GOOD = 6.0, 4.5, 2.0, 1.0
Z_OVER = 4.0  # what is over a limit counts as, where nothing is known to be usual
MOST = 1.5  # of h: what the sum is capped at, lest it takes long to fall
EXCESS_S = 300.0
EXCESSES = 3  # bad samples in EXCESS_S that raise the alarm of a sign that is seldom measured (CPI2)
CALM_SAMPLES = 3
LISTED = 1.0  # sums below it are noise
WEIGHT_MOST = 1.75  # one sample, however long it is of, raises no alarm
_SAMPLE_S = 1.0


def z_score(value: float, usual: Usual) -> float:
    """Deviation in spreads, in [-6, 6]."""
    return min(Z_CLIP, max(-Z_CLIP, (value - usual.median) / usual.spread))


def felt(
    before: Feeling | None,
    value: float,
    usual: Usual,
    at: float,
    span_s: float,
    policy: InterferencePolicy,
    rule: Rule,
) -> Feeling | None:
    """The feeling after a sample of `span_s` seconds; None when it is at rest."""
    seen = _Seen(value, usual.median, z_score(value, usual), at, span_s)
    return _after(before, seen, policy, rule)


def felt_cold(
    before: Feeling | None,
    value: float,
    over: bool,
    at: float,
    span_s: float,
    policy: InterferencePolicy,
    rule: Rule,
) -> Feeling | None:
    """The same where nothing is known to be usual: a value `over` its limit is bad, any other is good."""
    seen = _Seen(value, None, Z_OVER if over else 0.0, at, span_s)
    return _after(before, seen, policy, rule)


class _Seen(NamedTuple):
    value: float
    median: float | None
    z: float
    at: float
    span_s: float


def _after(before: Feeling | None, seen: _Seen, policy: InterferencePolicy, rule: Rule) -> Feeling | None:
    value, median, z, at, span_s = seen
    old = before or Feeling(value, median, 0.0, 0.0, at, value)
    h = policy.cusum_h
    weight = 1.0 if rule.sparse else min(WEIGHT_MOST, span_s / _SAMPLE_S)
    good = old.good + 1 if z < Z_GOOD else 0
    base = old.cusum / 2 if old.opened is not None and good else old.cusum
    cusum = min(MOST * h, max(0.0, base + (min(z, Z_COUNTED) - policy.cusum_k) * weight))
    excess = tuple(t for t in old.excess if at - t <= EXCESS_S)
    if rule.sparse and z > Z_BAD:
        excess = (*excess, at)[-EXCESSES:]
        if len(excess) == EXCESSES:
            cusum = max(cusum, h)
    over = old.over + 1 if cusum >= h else 0
    opened = old.opened if old.opened is not None or cusum < h else at
    if opened is not None and cusum < 1.0 and good >= CALM_SAMPLES:
        opened = None
    if opened is None and cusum == 0.0 and not excess:
        return None
    return Feeling(value, median, z, cusum, at, max(value, old.worst), opened, over, good, excess)
