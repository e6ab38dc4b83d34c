"""When Python looks for cycles of garbage: right after a tick, never in one.

Clients' calls leave such cycles, and with them much of gRPC's memory. What outlives one look is not looked at
again for long by Python's own rule, which counts allocations: it would grow with each client for days.
Invariant: what was there at the start is not looked at, so that a look takes about 1 ms.
"""

from __future__ import annotations

import gc

TIDY_S = 10.0
THRESHOLDS = (50_000, 50, 100)  # beyond what a tick makes: for a crowd of clients between two looks


class Garbage:
    """Of this process. `after_tick` takes the time of CLOCK_MONOTONIC."""

    def __init__(self, now: float) -> None:
        gc.freeze()
        gc.set_threshold(*THRESHOLDS)
        self._due = now + TIDY_S

    def after_tick(self, now: float) -> None:
        """Look if it is time; the loop has nothing to do until its next tick."""
        if now >= self._due:
            self._due = now + TIDY_S
            gc.collect()
