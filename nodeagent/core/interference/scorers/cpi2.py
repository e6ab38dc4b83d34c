"""The correlation of CPI2 (Zhang et al., EuroSys 2013, section 4.2), for comparison.

With all bad samples at c and the threshold at t it never exceeds 1 - t/c: its rule, 0.35, names nobody below
c = 1.54 t, however clear the case is.
"""

from __future__ import annotations

from nodeagent.core.interference.algebra import dot
from nodeagent.core.interference.frame import Frame

NAMES_FROM = 0.35


def harm(frame: Frame) -> list[float]:
    """g per sample: 1 - t/x above the threshold, x/t - 1 below; within [-1, 1]."""
    t = frame.bad_from
    return [1.0 - t / x if x > t else x / t - 1.0 for x in frame.felt]


def cpi2(frame: Frame) -> tuple[float, ...]:
    """Sum of use x harm, use normalised to a sum of 1 over the window; within [-1, 1]."""
    g = harm(frame)
    return tuple(dot(row, g) / total if (total := sum(row)) > 0.0 else 0.0 for row in frame.uses)
