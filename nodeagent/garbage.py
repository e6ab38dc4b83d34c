"""What the process does about its own memory: Python's cycles of garbage, glibc's arenas, what is imported.

Clients' calls leave such cycles, and with them much of gRPC's memory. What outlives one look is not looked at
again for long by Python's own rule, which counts allocations: it would grow with each client for days.
Invariant: cycles are looked for right after a tick, never in one; what was there at the start, and at
the first look, is left out (the files of the pods that are here, above all), so that a look takes about 1 ms.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from collections.abc import Iterator

TIDY_S = 10.0
THRESHOLDS = (50_000, 50, 100)  # beyond what a tick makes: for a crowd of clients between two looks
ARENAS = 2
_LEAN = {-8: ARENAS, -3: 128 << 10}  # mallopt(3): M_ARENA_MAX, M_MMAP_THRESHOLD


def lean_allocator() -> None:
    """What is free goes back to the kernel. To be called before much is imported and there are threads.

    By itself glibc would raise the thresholds above which it does so with each large piece that is freed, and
    give each of gRPC's threads an arena that keeps what it once needed; Python's own lock lets hardly two of
    them allocate at a time. 1 MiB of 65 with 250 pods. Does nothing with another libc.
    """
    with contextlib.suppress(AttributeError):
        for parameter, value in _LEAN.items():
            ctypes.CDLL(None).mallopt(parameter, value)


@contextlib.contextmanager
def left_out(package: str) -> Iterator[None]:
    """Imports within find no such package, unless somebody has imported it before; later ones do."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # so that importing it fails
    try:
        yield
    finally:
        del sys.modules[package]


class Garbage:
    """Of this process. `after_tick` takes the time of CLOCK_MONOTONIC."""

    def __init__(self, now: float) -> None:
        gc.freeze()
        gc.set_threshold(*THRESHOLDS)
        self._due = now + TIDY_S
        self._first = True

    def after_tick(self, now: float) -> None:
        """Look if it is time; the loop has nothing to do until its next tick."""
        if now >= self._due:
            self._due = now + TIDY_S
            gc.collect()
            if self._first:
                gc.freeze()
                self._first = False
