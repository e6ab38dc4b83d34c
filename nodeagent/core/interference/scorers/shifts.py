"""Could it be chance? What the victim felt is moved along the window, around its end, by every number of samples.

A move keeps how each row hangs together in time, and how the rows hang together, and breaks only what links
felt and used. So p is the share of moves at which the best of *all* rows links as well as this one does unmoved
(the maximum statistic of Westfall and Young, 1993): it holds for all neighbours together, needs no division by
their number, and can be reached with 20 samples. It is at least 1/samples.

Neighbours that take turns each explain only their part; for them the same is asked of the best few together.
"""

from __future__ import annotations

from collections.abc import Sequence

from nodeagent.core.interference.frame import Frame
from nodeagent.core.interference.scorers.algebra import (
    LEVELS,
    circular,
    covariance,
    levels,
    mean,
    packed,
    spread,
)

MOST_ROWS = 32  # those whose use varies most; chosen without a look at the victim, so p stays true
TOGETHER = 4
HOPELESS = 0.2  # beyond this p the count ends

_Links = list[list[float]]  # [row][move]: covariance


def shifts(frame: Frame) -> tuple[float, ...]:
    """p of each row: the probability that any neighbour looks as guilty by chance; 1.0 for what is constant."""
    n, rows = len(frame.felt), frame.scaled
    spreads = [spread(row) for row in rows]
    movers = [k for k, s in enumerate(spreads) if s > 0.0]
    movers = sorted(sorted(movers, key=lambda k: (-spreads[k], k))[:MOST_ROWS])
    values = [1.0] * len(rows)
    if not movers:
        return tuple(values)
    sizes = [spreads[k] for k in movers]
    links = _links(frame, [rows[k] for k in movers])
    alone = _alone(links, sizes, frame.most_lag)
    taking_turns = _together(links, sizes, [rows[k] for k in movers])
    for m, k in enumerate(movers):
        values[k] = max(1.0 / n, min(alone[m], taking_turns.get(m, 1.0)))
    return tuple(values)


def _links(frame: Frame, rows: Sequence[Sequence[float]]) -> _Links:
    badness = levels(frame.badness, 1.0)
    n, middle = len(badness), mean(badness) / LEVELS
    found = []
    for row in rows:
        top = max(row)
        used = levels(row, top)
        scale, product = top / (LEVELS * LEVELS * n), middle * mean(used) * top / LEVELS
        found.append([value * scale - product for value in circular(badness, packed(used))])
    return found


def _alone(links: _Links, sizes: Sequence[float], most_lag: int) -> list[float]:
    """p of each row by itself. Links are weighed between covariance and correlation: size matters, not alone."""
    weighed = [[value / size**0.5 for value in row] for row, size in zip(links, sizes, strict=True)]
    if most_lag:
        weighed = [_with_lag(row, most_lag) for row in weighed]
    best = sorted(map(max, zip(*weighed, strict=True)))
    return [_beyond(best, row[0]) for row in weighed]


def _with_lag(row: list[float], most: int) -> list[float]:
    """The best of the moves by which felt comes up to `most` samples before it did: it lags behind use."""
    return list(map(max, zip(row, *(row[lag:] + row[:lag] for lag in range(1, most + 1)), strict=True)))


def _beyond(ascending: Sequence[float], value: float) -> float:
    """Share of the moves at which the best link is at least as strong."""
    if value <= 0.0:
        return 1.0
    least = value * (1.0 - 1e-9)
    return sum(1 for best in ascending if best >= least) / len(ascending)


def _together(links: _Links, sizes: Sequence[float], rows: Sequence[Sequence[float]]) -> dict[int, float]:
    """p of the rows that explain most together, each by what would be lost without it."""
    pursuit = _Pursuit(rows, sizes)
    at_zero = [row[0] for row in links]
    found = pursuit.follow(at_zero)
    if len(found) < 2:
        return {}
    whole = sum(gain for _, gain in found)
    lost = {k: whole - sum(g for _, g in pursuit.follow(at_zero, without=k)) for k, _ in found}
    as_good = 0
    seconds = []
    n = len(links[0])
    for moved in zip(*links, strict=True):
        gains = [gain for _, gain in pursuit.follow(moved)]
        as_good += sum(gains) >= whole * (1.0 - 1e-9)
        seconds.append(gains[1] if len(gains) > 1 else 0.0)
        if as_good > HOPELESS * n:
            return {}
    return {k: max(as_good / n, _beyond(seconds, loss)) for k, loss in lost.items()}


class _Pursuit:
    """Matching pursuit (Mallat and Zhang, 1993) with positive steps only, from covariances alone."""

    __slots__ = ("_common", "_rows", "_squares", "_weights")

    def __init__(self, rows: Sequence[Sequence[float]], sizes: Sequence[float]) -> None:
        self._rows = rows
        self._squares = [size * size for size in sizes]
        self._weights = [size**-0.5 for size in sizes]
        self._common: dict[int, list[float]] = {}

    def follow(self, links: Sequence[float], without: int = -1) -> list[tuple[int, float]]:
        """(row, explained variance) of up to TOGETHER different rows, the best first."""
        left = list(links)
        if without >= 0:
            left[without] = 0.0
        found: list[tuple[int, float]] = []
        for _ in range(TOGETHER):
            strengths = [link * weight for link, weight in zip(left, self._weights, strict=True)]
            strongest = max(strengths)
            if strongest <= 0.0:
                break
            k = strengths.index(strongest)
            gain = left[k] * left[k] / self._squares[k]
            if found and gain < 0.01 * found[0][1]:
                break
            found.append((k, gain))
            step = left[k] / self._squares[k]
            left = [link - step * shared for link, shared in zip(left, self._with(k), strict=True)]
            left[k] = -1.0
            if without >= 0:
                left[without] = 0.0
        return found

    def _with(self, k: int) -> list[float]:
        """Covariances of row k with all."""
        found = self._common.get(k)
        if found is None:
            mine = self._rows[k]
            found = self._common[k] = [covariance(mine, row) for row in self._rows]
        return found
