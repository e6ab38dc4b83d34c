"""What a process holds, from /proc, and how fast that grows."""

from __future__ import annotations

import contextlib
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
