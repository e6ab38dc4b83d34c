"""What the placement is asked in this tick: who wants cores of its own, what is there now, what is free.

After a restart the sets that the last run wrote are what is there now, so nothing moves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from msgspec.structs import replace

from nodeagent.core import foreign
from nodeagent.core.placement import place
from nodeagent.core.rates import View
from nodeagent.core.scene import Scene
from nodeagent.model.cpuset import CpuSet, size, within
from nodeagent.model.decision import BatchCpus, Memory
from nodeagent.model.foreign import Foreign
from nodeagent.model.placement import BindRequest, Placed, Placement
from nodeagent.model.plan import Kind, Knob
from nodeagent.model.pod import PodSpec, Qos
from nodeagent.model.policy import NumaPolicy
from nodeagent.model.topology import Topology


def seated(
    scene: Scene, policy: NumaPolicy, memory: Memory, batch_cores: float | None
) -> tuple[Scene, Memory]:
    """The scene with its placement, and the memory of it.

    There is none while pods are not placed, the Batch limit is not known, or it was never known whose the
    CPUs are.
    """
    theirs = foreign.settled(scene.view.snapshot.foreign, memory.foreign)
    memory = replace(memory, foreign=theirs)
    if not policy.placement or batch_cores is None or not foreign.known(theirs):
        return _unplaced(scene, theirs), replace(memory, placement=None, batch_cpus=None)
    view = scene.view
    off = foreign.hands_off(theirs, view.snapshot.topology)
    alone = foreign.left_alone(view, theirs, scene.knobs)
    asking = [spec for spec in _specs(view) if _binds(spec)]
    bound = [spec for spec in asking if spec.cgroup in scene.scope and spec.cgroup not in alone]
    before = memory.placement or _held(bound, scene, policy)
    wanted = _batch_cpus(view, policy, memory.batch_cpus or _begun(before, view), batch_cores)
    found = place(
        view.snapshot.topology,
        tuple(_request(spec) for spec in bound),
        before,
        _free_bytes(view, {spec.uid for spec in bound}),
        batch_cores=float(wanted.cpus),
        batch_floor_cpus=1,
        hands_off=off,
        mid_cpus=policy.mid_cpus,
        defragment=view.snapshot.defragment,
    )
    found = replace(
        found,
        unplaced=tuple(sorted((*found.unplaced, *_refused(asking, alone, scene.scope)))),
        hands_off=str(off),
        owned=foreign.owned(theirs),
        left_alone=tuple(sorted((s.uid, alone[s.cgroup]) for s in _specs(view) if s.cgroup in alone)),
    )
    scene = replace(scene, placement=found, left_alone=frozenset(alone))
    return scene, replace(memory, placement=found, batch_cpus=wanted)


def _unplaced(scene: Scene, theirs: Foreign) -> Scene:
    """Even so, whose CPUs are somebody else's business leaves none of them."""
    away = {cgroup for cgroup, restraint in scene.restraints.items() if restraint.away_from}
    if away and foreign.known(theirs):
        away &= foreign.left_alone(scene.view, theirs, scene.knobs).keys()
    return replace(scene, left_alone=frozenset(away)) if away else scene


def _specs(view: View) -> Iterator[PodSpec]:
    return (p.pod.spec for p in view.pods)


def _refused(
    asking: list[PodSpec], alone: Mapping[str, str], scope: frozenset[str]
) -> Iterator[tuple[str, str]]:
    """Pods that ask for cores of their own, but whose sets are not ours to write."""
    for spec in asking:
        if spec.cgroup in alone:
            yield spec.uid, alone[spec.cgroup]
        elif spec.cgroup not in scope:
            yield spec.uid, f"{spec.cgroup} is not within `scope`: nothing may be written there"


def _binds(spec: PodSpec) -> bool:
    return spec.qos is Qos.LS and spec.numa_bind


def _request(spec: PodSpec) -> BindRequest:
    cpus = max(1, math.ceil(spec.cpu_request_cores or 1.0))
    return BindRequest(spec.uid, cpus, spec.memory_request_bytes or 0, spec.exclusive, spec.near)


def _batch_cpus(view: View, policy: NumaPolicy, last: BatchCpus | None, cores: float) -> BatchCpus:
    """The limit in whole CPUs, changed no more often than the policy says: quota is the fine adjustment."""
    now, cpus = view.snapshot.at, max(1, math.ceil(cores - 1e-6))
    if last is None or (cpus != last.cpus and now - last.at >= policy.move_after_s):
        return BatchCpus(cpus, now)
    return last


def _begun(before: Placement, view: View) -> BatchCpus | None:
    """After a restart Batch has what the last run gave it, and keeps that for as long as at any time."""
    return BatchCpus(size(before.batch), view.snapshot.at) if before.batch else None


def _held(bound: list[PodSpec], scene: Scene, policy: NumaPolicy) -> Placement:
    """What the last run wrote. While pages move, their nodes are not written yet: "", those of the CPUs."""

    def written(kind: Kind, cgroup: str) -> str:
        reading = scene.knobs.get(Knob(kind, cgroup))
        return reading.written if reading is not None and isinstance(reading.written, str) else ""

    def seat(spec: PodSpec) -> Placed:
        cpus, mems = written(Kind.CPUS, spec.cgroup), written(Kind.MEMS, spec.cgroup)
        return Placed(
            spec.uid, cpus, mems if within(mems, _nodes_of(cpus, scene.view.snapshot.topology)) else ""
        )

    def pool(cgroups: Iterable[str]) -> str:
        return next(filter(None, (written(Kind.CPUS, cgroup) for cgroup in cgroups)), "")

    of = {qos: [s.cgroup for s in _specs(scene.view) if s.qos is qos and s not in bound] for qos in Qos}
    return Placement(
        bound=tuple(s for s in map(seat, bound) if s.cpus),
        shared=pool(of[Qos.LS]),
        mid=pool(of[Qos.MID]) if policy.mid_cpus else "",
        batch=pool((*scene.view.snapshot.tiers, *of[Qos.BATCH])),
    )


def _nodes_of(cpus: str, topology: Topology) -> str:
    mine = CpuSet.parse(cpus)
    return str(CpuSet(node.id for node in topology.nodes if not mine.isdisjoint(node.cpus)))


def _free_bytes(view: View, bound: set[str]) -> dict[int, int]:
    """By NUMA node: free, cheap to drop, or used by a bound pod, whose request is counted instead."""
    free = {
        m.numa_node: m.free_bytes + (m.inactive_file_bytes or 0) + (m.reclaimable_bytes or 0)
        for m in view.snapshot.node.numa_memory
        if m.numa_node is not None
    }
    for p in view.pods:
        if p.pod.spec.uid in bound:
            for node, size in p.pod.reading.pages_by_node or ():
                if node in free:
                    free[node] += size
    return free
