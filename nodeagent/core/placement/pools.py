"""Pools of whole cores, spread over the NUMA nodes in proportion to what is free, with the fewest moves.

Invariant: each NUMA node gets its exact share rounded up or down. Which nodes are rounded up, and which cores
it is, follows what the pool holds, so that nothing moves without need.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from nodeagent.core.placement.bits import Bits, cores, cores_down
from nodeagent.core.placement.machine import Machine


class _Part(NamedTuple):
    """The cores of one NUMA node: `free` for the pool, `kept` of those that it holds, and its exact share."""

    free: Bits
    kept: Bits
    held: int
    low: int
    high: int
    remainder: int


def spread(machine: Machine, free: Bits, held: Bits, cpus: int, spared_cores: int = 0) -> Bits:
    """Whole cores out of `free` with at least `cpus` CPUs, near to `held`; `spared_cores` are left over.

    With cores of unlike size it may be more than needed, never less; the fewest when there is not enough.
    """
    sizes = sorted(core.bit_count() for core in cores(free, machine.core_of))
    reached = accumulate(sizes)
    enough = next((count for count, total in enumerate(reached, 1) if total >= cpus), len(sizes))
    wanted = min(enough, len(sizes) - spared_cores)
    if wanted < 1:
        return 0
    parts = list(_parts(machine, free, machine.closed(held), wanted, len(sizes)))
    found = 0
    for part, count in zip(parts, _counts(parts, wanted), strict=True):
        found |= _chosen(part, count, machine)
    return found


def _parts(machine: Machine, free: Bits, held: Bits, wanted: int, total: int) -> Iterator[_Part]:
    for site in machine.sites:
        here = free & site.whole
        kept = here & held
        low, remainder = divmod(wanted * _count(here, machine), total)
        yield _Part(here, kept, _count(kept, machine), low, low + (remainder > 0), remainder)


def _counts(parts: list[_Part], wanted: int) -> list[int]:
    """Cores per part that add up to `wanted`, each within its share, as near to what is held as can be.

    Where any way of rounding costs one core moved, the largest remainders are rounded up (Hamilton's method).
    """
    counts = [min(max(part.held, part.low), part.high) for part in parts]
    missing = wanted - sum(counts)
    order = sorted(range(len(parts)), key=lambda i: -parts[i].remainder)
    for i in order if missing > 0 else reversed(order):
        if missing > 0 and counts[i] < parts[i].high:
            counts[i] += 1
            missing -= 1
        elif missing < 0 and counts[i] > parts[i].low:
            counts[i] -= 1
            missing += 1
    return counts


def _chosen(part: _Part, count: int, machine: Machine) -> Bits:
    """Give the highest cores first and take the lowest: bound pods come from the other end."""
    found = part.kept
    excess = part.held - count
    for core in cores_down(part.kept, machine.core_of):
        if excess <= 0:
            break
        found &= ~core
        excess -= 1
    for core in cores(part.free & ~part.kept, machine.core_of):
        if excess >= 0:
            break
        found |= core
        excess += 1
    return found


def _count(cpus: Bits, machine: Machine) -> int:
    return (cpus & machine.firsts).bit_count()
