"""Numbers and strings that fit the wire: bounded to its integers, valid as UTF-8."""

from __future__ import annotations

from math import isfinite

from google.protobuf.timestamp_pb2 import Timestamp

U32 = 2**32 - 1
U64 = 2**64 - 1
I64 = 2**63 - 1


def text(value: str) -> str:
    """The string itself, or with escapes for the bytes of a cgroup's name that are not UTF-8."""
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()


def counter(value: int | None) -> int | None:
    """Bounded to what an unsigned 64-bit counter of the kernel can hold."""
    return None if value is None else min(max(value, 0), U64)


def whole(value: float, low: int, high: int) -> int:
    """A float as an integer within [low, high]; NaN is low."""
    if isfinite(value):
        return min(max(int(value), low), high)
    return high if value > 0 else low


def timestamp(unix: float) -> Timestamp:
    """Seconds since the epoch (CLOCK_REALTIME)."""
    seconds, rest = divmod(round(unix * 1e6), 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest * 1000)
