"""On which NUMA nodes a pod goes: the fewest that have the cores and the memory.

Among those in this order: nodes with memory of their own, near the named device, on one socket, close
together, all cores behind one L3, the least left over (best fit), the highest numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, combinations

from nodeagent.core.placement.bits import Bits, bits, members
from nodeagent.core.placement.machine import Site
from nodeagent.core.placement.room import Room
from nodeagent.model.placement import BindRequest
from nodeagent.model.units import format_bytes

_SEARCHED = 8  # sets of nodes are tried exhaustively among so many: at most 2^8
_Sites = tuple[Site, ...]
_Key = tuple[int, int, int, int, bool, int, tuple[int, ...]]


def counted(number: int, what: str) -> str:
    """ "1 CPU", "2 CPUs"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def stores(sites: Iterable[Site]) -> Bits:
    """The NUMA nodes that the memory of pods on these nodes comes from."""
    return bits(site.store for site in sites if site.store is not None)


def choose(request: BindRequest, room: Room) -> _Sites | str:
    """The nodes for a pod that shares nodes with others, or the reason why there are none."""
    sites = [s for s in room.machine.sites if s.whole & room.free]
    if room.closed:
        sites = [s for s in sites if not stores((s,)) & room.closed]
    return _fewest(request, room, sites, f"{counted(len(sites), 'NUMA node')} with free cores")


def choose_whole(request: BindRequest, room: Room) -> _Sites | str:
    """Nodes that nobody else uses, for an exclusive pod, or the reason why there are none.

    Nodes without memory are never taken whole, and one with memory is left to the pools.
    """
    unused = [s for s in room.machine.sites if s.whole and s.store == s.id and not s.foreign]
    unused = [s for s in unused if not room.tenants >> s.id & 1]
    chosen = _fewest(request, room, unused, counted(len(unused), "unused NUMA node"))
    if not isinstance(chosen, str) and not room.machine.memory & ~room.closed & ~stores(chosen):
        return "exclusive takes whole NUMA nodes, and none with memory would be left for the pools"
    return chosen


def _fewest(request: BindRequest, room: Room, sites: Sequence[Site], where: str) -> _Sites | str:
    cpus = {site.id: (site.whole & room.free).bit_count() for site in sites}
    device = room.machine.devices.get(request.near)
    fitting: list[_Sites] = [(s,) for s in sites if cpus[s.id] >= request.cpus]
    if request.memory_bytes > 0:
        fitting = [one for one in fitting if _has_memory(request, room, one)]
    if not fitting and sum(cpus.values()) < request.cpus:
        have = sum(cpus.values())
        return f"needs {counted(request.cpus, 'CPU')} in whole cores; there are {have} on {where}"
    if not fitting and not _has_memory(request, room, sites):
        free = sum(room.bytes.get(node, 0) for node in members(stores(sites)))
        have_bytes = format_bytes(max(0, free))
        return f"needs {format_bytes(request.memory_bytes)}; there are {have_bytes} free on {where}"
    for size in range(2, len(sites) + 1):
        if fitting:
            break
        fitting = [s for s in _sets(sites, cpus, size) if _fits(request, room, cpus, s)]
    return min(fitting, key=lambda s: _rank(s, request, room, cpus, device), default=tuple(sites))


def _fits(request: BindRequest, room: Room, cpus: dict[int, int], sites: _Sites) -> bool:
    return sum(cpus[site.id] for site in sites) >= request.cpus and _has_memory(request, room, sites)


def _has_memory(request: BindRequest, room: Room, sites: Sequence[Site]) -> bool:
    if request.memory_bytes <= 0:
        return True
    nodes = {site.store for site in sites if site.store is not None}
    return sum(room.bytes.get(node, 0) for node in nodes) >= request.memory_bytes


def _sets(sites: Sequence[Site], cpus: dict[int, int], size: int) -> Iterator[_Sites]:
    """All sets of `size` nodes; on machines of many nodes, of each node's nearest and of the freest."""
    if len(sites) <= _SEARCHED:
        return combinations(sites, size)
    freest = sorted(sites, key=lambda s: (-cpus[s.id], s.id))
    around = [sorted(freest, key=partial(_distance, site)) for site in sites]
    return chain.from_iterable(combinations(few[:_SEARCHED], size) for few in (*around, freest))


def _distance(a: Site, b: Site) -> int:
    return a.distances[b.id]


def _rank(sites: _Sites, request: BindRequest, room: Room, cpus: dict[int, int], device: int | None) -> _Key:
    """The order of the docstring above, least first; compared among sets of one size."""
    if len(sites) == 1:  # nearly always: each pod asks this of each node
        (site,) = sites
        borrows = site.store != site.id
        near = 0 if device is None else site.distances.get(device, 0)
        left = cpus[site.id] - request.cpus
        return (borrows, near, 0, 0, _spills(site, request, room), left, (-site.id,))
    return (
        sum(site.store != site.id for site in sites),
        0 if device is None else sum(site.distances.get(device, 0) for site in sites),
        *_extent(sites),
        False,
        sum(cpus[site.id] for site in sites) - request.cpus,
        tuple(-site.id for site in sites),
    )


def _extent(sites: _Sites) -> tuple[int, int]:
    """Sockets, and all distances together."""
    sockets = frozenset().union(*(site.sockets for site in sites))
    return len(sockets), sum(a.distances[b.id] for a in sites for b in sites)


def _spills(site: Site, request: BindRequest, room: Room) -> bool:
    """True when a pod that could be behind one L3 would not be."""
    if request.cpus > site.widest:
        return False
    return all((cache & room.free).bit_count() < request.cpus for cache in site.caches)
