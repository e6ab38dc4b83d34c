"""Sizes as people write them: "64 MiB" = 64 * 1024^2 bytes, "512M" = 512 * 1000^2 bytes, as in Kubernetes.

Rates are in bits and powers of 1000, as on a NIC's label: "2.5 Gbit/s". Durations: "90s", "1h30m".
"""

from __future__ import annotations

import math
import re

MAX_BYTES = (1 << 63) - 1
_SIZE = re.compile(r"(\d{1,19}(?:\.\d{1,9})?)\s*([kKMGTP]?)(i?)([bB]?)", re.ASCII)
_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{1,9})?(?:ms|s|m|h|d))+", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_POWER = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}


def parse_bytes(text: str) -> int:
    """Bytes in "4096", "64 MiB" or "1.5Gi" (powers of 1024), "512M" or "2 GB" (of 1000); else ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or (match[3] and not match[2]):
        raise ValueError(
            f"not a size: {text[:40]!r}; write it as 512 MiB or 512Mi (1024^2), 512 MB or 512M (1000^2)"
        )
    whole, _, fraction = match[1].partition(".")
    unit: int = pow(1024 if match[3] else 1000, _POWER[match[2]])
    size = int(whole) * unit + int(fraction.ljust(9, "0")) * unit // 10**9
    if size > MAX_BYTES:
        raise ValueError(f"{text[:40]!r} is more than the {MAX_BYTES} bytes that the kernel can count")
    return size


def format_bytes(size: float) -> str:
    """The shortest text in a power of 1024 with at most one decimal: "64 MiB", "1.5 GiB", "512 B"."""
    power = next((p for p in range(5, 0, -1) if abs(size) >= 1024**p), 0)
    number = f"{size / 1024**power:.1f}".removesuffix(".0")
    return f"{number} {('B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB')[power]}"


def format_bps(rate_bps: float) -> str:
    """Bits per second in a power of 1000 with at most three digits: "2.5 Gbit/s", "no limit" for inf."""
    if math.isinf(rate_bps):
        return "no limit"
    # 999.5 is what three digits can no longer hold
    power = next((p for p in range(4, 0, -1) if abs(rate_bps) >= 999.5 * 1000 ** (p - 1)), 0)
    size = rate_bps / 1000**power
    digits = 0 if abs(size) >= 99.95 or not power else 1 if abs(size) >= 9.995 else 2
    number = f"{size:.{digits}f}"
    return f"{number.rstrip('0').rstrip('.') if digits else number} {('', 'k', 'M', 'G', 'T')[power]}bit/s"


def parse_duration(text: str) -> float:
    """Seconds in "90s", "1h30m", "2d" or "500ms"; ValueError for anything else, also without a unit."""
    compact = "".join(text.split())
    if not _DURATION.fullmatch(compact):
        raise ValueError(f"not a duration: {text[:40]!r}; write it as 90s, 10m, 1h30m or 2d")
    parts = re.findall(r"([\d.]+)(ms|s|m|h|d)", compact)
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def format_duration(seconds: float) -> str:
    """The two largest units: "1h 30m", "2d", "45s"; "0s" for less than half a second."""
    left, parts = round(max(0.0, seconds)), []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        parts.append(f"{count}{unit}" if count else "")
    first = next((n for n, part in enumerate(parts) if part), 3)
    return " ".join(part for part in parts[first : first + 2] if part) or "0s"
