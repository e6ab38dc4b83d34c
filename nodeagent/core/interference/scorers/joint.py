"""Which neighbours together explain what the victim feels: non-negative least squares with a ridge.

Rows of one kind keep their sizes. So of two that rise at the same moment the larger is charged for nearly all
of it (as the square of its size), and a newcomer that uses little is not guilty for coming when it did.
Coordinate descent: Lawson and Hanson, 1974, chapter 23; Franc et al., CAIP 2005.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from nodeagent.core.interference.frame import Frame
from nodeagent.core.interference.scorers.algebra import covariance, mean, spread

RIDGE = 1e-3
MOST_ROWS = 24
ROUNDS = 100
ENOUGH = 1e-6
LEAST_PART = 0.1  # what explains less explains nothing


class Fit(Struct, frozen=True, gc=False):
    """Per row, a share of the most of its kind: its `betas`, and the `parts` of the harm that it explains."""

    badness: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]
    betas: tuple[float, ...]
    parts: tuple[float, ...]
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
    """Of what the victim feels beyond usual, the part that each row explains; their sum is in [0, 1]."""
    return fitted(frame).parts


def fitted(frame: Frame) -> Fit:
    """The rows that together explain badness, among the MOST_ROWS that go with it most."""
    badness, rows = frame.badness, frame.scaled
    linked = [covariance(badness, row) if spread(row) > 0.0 else 0.0 for row in rows]
    chosen = sorted([n for n, c in enumerate(linked) if c > 0.0], key=lambda n: (-linked[n], n))[:MOST_ROWS]
    gram = [[0.0] * len(chosen) for _ in chosen]
    for i, a in enumerate(chosen):
        for j, b in enumerate(chosen[: i + 1]):
            gram[i][j] = gram[j][i] = covariance(rows[a], rows[b])
    bad = [x > frame.bad_from for x in frame.felt]
    felt = _rise(badness, bad)
    betas, parts = [0.0] * len(rows), [0.0] * len(rows)
    for n, beta in zip(chosen, nnls(gram, [linked[n] for n in chosen]), strict=True):
        betas[n] = beta
        parts[n] = max(0.0, beta * _rise(rows[n], bad) / felt) if felt > 0.0 else 0.0
    whole = max(1.0, sum(parts))
    good = tuple([n for n, is_bad in enumerate(bad) if not is_bad])
    return Fit(badness, rows, tuple(betas), tuple([part / whole for part in parts]), good)


def nnls(gram: Sequence[Sequence[float]], target: Sequence[float], ridge: float = RIDGE) -> list[float]:
    """b >= 0 that makes b'Gb/2 - b't + ridge b'b/2 least, by coordinate descent."""
    betas = [0.0] * len(target)
    slopes = [-value for value in target]  # of the sum by each b
    for _ in range(ROUNDS):
        moved = 0.0
        for i, row in enumerate(gram):
            step = max(-betas[i], -(slopes[i] + ridge * betas[i]) / (row[i] + ridge))
            if step != 0.0:
                betas[i] += step
                moved = max(moved, abs(step))
                slopes = [slope + step * g for slope, g in zip(slopes, row, strict=True)]
        if moved <= ENOUGH:
            break
    return betas


def _rise(row: Sequence[float], bad: Sequence[bool]) -> float:
    """Mean over bad samples less that over good ones."""
    over = [value for value, is_bad in zip(row, bad, strict=True) if is_bad]
    under = [value for value, is_bad in zip(row, bad, strict=True) if not is_bad]
    return mean(over) - mean(under) if over and under else 0.0
