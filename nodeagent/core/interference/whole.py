"""Ticks that come early are short: their values add up to a sample of most of a second before it is judged.

In a tenth of a second one bad moment looks like trouble. What has a time span of its own, because it is read
less often than each tick, is a whole sample as it is.
"""

from __future__ import annotations

from typing import NamedTuple

from nodeagent.core.interference.measures import Measures
from nodeagent.model.senses import PodSense
from nodeagent.model.symptom import Sign

SAMPLE_S = 0.75

_Parts = dict[Sign, tuple[float, float]]


class Sample(NamedTuple):
    """Values to be judged now: of `tick_s` seconds where `span_s` does not say otherwise."""

    values: dict[Sign, float]
    span_s: dict[Sign, float]
    tick_s: float


def whole_sample(m: Measures, dt_s: float | None, old: PodSense) -> tuple[Sample, float, _Parts]:
    """What is to be judged now, and what is left: seconds, and per sign (value * seconds, seconds)."""
    seconds = dt_s or 0.0
    if seconds >= SAMPLE_S and not old.part:
        return Sample(m.values, m.span_s, seconds), 0.0, {}
    parts = dict(old.part)
    for sign, value in m.values.items():
        if sign not in m.span_s:
            total, span_s = parts.get(sign, (0.0, 0.0))
            parts[sign] = (total + value * seconds, span_s + seconds)
    own = {sign: value for sign, value in m.values.items() if sign in m.span_s}
    if old.part_s + seconds < SAMPLE_S:
        return Sample(own, m.span_s, seconds), old.part_s + seconds, parts
    enough = (old.part_s + seconds) / 2
    whole = {sign: total / span_s for sign, (total, span_s) in parts.items() if span_s >= enough}
    return Sample(own | whole, m.span_s, old.part_s + seconds), 0.0, {}
