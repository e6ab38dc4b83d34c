"""Sets of CPUs (or NUMA nodes) as bits of an int: CPU 3 is 1 << 3. Algebra on 256 CPUs is one operation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from nodeagent.model.cpuset import CpuSet

Bits = int


def bits(ids: Iterable[int]) -> Bits:
    """The set of these ids."""
    found = 0
    for number in ids:
        found |= 1 << number
    return found


def parse(text: str) -> Bits:
    """The set that the kernel's list format names; ValueError for anything else."""
    return bits(CpuSet.parse(text))


def text(found: Bits) -> str:
    """The kernel's list format, as `str(CpuSet)` gives it."""
    parts = []
    at = 0
    while found:
        skip = (found & -found).bit_length() - 1
        found >>= skip
        run = (~found & (found + 1)).bit_length() - 1
        found >>= run
        at += skip + run
        parts.append(f"{at - run}-{at - 1}" if run > 1 else f"{at - 1}")
    return ",".join(parts)


def union(sets: Iterable[Bits]) -> Bits:
    """What is in any of the sets."""
    found = 0
    for one in sets:
        found |= one
    return found


def members(found: Bits) -> Iterator[int]:
    """The ids, lowest first."""
    while found:
        low = found & -found
        yield low.bit_length() - 1
        found ^= low


def cores(found: Bits, core_of: Mapping[int, Bits]) -> Iterator[Bits]:
    """The cores that have a CPU in the set, the one with the lowest CPU first."""
    while found:
        core = core_of[(found & -found).bit_length() - 1]
        yield core
        found &= ~core


def cores_down(found: Bits, core_of: Mapping[int, Bits]) -> Iterator[Bits]:
    """The same, the one with the highest CPU first."""
    while found:
        core = core_of[found.bit_length() - 1]
        yield core
        found &= ~core
