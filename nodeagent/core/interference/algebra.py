"""Sums over samples, exactly and fast without a library for it.

All circular moves of one row along another are one product of two big integers: rows are digits, the digits
of the product are their correlations (Kronecker substitution; Schönhage, 1982). 180 samples take some 50 us.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import mul
from struct import pack, unpack

LEVELS = 255  # to which rows are rounded: 0.4 % of the largest
_DIGIT_BYTES = 4  # LEVELS**2 * samples fits into it up to 66 000 samples


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    """Sum of products."""
    return float(sum(map(mul, a, b)))


def mean(row: Sequence[float]) -> float:
    """Of a row that is not empty."""
    return sum(row) / len(row)


def covariance(a: Sequence[float], b: Sequence[float]) -> float:
    """Of two rows of one length, by its number."""
    return dot(a, b) / len(a) - mean(a) * mean(b)


def centred(row: Sequence[float]) -> list[float]:
    """A row less its mean."""
    middle = mean(row)
    return [value - middle for value in row]


def spread(row: Sequence[float]) -> float:
    """Standard deviation; 0.0 for a row that is constant up to rounding."""
    middle = mean(row)
    variance = dot(row, row) / len(row) - middle * middle
    return variance**0.5 if variance > 1e-12 * middle * middle else 0.0


def levels(row: Sequence[float], top: float) -> list[int]:
    """Values in [0, top] as whole numbers up to LEVELS."""
    scale = LEVELS / top if top > 0.0 else 0.0
    return [int(value * scale + 0.5) for value in row]


def packed(row: Sequence[int]) -> int:
    """Whole numbers as digits of one, the first the least."""
    return int.from_bytes(pack(f"<{len(row)}I", *row), "little")


def circular(felt: Sequence[int], used: int) -> list[int]:
    """For each move s of `felt` (it happens s samples later, around the end): sum of felt[t-s] used[t].

    `used` is packed; both as long as `felt`, values as `levels` gives them.
    """
    n = len(felt)
    product = packed(felt[::-1]) * used  # digit n-1+s: shift s; digit s-1: what of it goes around the end
    digits = unpack(f"<{2 * n}I", product.to_bytes(2 * n * _DIGIT_BYTES, "little"))
    return [digits[n - 1], *(a + b for a, b in zip(digits[n : 2 * n - 1], digits[: n - 1], strict=True))]
