"""Which CPUs and memory nodes each pod and tier in scope shall have: the placement, by cgroup."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from nodeagent.core.foreign import holds
from nodeagent.core.rates import View
from nodeagent.model.placement import Placement
from nodeagent.model.pod import PodSpec, Qos

BATCH = "Batch: whole cores that no bound pod owns"
POOL = "pool: leaves the cores of bound pods"
BOUND = "bound: whole cores of its own"


class Home(NamedTuple):
    """The sets of one pod or tier; "" where there are none to be had. `bound`: they are its own."""

    cpus: str
    mems: str
    why: str
    bound: bool = False


def homes(view: View, scope: frozenset[str], left_alone: frozenset[str], found: Placement) -> dict[str, Home]:
    """By cgroup in `scope`; no sets for what is `left_alone`, and none for the tier around it.

    The other online pods are in it only when they must leave somebody's cores.
    """
    wanted = dict.fromkeys(left_alone, Home("", "", "left alone"))
    for tier in view.snapshot.tiers:
        if tier in scope and not holds(tier, left_alone):
            wanted[tier] = Home(found.batch, found.batch_mems, BATCH)
    seats = {placed.uid: placed for placed in found.bound}
    ours = scope - left_alone
    for spec in (p.pod.spec for p in view.pods if p.pod.spec.cgroup in ours):
        if (seat := seats.get(spec.uid)) is not None:
            wanted[spec.cgroup] = Home(seat.cpus, seat.mems, BOUND, bound=True)
        elif (pool := _pool(spec, found)) is not None:
            wanted[spec.cgroup] = pool
    return wanted


def home_of(target: str, wanted: Mapping[str, Home]) -> str | None:
    """The innermost pod or tier with a home of its own that the cgroup is, or is inside of."""
    while target:
        if target in wanted:
            return target
        target = target.rpartition("/")[0]
    return None


def _pool(spec: PodSpec, found: Placement) -> Home | None:
    if spec.qos is Qos.BATCH:
        return Home(found.batch, found.batch_mems, BATCH)
    if not found.bound:
        return None
    return Home(found.mid if spec.qos is Qos.MID else found.shared, found.shared_mems, POOL)
