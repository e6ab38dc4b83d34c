"""Which neighbours together explain what the victim feels: non-negative least squares with a ridge.

Rows of one kind keep their sizes. So of two that rise at the same moment the larger is charged for nearly all
of it (as the square of its size), and a newcomer that uses little is not guilty for coming when it did.
Coordinate descent: Lawson and Hanson, 1974, chapter 23; Franc et al., CAIP 2005.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from nodeagent.core.interference.algebra import centred, dot, mean
from nodeagent.core.interference.frame import Frame

RIDGE = 1e-3
MOST_ROWS = 24
STEPS = 4  # of descent before the rest is solved
ROUNDS = 20
ENOUGH = 1e-9
LEAST_PART = 0.1  # what explains less explains nothing


class Fit(Struct, frozen=True, gc=False):
    """Per row, a share of the most of its kind: its `betas`, and the parts of the harm that it explains: of
    all that is in the window (`parts`), and of the trouble at hand (`now`)."""

    badness: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]
    betas: tuple[float, ...]
    parts: tuple[float, ...]
    now: tuple[float, ...]
    good: tuple[int, ...]

    def left_to(self, frame: Frame, owner: int) -> list[float]:
        """The badness that the other neighbours, beyond what they used while all was well, do not explain."""
        left = list(self.badness)
        for row, beta, other in zip(self.rows, self.betas, frame.owners, strict=True):
            if beta > 0.0 and other != owner:
                usual = sum([row[g] for g in self.good]) / max(1, len(self.good))
                left = [x - beta * (u - usual) for x, u in zip(left, row, strict=True)]
        return [min(1.0, max(0.0, x)) for x in left]


def joint(frame: Frame) -> tuple[float, ...]:
    """Of what the victim feels now beyond usual, the part that each row explains; their sum is in [0, 1].

    How much harm comes with a row's use is told by the whole window, how much it used by the trouble at hand.
    """
    return fitted(frame).now


def fitted(frame: Frame) -> Fit:
    """The rows that together explain badness, among the MOST_ROWS that go with it most."""
    badness, rows, n = frame.badness, frame.uses, len(frame.felt)
    over = centred(badness)
    linked = [dot(over, row) / n if s > 0.0 else 0.0 for row, s in zip(rows, frame.spreads, strict=True)]
    chosen = sorted([k for k, c in enumerate(linked) if c > 0.0], key=lambda k: (-linked[k], k))[:MOST_ROWS]
    level = [centred(rows[k]) for k in chosen]
    gram = [[0.0] * len(chosen) for _ in chosen]
    for i, row in enumerate(level):
        for j in range(i + 1):
            gram[i][j] = gram[j][i] = dot(row, level[j]) / n
    betas = [0.0] * len(rows)
    for k, beta in zip(chosen, nnls(gram, [linked[k] for k in chosen]), strict=True):
        betas[k] = beta
    good = frame.good
    ever = tuple([t for t, x in enumerate(frame.felt) if x > frame.bad_from])
    parts, now = (_parts(badness, rows, betas, bad, good) for bad in (ever, frame.bad))
    return Fit(badness, rows, tuple(betas), parts, now, good)


def _parts(
    badness: Sequence[float],
    rows: Sequence[Sequence[float]],
    betas: Sequence[float],
    bad: Sequence[int],
    good: Sequence[int],
) -> tuple[float, ...]:
    """What of the rise of badness each row explains; their sum is in [0, 1]."""
    felt = _rise(badness, bad, good)
    if felt <= 0.0:
        return (0.0,) * len(betas)
    parts = [
        max(0.0, beta * _rise(row, bad, good) / felt) if beta > 0.0 else 0.0
        for row, beta in zip(rows, betas, strict=True)
    ]
    whole = max(1.0, sum(parts))
    return tuple([part / whole for part in parts])


def nnls(gram: Sequence[Sequence[float]], target: Sequence[float], ridge: float = RIDGE) -> list[float]:
    """b >= 0 that makes b'Gb/2 - b't + ridge b'b/2 least.

    Coordinate descent finds which are above 0; those are then solved for, since of rows that are much alike
    it would go on and on shifting a little from the first to the last.
    """
    betas = [0.0] * len(target)
    for _ in range(ROUNDS):
        before = betas
        betas = _solved(gram, target, ridge, _descended(gram, target, ridge, betas))
        if all(abs(a - b) <= ENOUGH * (1.0 + abs(b)) for a, b in zip(before, betas, strict=True)):
            break
    return betas


def _descended(
    gram: Sequence[Sequence[float]], target: Sequence[float], ridge: float, start: Sequence[float]
) -> list[float]:
    """Some steps down along each coordinate in turn."""
    betas = list(start)
    slopes = [dot(row, betas) - value for row, value in zip(gram, target, strict=True)]
    for _ in range(STEPS):
        for i, row in enumerate(gram):
            step = max(-betas[i], -(slopes[i] + ridge * betas[i]) / (row[i] + ridge))
            if step != 0.0:
                betas[i] += step
                slopes = [slope + step * g for slope, g in zip(slopes, row, strict=True)]
    return betas


def _solved(
    gram: Sequence[Sequence[float]], target: Sequence[float], ridge: float, start: Sequence[float]
) -> list[float]:
    """The least over those that `start` has above 0; what would fall below is left at 0."""
    active = [i for i, beta in enumerate(start) if beta > 0.0]
    while active:
        rows = [[gram[i][j] + (ridge if i == j else 0.0) for j in active] + [target[i]] for i in active]
        found = _eliminated(rows)
        if min(found) >= 0.0:
            betas = [0.0] * len(start)
            for i, beta in zip(active, found, strict=True):
                betas[i] = beta
            return betas
        active = [i for i, beta in zip(active, found, strict=True) if beta > 0.0]
    return list(start)


def _eliminated(rows: list[list[float]]) -> list[float]:
    """Gauss's elimination of a positive definite system, the right side in the last column."""
    for i, row in enumerate(rows):
        for k in range(i + 1, len(rows)):
            share = rows[k][i] / row[i]
            if share:
                rows[k] = [x - share * y for x, y in zip(rows[k], row, strict=True)]
    found = [0.0] * len(rows)
    for i in range(len(rows) - 1, -1, -1):
        known = sum([rows[i][j] * found[j] for j in range(i + 1, len(rows))])
        found[i] = (rows[i][-1] - known) / rows[i][i]
    return found


def _rise(row: Sequence[float], bad: Sequence[int], good: Sequence[int]) -> float:
    """Mean over bad samples less that over good ones."""
    if not bad or not good:
        return 0.0
    return mean([row[n] for n in bad]) - mean([row[n] for n in good])
