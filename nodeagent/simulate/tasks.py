"""A cluster scheduler that fills what is promised with Batch tasks, of one size and of random length.

Each task is promised its cores for as long as it runs, and is not moved or killed. When the offer falls below
what was promised to the tasks that run, the youngest are those whose promise was withdrawn while in use.
Same seed, same tasks in the same order, whoever offers.
"""

from __future__ import annotations

import math
from random import Random
from typing import NamedTuple


class Placed(NamedTuple):
    """One step: tasks that run, what they were promised in all, how much of that the offer covers no more.

    `started` began in this step; of `hit` the promise was withdrawn for the first time.
    """

    running: int
    promised_cores: float
    withdrawn_cores: float
    started: int
    hit: int


class Tasks:
    """Tasks of `cores` each, whose lengths are exponential with a mean of `mean_s`."""

    def __init__(self, cores: float, mean_s: float, seed: int = 0) -> None:
        self._cores, self._mean_s, self._random = cores, mean_s, Random(seed)
        self._ends: list[float] = []  # of those that run, the oldest first
        self._hit: list[bool] = []

    def place(self, now: float, offered_cores: float) -> Placed:
        """From `now` on with this offer: what has ended leaves, and as many begin as fit."""
        if self._ends and min(self._ends) <= now:
            kept = [n for n, end in enumerate(self._ends) if end > now]
            self._ends, self._hit = [self._ends[n] for n in kept], [self._hit[n] for n in kept]
        before = len(self._ends)
        room = math.floor(offered_cores / self._cores + 1e-9)
        while len(self._ends) < room:
            self._ends.append(now + self._random.expovariate(1.0 / self._mean_s))
            self._hit.append(False)
        promised = len(self._ends) * self._cores
        withdrawn = max(0.0, promised - max(0.0, offered_cores))
        withdrawn = 0.0 if withdrawn < 1e-9 else withdrawn
        return Placed(len(self._ends), promised, withdrawn, len(self._ends) - before, self._strike(withdrawn))

    def _strike(self, withdrawn_cores: float) -> int:
        """How many are hit for the first time, from the youngest on."""
        struck = math.ceil(withdrawn_cores / self._cores - 1e-9)
        fresh = 0
        for n in range(len(self._ends) - 1, len(self._ends) - 1 - struck, -1):
            fresh += not self._hit[n]
            self._hit[n] = True
        return fresh
