"""CPUs and memory nodes: bound LS pods on cores of their own, Batch in whole cores of the rest.

The other online pods are moved only when somebody owns cores that they must leave; else their sets are
theirs. cgroup v1 wants every set within the one above it, so what is inside a pod gets the pod's.

Invariant: nothing is written to a pod that somebody else looks after, nor to the tier around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nodeagent.core.foreign import holds
from nodeagent.core.scene import Scene
from nodeagent.model.placement import Placed, Placement
from nodeagent.model.plan import Kind, Knob, Setting
from nodeagent.model.pod import PodSpec, Qos
from nodeagent.model.policy import Policy

NAME = "cpuset"
BATCH = "Batch: whole cores that no bound pod owns"
POOL = "pool: leaves the cores of bound pods"
SETS = (Kind.CPUS, Kind.MEMS, Kind.MIGRATE)
_Sets = tuple[str, str, str]


def enforce(scene: Scene, policy: Policy) -> Iterator[Setting]:
    """CPUs and memory nodes of every pod and tier in scope; what is held is kept while nothing is decided."""
    found = scene.placement
    if found is None:
        if policy.numa.placement:
            yield from _kept(scene)
        return
    seats = {placed.uid: placed for placed in found.bound}
    wanted = _wanted(scene, found, seats)
    moving = {spec.cgroup for spec in (p.pod.spec for p in scene.view.pods) if spec.uid in seats}
    for knob in scene.knobs:
        home = _home(knob.target, wanted) if knob.kind in SETS else None
        if home is not None:
            yield from _setting(knob, wanted[home], follow=home in moving)


def _wanted(scene: Scene, found: Placement, seats: Mapping[str, Placed]) -> dict[str, _Sets]:
    """CPUs, memory nodes and the reason by cgroup; no sets for one that is left alone."""
    wanted = dict.fromkeys(scene.left_alone, ("", "", "left alone"))
    for tier in scene.view.snapshot.tiers:
        if tier in scene.scope and not holds(tier, scene.left_alone):
            wanted[tier] = (found.batch, found.batch_mems, BATCH)
    for spec in (p.pod.spec for p in scene.view.pods if p.pod.spec.cgroup in scene.scope - scene.left_alone):
        if (seat := seats.get(spec.uid)) is not None:
            wanted[spec.cgroup] = (seat.cpus, seat.mems, "bound: whole cores of its own")
        elif (pool := _pool(spec, found)) is not None:
            wanted[spec.cgroup] = (*pool, BATCH if spec.qos is Qos.BATCH else POOL)
    return wanted


def _pool(spec: PodSpec, found: Placement) -> tuple[str, str] | None:
    if spec.qos is Qos.BATCH:
        return found.batch, found.batch_mems
    if not found.bound:
        return None
    return (found.mid if spec.qos is Qos.MID else found.shared), found.shared_mems


def _home(target: str, wanted: Mapping[str, _Sets]) -> str | None:
    """The innermost pod or tier with a place of its own that the cgroup is, or is inside of."""
    while target:
        if target in wanted:
            return target
        target = target.rpartition("/")[0]
    return None


def _setting(knob: Knob, sets: _Sets, *, follow: bool) -> Iterator[Setting]:
    cpus, mems, why = sets
    if knob.kind is Kind.MIGRATE:
        if follow:
            yield Setting(knob, 1.0, NAME, "pages follow their pod")
    elif text := cpus if knob.kind is Kind.CPUS else mems:
        yield Setting(knob, text, NAME, why)


def _kept(scene: Scene) -> Iterator[Setting]:
    for knob, reading in scene.knobs.items():
        if knob.kind in SETS and reading.written is not None:
            yield Setting(knob, reading.written, NAME, f"kept: {scene.why}")
