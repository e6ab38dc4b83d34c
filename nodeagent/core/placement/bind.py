"""Bound pods: who keeps its cores, who gets which, and who does not and why.

Invariant: a pod that has what it asks for never moves. Pods that lost CPUs are mended where they are when
that is possible, then new pods are placed, large before small, so the order of requests does not matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from nodeagent.core.placement.bits import Bits, bits, members, parse, union
from nodeagent.core.placement.machine import Machine, Site
from nodeagent.core.placement.nodes import choose, choose_whole, counted, stores
from nodeagent.core.placement.room import Room
from nodeagent.model.placement import BindRequest, Placed


class Seat(NamedTuple):
    """The CPUs that a pod owns and the NUMA nodes of its memory; where none are told, those of its CPUs."""

    cpus: Bits
    nodes: Bits


class Seating(NamedTuple):
    """What came out, by uid. `closed` are the NUMA nodes taken exclusively."""

    seats: Mapping[str, Seat]
    unplaced: Mapping[str, str]
    closed: Bits


def seats_of(bound: Iterable[Placed]) -> dict[str, Seat]:
    """Seats as they were written down; ValueError when a text is not in the kernel's list format."""
    return {placed.uid: Seat(parse(placed.cpus), parse(placed.mems)) for placed in bound}


def seat(requests: Iterable[BindRequest], held: Mapping[str, Seat], room: Room) -> Seating:
    """A seat for every request that there is room for; `held` are the seats until now."""
    seats: dict[str, Seat] = {}
    unplaced: dict[str, str] = {}
    asking = in_order(requests)
    held = {r.uid: held[r.uid] for r in asking if r.uid in held}
    guests = Counter(node for old in held.values() for node in members(_nodes_of(old, room.machine)))
    waiting = [r for r in asking if r.uid not in held or not _keep(r, held[r.uid], room, seats, guests)]
    waiting = [r for r in waiting if r.uid not in held or not _mend(r, held[r.uid], room, seats)]
    placing = True
    while waiting and placing:  # once more after somebody sat down: the reasons are those of the end
        unplaced = {r.uid: reason for r in waiting if (reason := _place(r, room, seats))}
        placing = len(unplaced) < len(waiting)
        waiting = [r for r in waiting if r.uid in unplaced]
    return Seating(seats, unplaced, room.closed)


def in_order(requests: Iterable[BindRequest]) -> list[BindRequest]:
    """One request per uid: exclusive first, then large before small, then by uid."""
    ordered = sorted(requests, key=lambda r: (not r.exclusive, -r.cpus, -r.memory_bytes, r.uid, r.near))
    return list({r.uid: r for r in reversed(ordered)}.values())[::-1]


def _keep(
    request: BindRequest, held: Seat, room: Room, seats: dict[str, Seat], guests: Mapping[int, int]
) -> bool:
    """Keep what it has, with siblings that came online and without cores that it no longer asks for."""
    mine = room.machine.closed(held.cpus) & room.free
    sites = _around(mine, room.machine)
    nodes = (held.nodes or stores(sites)) & room.machine.memory & ~room.closed
    if request.exclusive:
        if any(guests[s.id] > 1 for s in sites):
            return False
        mine = union(site.usable for site in sites)
    else:
        mine = room.trimmed(mine, request.cpus)
    if mine.bit_count() < request.cpus or not room.free & ~mine or not nodes:
        return False
    return _sit(request, Seat(mine, nodes), room, seats)


def _mend(request: BindRequest, held: Seat, room: Room, seats: dict[str, Seat]) -> bool:
    """Make up for lost cores on the NUMA nodes where the pod is."""
    mine = room.machine.closed(held.cpus) & room.free
    sites = _around(mine, room.machine)
    if request.exclusive or not mine:
        return False
    room.free &= ~mine  # not to be picked twice
    more = 0
    for site in sites:
        missing = request.cpus - (mine | more).bit_count()
        more |= room.pick(site, missing)
    room.free |= mine
    got = room.trimmed(mine | more, request.cpus)
    nodes = held.nodes & room.machine.memory & ~room.closed or stores(sites)
    if not nodes or not request.cpus <= got.bit_count() <= room.spare:
        return False
    return _sit(request, Seat(got, nodes), room, seats)


def _place(request: BindRequest, room: Room, seats: dict[str, Seat]) -> str:
    """Seat a pod that has no seat; the reason when there is none for it, else ""."""
    if request.cpus < 1:
        return "asks for no CPU"
    if request.cpus > room.spare:
        return f"needs {counted(request.cpus, 'CPU')} in whole cores; {room.spare} are left to bound pods"
    sites = choose_whole(request, room) if request.exclusive else choose(request, room)
    if isinstance(sites, str):
        return sites
    mine = union(site.usable for site in sites) if request.exclusive else _fill(request, sites, room)
    nodes = stores(sites)
    if (mine & room.free).bit_count() > room.spare or not nodes:
        return f"needs {counted(mine.bit_count(), 'CPU')} as whole cores; {room.spare} are left to bound pods"
    _sit(request, Seat(mine, nodes), room, seats)
    return ""


def _fill(request: BindRequest, sites: tuple[Site, ...], room: Room) -> Bits:
    """Cores on each node, most where most is free: what is left over grows as the others there leave."""
    free = {site.id: (site.whole & room.free).bit_count() for site in sites}
    wanted = max(0, request.cpus - len(sites))
    mine = 0
    for site in sorted(sites, key=lambda s: (-free[s.id], -s.id)):
        here = min(free[site.id], wanted + 1)
        wanted -= here - 1
        mine |= room.pick(site, here)
    return room.trimmed(mine, request.cpus)


def _sit(request: BindRequest, seat: Seat, room: Room, seats: dict[str, Seat]) -> bool:
    seats[request.uid] = seat
    room.take(seat.cpus, seat.nodes, request.memory_bytes, request.exclusive)
    return True


def _around(cpus: Bits, machine: Machine) -> list[Site]:
    return [site for site in machine.sites if site.usable & cpus]


def _nodes_of(held: Seat, machine: Machine) -> Bits:
    return held.nodes | bits(site.id for site in _around(held.cpus, machine))
