"""CpuSet: an immutable set of CPU (or NUMA node) numbers and the kernel's list format for it.

Format: Linux Documentation/admin-guide/kernel-parameters.rst, "cpu lists" ("0-3,8").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

MAX_CPUS = 1 << 16  # far above CONFIG_NR_CPUS (8192); bounds what garbage input can allocate


class CpuSet(frozenset[int]):
    """frozenset of ids that parses and prints as "0-3,8"; "" is the empty set."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> CpuSet:
        """Parse the kernel's list format; ValueError for anything else."""
        cpus: set[int] = set()
        for part in filter(None, text.strip().split(",")):
            first, dash, last = part.partition("-")
            low = _number(first)
            high = _number(last) if dash else low
            if low > high:
                raise ValueError(f"descending range {part!r}")
            cpus.update(range(low, high + 1))
        return cls(cpus)

    def __str__(self) -> str:
        return ",".join(f"{a}-{b}" if a != b else f"{a}" for a, b in _runs(sorted(self)))


# Sets as texts: what is asked of hundreds of knobs in each tick is about few different sets.


@lru_cache(maxsize=256)
def canonical(text: str) -> str | None:
    """The text of the same set as `str(CpuSet)` gives it; None for anything but a list of numbers."""
    try:
        return str(CpuSet.parse(text))
    except ValueError:
        return None


@lru_cache(maxsize=256)
def size(text: str) -> int:
    """How many numbers the list holds; ValueError when it is none, as for all below."""
    return len(CpuSet.parse(text))


@lru_cache(maxsize=1024)
def within(part: str, whole: str) -> bool:
    """True when `whole` holds all of `part`."""
    return CpuSet.parse(part) <= CpuSet.parse(whole)


@lru_cache(maxsize=1024)
def union(a: str, b: str) -> str:
    """What is in `a` or in `b`."""
    return str(CpuSet(CpuSet.parse(a) | CpuSet.parse(b)))


@lru_cache(maxsize=1024)
def common(a: str, b: str) -> str:
    """What is in both `a` and `b`."""
    return str(CpuSet(CpuSet.parse(a) & CpuSet.parse(b)))


@lru_cache(maxsize=1024)
def without(a: str, b: str) -> str:
    """What is in `a` and not in `b`."""
    return str(CpuSet(CpuSet.parse(a) - CpuSet.parse(b)))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 5 or int(text) >= MAX_CPUS:
        raise ValueError(f"not a CPU number: {text[:20]!r}")
    return int(text)


def _runs(cpus: Iterable[int]) -> Iterator[tuple[int, int]]:
    start = end = None
    for cpu in cpus:
        if end is not None and cpu == end + 1:
            end = cpu
            continue
        if start is not None and end is not None:
            yield start, end
        start = end = cpu
    if start is not None and end is not None:
        yield start, end
