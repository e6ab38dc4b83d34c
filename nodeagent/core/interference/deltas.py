"""Growth of counters: None where one is missing or has fallen, never a negative number."""

from __future__ import annotations


def rose(old: int | None, new: int | None) -> int | None:
    """How much a counter has grown; None when that is not known."""
    if old is None or new is None or new < old:
        return None
    return new - old


def share(old_us: int | None, new_us: int | None, seconds: float) -> float | None:
    """Growth of a counter in us as a share of `seconds`."""
    grown = rose(old_us, new_us)
    return None if grown is None or seconds <= 0.0 else grown / (seconds * 1e6)


def per_s(old: int | None, new: int | None, seconds: float) -> float | None:
    """Growth of a counter per second."""
    grown = rose(old, new)
    return None if grown is None or seconds <= 0.0 else grown / seconds
