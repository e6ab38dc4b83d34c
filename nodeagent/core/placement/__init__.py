"""Where everything runs: bound pods on their own cores, LS and MID in the shared pool, Batch on what is left.

    survey  ->  seat  ->  spread (MID's own pool, Batch)  ->  Placement
    machine     bind, with nodes and room   pools

Invariants: bound, shared and mid (where it is a pool of its own) are disjoint and together all online CPUs
that are not hands-off; Batch is within shared and mid, in whole cores, so never on a core of a bound pod; no
set is empty while the agent has a whole core; deciding again with the outcome as `current` changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from nodeagent.core.placement.bind import Seat, Seating, seat, seats_of
from nodeagent.core.placement.bits import parse, text, union
from nodeagent.core.placement.machine import Machine, survey
from nodeagent.core.placement.pools import spread
from nodeagent.core.placement.room import Room
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.placement import BindRequest, Placed, Placement
from nodeagent.model.topology import Topology

__all__ = ["place"]


def place(  # noqa: PLR0913 - all that a placement depends on, and nothing else
    topology: Topology,
    requests: tuple[BindRequest, ...],
    current: Placement | None,
    free_bytes: Mapping[int, int],
    *,
    batch_cores: float,
    batch_floor_cpus: int,
    hands_off: CpuSet,
    mid_cpus: int = 0,
    defragment: bool = False,
) -> Placement:
    """The sets for now, from those until now (`current`; None = from nothing).

    `free_bytes` is the memory by NUMA node that is free or used by bound pods: what they asked for is counted
    against it here, once; a node that is not known is absent. `batch_cores` is Batch's capacity in CPUs; it
    is rounded up to whole cores and is at least `batch_floor_cpus`, which new bound pods always leave free.
    `hands_off` are CPUs of others. `mid_cpus` > 0 gives MID a pool of its own if that leaves a core to LS.
    `defragment` lets bound pods move if that places more of them, or on fewer NUMA nodes.
    ValueError when `current` is not in the kernel's list format.
    """
    machine, before = survey(topology, hands_off), current or Placement()
    mid_held = 0 if before.mid == before.shared else parse(before.mid)
    batch_held, held = parse(before.batch), seats_of(before.bound)
    floor = max(1, batch_floor_cpus)
    room = partial(Room, machine, free_bytes, floor, mid_held | batch_held)
    seated = _tidied(requests, held, room, machine) if defragment else seat(requests, held, room())
    pools = machine.usable & ~union(mine.cpus for mine in seated.seats.values())
    free = pools & machine.whole
    mid = spread(machine, free, mid_held, mid_cpus, spared_cores=1) if mid_cpus > 0 else 0
    batch = spread(machine, free, batch_held, max(floor, _whole_cpus(batch_cores, machine))) or pools
    return Placement(
        bound=tuple(_placed(seated, before.bound, held)),
        unplaced=tuple(sorted(seated.unplaced.items())),
        shared=text(pools & ~mid),
        mid=text(mid or pools),
        batch=text(batch),
        batch_mems=text(machine.memory & ~seated.closed),
        shared_mems=text(machine.memory & ~seated.closed),
    )


def _tidied(
    requests: tuple[BindRequest, ...], held: Mapping[str, Seat], room: Callable[[], Room], machine: Machine
) -> Seating:
    """The best of: nobody moves; those move who would be on fewer NUMA nodes; all start afresh."""
    fresh = seat(requests, {}, room())
    fine = {uid: old for uid, old in held.items() if _fine(old, fresh.seats.get(uid), machine)}
    seatings = (seat(requests, held, room()), seat(requests, fine, room()), fresh)
    return min(seatings, key=lambda seated: _badness(seated, machine))


def _whole_cpus(cores: float, machine: Machine) -> int:
    most = machine.usable.bit_count()
    return math.ceil(min(max(cores, 0.0), most) - 1e-9)


def _placed(seated: Seating, bound: Iterable[Placed], held: Mapping[str, Seat]) -> list[Placed]:
    """As texts, by uid; what did not move is not written anew."""
    same = {placed.uid: placed for placed in bound if seated.seats.get(placed.uid) == held[placed.uid]}
    return [
        same.get(uid) or Placed(uid, text(mine.cpus), text(mine.nodes))
        for uid, mine in sorted(seated.seats.items())
    ]


def _badness(seated: Seating, machine: Machine) -> tuple[int, int]:
    """Pods without a seat, and NUMA nodes that pods are on, counted once a pod."""
    return len(seated.unplaced), sum(_span(seat, machine) for seat in seated.seats.values())


def _span(seat: Seat, machine: Machine) -> int:
    """How many NUMA nodes these CPUs are on."""
    return sum(bool(site.usable & seat.cpus) for site in machine.sites)


def _fine(old: Seat, new: Seat | None, machine: Machine) -> bool:
    """True when starting afresh would not put it on fewer NUMA nodes."""
    return new is None or _span(old, machine) <= _span(new, machine)
