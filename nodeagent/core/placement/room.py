"""Room: what is still free while bound pods are given their places; the only state of a decision.

Invariant: a core that was taken is free to nobody; whoever takes no more than `spare` leaves the reserve.
"""

from __future__ import annotations

from collections.abc import Mapping

from nodeagent.core.placement.bits import Bits, bits, cores, cores_down, members
from nodeagent.core.placement.machine import Machine, Site


class Room:
    """Free whole cores and free memory. `avoid` are CPUs in use by pools, taken last to move little."""

    def __init__(self, machine: Machine, free_bytes: Mapping[int, int], reserve: int, avoid: Bits) -> None:
        self.machine = machine
        self.free = machine.whole
        self.tenants: Bits = 0  # NUMA nodes that a bound pod uses, its CPUs or its memory
        self.closed: Bits = 0  # NUMA nodes taken exclusively
        self.bytes = dict(free_bytes)
        self._free_bytes = free_bytes
        self._reserve = reserve
        self._avoid = avoid

    @property
    def spare(self) -> int:
        """CPUs that may still be given to bound pods."""
        return max(0, self.free.bit_count() - self._reserve)

    def take(self, cpus: Bits, nodes: Bits, memory_bytes: int = 0, exclusive: bool = False) -> None:
        """Give these CPUs away, and memory of `nodes` in proportion to what they had before anybody came."""
        self.free &= ~cpus
        used = nodes | bits(site.id for site in self.machine.sites if site.usable & cpus)
        self.tenants |= used
        self.closed |= used if exclusive else 0
        if memory_bytes > 0:
            parts = {node: self._free_bytes.get(node, 0) for node in members(nodes)}
            whole = sum(parts.values()) or 1
            for node, part in parts.items():
                self.bytes[node] = self.bytes.get(node, 0) - memory_bytes * part // whole

    def pick(self, site: Site, cpus: int) -> Bits:
        """Whole free cores of one NUMA node with at least `cpus` CPUs, in as few L3 caches as possible.

        The cache with the least room that is enough; else the one with the most, and on. Ties: least in use
        by pools, then highest number: CPU 0 and its neighbours, where the kernel works, are taken last.
        """
        taken = 0
        groups = [free for cache in site.caches if (free := cache & self.free)]
        while groups and cpus > 0:
            fitting = [group for group in groups if group.bit_count() >= cpus]
            if fitting:
                group = min(fitting, key=lambda g: (g.bit_count(), (g & self._avoid).bit_count(), -g))
                return taken | self._some(group, cpus)
            group = max(groups, key=lambda g: (g.bit_count(), -(g & self._avoid).bit_count(), g))
            taken |= group
            cpus -= group.bit_count()
            groups.remove(group)
        return taken

    def trimmed(self, cpus: Bits, wanted: int) -> Bits:
        """Without the cores that `wanted` CPUs do not need."""
        excess = cpus.bit_count() - wanted
        if excess < self.machine.thinnest:
            return cpus
        for core in cores(cpus, self.machine.core_of):
            if core.bit_count() <= excess:
                excess -= core.bit_count()
                cpus &= ~core
        return cpus

    def _some(self, group: Bits, cpus: int) -> Bits:
        taken = 0
        for part in (group & ~self._avoid, group & self._avoid):
            for core in cores_down(part, self.machine.core_of):
                if taken.bit_count() >= cpus:
                    return taken
                taken |= core
        return taken
