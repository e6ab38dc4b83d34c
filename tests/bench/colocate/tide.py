"""The load of the online services: a tide, one wave a window, with surges that come at once.

    WARM at the trough    WINDOW: from trough to crest to trough, times SURGE_FACTOR in each surge

The services are loaded alike, each in requests per second at its crest; a wave of half a minute stands for a
day's, so what follows the tide slowly fares worse here than there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from msgspec import Struct

TROUGH_RATIO = 0.25  # of the crest: the nightly low (20 to 30 % in the traces that are public)
SURGE_FACTOR = 2.0
SURGE_S = 4.0
STEP_S = 1.0
TAIL_S = 0.5  # the load lasts a little longer than what is measured


class Shape(Struct, frozen=True):
    """Times in seconds; a surge begins at each of `surges`, shares of the window."""

    warm_s: float
    window_s: float
    surges: tuple[float, ...] = (0.14, 0.74)

    @property
    def lasts_s(self) -> float:
        """From the first request to the end of the window."""
        return self.warm_s + self.window_s

    @property
    def surges_at_s(self) -> tuple[float, ...]:
        """When surges begin, in seconds since the load began; only those that end within the window."""
        begins = (self.warm_s + share * self.window_s for share in self.surges)
        return tuple(at for at in begins if at + SURGE_S <= self.lasts_s)


def level(at_s: float, shape: Shape) -> float:
    """The load at this instant as a share of the crest, with surges."""
    phase = (at_s - shape.warm_s) / shape.window_s if shape.window_s else 0.0
    swing = 0.0 if phase < 0.0 or phase > 1.0 else (1.0 - math.cos(math.tau * phase)) / 2.0
    tide = TROUGH_RATIO + (1.0 - TROUGH_RATIO) * swing
    surging = any(begin <= at_s < begin + SURGE_S for begin in shape.surges_at_s)
    return tide * (SURGE_FACTOR if surging else 1.0)


def rates(crest_per_s: float, shape: Shape) -> list[tuple[float, float]]:
    """The load as (second, requests/s), each from its second on; the last one is 0."""
    end = shape.lasts_s + TAIL_S
    return [*((at, crest_per_s * level(at, shape)) for at in _instants(shape, end)), (end, 0.0)]


def _instants(shape: Shape, end: float) -> Iterator[float]:
    edges = {edge for begin in shape.surges_at_s for edge in (begin, begin + SURGE_S)}
    steps = {number * STEP_S for number in range(math.ceil(end / STEP_S))}
    yield from sorted(at for at in edges | steps if at < end)
