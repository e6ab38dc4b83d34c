"""Could it be chance? What the victim felt is moved along the window, around its end, by 0 to n-1 samples.

A move keeps how each row hangs together in time and breaks only what links felt and used. A row's p is the
probability that *any* row, each moved by itself, links as well as this one does unmoved (the maximum
statistic of Westfall and Young, 1993): it holds for all neighbours together without a division by their
number, since those who never did the like do not count. It is at least 1/samples; 20 samples suffice for
0.05.

Who takes turns with others explains only a part. So where the joint fit finds several, each is asked about
what is left of the harm when the others' parts are taken off.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from nodeagent.core.interference.algebra import LEVELS, circular, dot, levels, mean, packed
from nodeagent.core.interference.frame import Frame
from nodeagent.core.interference.scorers.joint import LEAST_PART, fitted

MOST_ROWS = 32  # those whose use varies most; chosen without a look at the victim, so p stays true
MOST_TURNS = 5  # rows of which is asked what they explain beside the others
CONTEXT = 30  # samples before and after a bad one that it is compared with


def shifts(frame: Frame) -> tuple[float, ...]:
    """p of each row: the probability that anybody looks as guilty by chance; 1.0 for what is constant."""
    spreads = frame.spreads
    movers = [k for k, s in enumerate(spreads) if s > 0.0]
    movers = sorted(sorted(movers, key=lambda k: (-spreads[k], k))[:MOST_ROWS])
    values = [1.0] * len(spreads)
    if not movers:
        return tuple(values)
    moved = _Moved(frame, movers)
    near = _near(frame)
    for k, p in zip(movers, moved.chances(contrast(frame.badness, near)), strict=True):
        values[k] = p
    fit = fitted(frame)
    part = [max(ever, now) for ever, now in zip(fit.parts, fit.now, strict=True)]
    turns = sorted([k for k in movers if part[k] >= LEAST_PART], key=lambda k: (-fit.now[k], -part[k], k))
    if len({frame.owners[k] for k in turns}) > 1:
        for k in turns[:MOST_TURNS]:
            left = contrast(fit.left_to(frame, frame.owners[k]), near)
            values[k] = moved.chances(left)[movers.index(k)]
    return tuple(values)


def contrast(badness: Sequence[float], near: bytes) -> list[float]:
    """Badness less its mean over the samples that are `near` bad ones; 0 further away."""
    middle = dot(badness, near) / max(1, sum(near))
    return [value - middle if close else 0.0 for value, close in zip(badness, near, strict=True)]


def _near(frame: Frame) -> bytes:
    """1 for each sample within CONTEXT of a bad one."""
    near = bytearray(len(frame.felt))
    for n, x in enumerate(frame.felt):
        if x > frame.bad_from:
            first = max(0, n - CONTEXT)
            near[first : n + CONTEXT + 1] = b"\x01" * len(near[first : n + CONTEXT + 1])
    return bytes(near)


class _Moved:
    """Rows as the digits of numbers, to be linked with something that is moved along them."""

    __slots__ = ("_lag", "_owners", "_rows", "_sums", "_tops", "_weights")

    def __init__(self, frame: Frame, movers: Sequence[int]) -> None:
        rows = [frame.uses[k] for k in movers]
        self._owners = [frame.owners[k] for k in movers]
        self._tops = [max(row) for row in rows]
        numbers = [levels(row, top) for row, top in zip(rows, self._tops, strict=True)]
        self._sums = [sum(row) for row in numbers]
        self._rows = [packed(row) for row in numbers]
        # between covariance and correlation: size matters, but not alone
        self._weights = [frame.spreads[k] ** -0.75 for k in movers]
        self._lag = frame.most_lag

    def chances(self, felt: Sequence[float]) -> list[float]:
        """p of each row."""
        links = self._links(felt)
        best: dict[int, list[float]] = {}
        for owner, row in zip(self._owners, links, strict=True):
            best[owner] = list(map(max, best[owner], row)) if owner in best else row
        ascending = [sorted(row) for row in best.values()]
        return [_by_any(ascending, row[0], self._lag) for row in links]

    def _links(self, felt: Sequence[float]) -> list[list[float]]:
        """Weighed covariance of each row at each move."""
        low = min(felt)
        height = max(felt) - low
        numbers = levels([value - low for value in felt], height)
        unit = height / (LEVELS * LEVELS * len(felt))
        found = []
        for row, total, top, weight in zip(self._rows, self._sums, self._tops, self._weights, strict=True):
            even, scale = mean(numbers) * total, unit * top * weight  # even: with any contrast that is level
            found.append([(value - even) * scale for value in circular(numbers, row)])
        return found


def _by_any(ascending: Sequence[Sequence[float]], value: float, lags: int) -> float:
    """The probability that any neighbour, each moved by itself, links as well as `value`.

    Moves count twice: of what lasts until now only those to one side look as good, but both would be chance.
    `lags` are what was tried besides, to find the lag at which things go together.
    """
    if value <= 0.0:
        return 1.0
    none, least = 1.0, value * (1.0 - 1e-9)
    for row in ascending:
        as_good = len(row) - bisect_left(row, least)
        if as_good:
            none *= 1.0 - min(1.0, (2 * as_good - 1 + lags) / len(row))
    return 1.0 - none
