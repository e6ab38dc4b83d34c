"""What a process holds, from /proc, and how fast that grows."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple


class Sample(NamedTuple):
    """`at` is monotonic."""

    at: float
    rss_kib: float
    descriptors: int
    threads: int


def sample(pid: int) -> Sample:
    """A process now."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        kib = {line.split(":")[0]: float(line.split()[1]) for line in file.readlines()[1:]}
    descriptors, threads = (len(os.listdir(f"/proc/{pid}/{name}")) for name in ("fd", "task"))
    return Sample(time.monotonic(), kib["Rss"], descriptors, threads)


def descriptors(pid: int) -> Counter[str]:
    """How many of each kind are open: sockets, pipes, files by their paths without numbers."""
    found: Counter[str] = Counter()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):  # closed meanwhile
            found[re.sub(r"\d+", "N", os.readlink(f"/proc/{pid}/fd/{name}"))] += 1
    return found


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the straight line through (x, y) with the least squares; 0 for fewer than two."""
    if len(points) < 2:
        return 0.0
    xs, ys = zip(*points, strict=True)
    return statistics.linear_regression(xs, ys).slope


class Fit(NamedTuple):
    """Slope of a straight line, and its standard error; 0 and inf where too few points tell."""

    slope: float
    error: float


def fit(points: Sequence[tuple[float, float]]) -> Fit:
    """The line through (x, y) with the least squares.

    What is left of a point is mostly left of the next, too (memory does not fall back): n of them tell as
    much as n (1 - r) / (1 + r) others, with r their correlation with the next (Bayley and Hammersley, 1946).
    """
    if len({x for x, _ in points}) < 3:
        return Fit(0.0, math.inf)
    xs, ys = zip(*points, strict=True)
    line = statistics.linear_regression(xs, ys)
    left = [y - line.intercept - line.slope * x for x, y in points]
    squares, mean = math.fsum(each * each for each in left), statistics.fmean(xs)
    spread = math.fsum((x - mean) ** 2 for x in xs)
    shared = math.fsum(a * b for a, b in itertools.pairwise(left)) / squares if squares else 0.0
    shared = min(max(shared, 0.0), 0.99)
    return Fit(line.slope, math.sqrt(squares / (len(points) - 2) / spread * (1.0 + shared) / (1.0 - shared)))
