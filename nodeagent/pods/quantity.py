"""Kubernetes quantities: "250m", "1.5", "2Gi", "128974848", "1e3" (apimachinery pkg/api/resource)."""

from __future__ import annotations

import re

_FORM = re.compile(
    r"\+?(?P<digits>\d{1,24}(?:\.\d{0,24})?|\.\d{1,24})(?P<unit>[numkMGTPE]|[KMGTPE]i|[eE][+-]?\d{1,3})?",
    re.ASCII,
)
_DECIMAL = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {f"{letter}i": float(1 << 10 * power) for power, letter in enumerate("KMGTPE", 1)}
LARGEST = float(1 << 63)


def quantity(raw: str | float) -> float | None:
    """The plain number; None for what is no quantity, is negative or is not below 2**63."""
    match = _FORM.fullmatch(str(raw)) if len(str(raw)) <= 64 else None
    if match is None:
        return None
    unit = match["unit"] or ""
    if len(unit) > 1 and unit[0] in "eE" and unit[1] != "i":
        value = float(match["digits"] + unit)
    else:
        value = float(match["digits"]) * (_DECIMAL | _BINARY).get(unit, 1.0)
    return value if value < LARGEST else None
