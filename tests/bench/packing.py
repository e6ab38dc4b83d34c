"""What placement is measured against: the greedy rule of other agents, and exhaustive search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from nodeagent.model.topology import Topology

CpuIds = frozenset[int]


class Greedy:
    """Whole sockets, then whole L3 caches, then cores: the L3-aware rule of Katalyst's TakeByTopology.

    A socket is taken whole while it is all free and no larger than what is missing. Of the caches that are
    enough the one with the least room is taken from, else the largest is taken whole, and again. Ties: the
    socket with fewer free CPUs, then the lowest number. Requests are whole cores: no single threads.
    """

    def __init__(self, topology: Topology) -> None:
        self.free = frozenset(cpu.id for cpu in topology.cpus)
        self._sockets = _groups((cpu.socket, cpu.id) for cpu in topology.cpus)
        self._caches = _groups(((cpu.socket, cpu.numa_node, cpu.l3), cpu.id) for cpu in topology.cpus)
        self._cores = _groups((cpu.siblings, cpu.id) for cpu in topology.cpus)
        self._home = {cache: next(s for s in self._sockets if cache <= s) for cache in self._caches}

    def take(self, wanted: int) -> CpuIds:
        """CPUs in whole cores, no longer free; there must be enough."""
        taken: CpuIds = frozenset()
        for socket in sorted(self._sockets, key=min):
            if socket <= self.free and len(socket) <= wanted - len(taken):
                taken |= socket
                self.free -= socket
        while len(taken) < wanted:
            missing = wanted - len(taken)
            rooms = {cache & self.free: cache for cache in self._caches if cache & self.free}
            enough = [room for room in rooms if len(room) >= missing]
            tight = {room: (len(self._home[rooms[room]] & self.free), min(room)) for room in rooms}
            if enough:
                got = self._some(min(enough, key=lambda room: (len(room), *tight[room])), missing)
            else:
                got = min(rooms, key=lambda room: (-len(room), *tight[room]))
            taken |= got
            self.free -= got
        return taken

    def _some(self, room: CpuIds, wanted: int) -> CpuIds:
        taken: CpuIds = frozenset()
        for core in self._cores:
            if core <= room and len(taken) < wanted:
                taken |= core
        return taken


def _groups(pairs: Iterator[tuple[object, int]]) -> list[CpuIds]:
    found: dict[object, set[int]] = {}
    for key, cpu in pairs:
        found.setdefault(key, set()).add(cpu)
    return [frozenset(cpus) for cpus in found.values()]


def least_bins(bins: Sequence[int], cores: int) -> int:
    """How many of the bins `cores` need when all are empty."""
    for count, size in enumerate(sorted(bins, reverse=True), 1):
        cores -= size
        if cores <= 0:
            return count
    return len(bins) + 1


def packable(bins: Sequence[int], pods: Sequence[int]) -> bool:
    """True when all pods (cores each) fit at once, each on the least number of bins: tried exhaustively."""
    order = sorted(((least_bins(bins, pod), pod) for pod in pods), reverse=True)
    return _packed(tuple(sorted(bins)), tuple(order), set())


def _packed(bins: tuple[int, ...], pods: tuple[tuple[int, int], ...], dead: set[tuple[int, ...]]) -> bool:
    if not pods:
        return True
    state = (len(pods), *bins)
    if state in dead:
        return False
    count, cores = pods[0]
    for chosen in combinations(range(len(bins)), count):
        for parts in _splits([bins[i] for i in chosen], cores):
            after = list(bins)
            for i, part in zip(chosen, parts, strict=True):
                after[i] -= part
            if _packed(tuple(sorted(after)), pods[1:], dead):
                return True
    dead.add(state)
    return False


def _splits(rooms: list[int], cores: int) -> Iterator[tuple[int, ...]]:
    if len(rooms) == 1:
        if cores <= rooms[0]:
            yield (cores,)
        return
    for part in range(max(0, cores - sum(rooms[1:])), min(rooms[0], cores) + 1):
        for rest in _splits(rooms[1:], cores - part):
            yield (part, *rest)
