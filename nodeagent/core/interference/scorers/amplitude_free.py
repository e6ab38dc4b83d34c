"""How much of what a neighbour used beyond its usual came while the victim felt bad: rho in [-1, 1].

CPI2's sum with harm as a share of the mean harm of bad samples, so that a mild slowdown counts as much as a
severe one; with good and bad samples weighing the same, so that it means the same two seconds after the onset
as two minutes after it; and of the use beyond the median while the victim was well, so that what was always
there says nothing.
"""

from __future__ import annotations

from nodeagent.core.interference.algebra import dot
from nodeagent.core.interference.frame import Frame
from nodeagent.core.interference.scorers.cpi2 import harm


def weighed(frame: Frame) -> tuple[list[float], list[float]] | None:
    """Weights of the samples and their harm by the mean of bad ones, in [-1, 1]; None without good or bad."""
    g = harm(frame)
    bad = [value for value in g if value > 0.0]
    if not bad or len(bad) == len(g):
        return None
    of_bad, of_good = 0.5 / len(bad), 0.5 / (len(g) - len(bad))
    mean_bad = sum(bad) / len(bad)
    relative = [max(-1.0, min(1.0, value / mean_bad)) for value in g]
    return [of_bad if value > 0.0 else of_good for value in g], relative


def amplitude_free(frame: Frame) -> tuple[float, ...]:
    """1 for who only ever used more than usual while the victim felt bad; 0 for what is constant."""
    found = weighed(frame)
    if found is None:
        return (0.0,) * len(frame.uses)
    weights, relative = found
    good = [n for n, value in enumerate(relative) if value <= 0.0]
    return tuple(_rho(row, weights, relative, good) for row in frame.uses)


def _rho(row: tuple[float, ...], weights: list[float], relative: list[float], good: list[int]) -> float:
    usual = sorted([row[n] for n in good])[len(good) // 2]
    beyond = [weight * (u - usual) if u > usual else 0.0 for weight, u in zip(weights, row, strict=True)]
    total = sum(beyond)
    return dot(beyond, relative) / total if total > 1e-9 * usual else 0.0
