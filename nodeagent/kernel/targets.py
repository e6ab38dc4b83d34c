"""Which knobs matter for the pods that are here, parents first.

Invariant: whatever the kernel holds a wanted value against is among them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from nodeagent.model.interference import Restraint, Rung
from nodeagent.model.plan import Kind, Knob, KnobReading
from nodeagent.model.pod import OWN_LS, OWN_ROOT, Member, Qos
from nodeagent.model.policy import WeightPolicy
from nodeagent.model.snapshot import Pod

CLASS_DIRECTORIES = frozenset(f"{OWN_ROOT}/{qos.value}" for qos in Qos)


def cpu_knobs(members: Iterable[Member], tiers: Iterable[str], *, nested: bool) -> set[Knob]:
    """Quota and weight of Batch pods and of tiers; quota alone of what is above them and, if `nested` (v1),
    of what is inside a Batch pod: there no quota may exceed that of the nearest limited ancestor.
    """
    batch = [m for m in members if m.spec.qos is Qos.BATCH]
    owned = {m.spec.cgroup for m in batch} | {m.spec.tier for m in batch if m.spec.tier} | set(tiers)
    related = around(owned) | (_within(batch) if nested else set())
    return {Knob(Kind.CPU_QUOTA, path) for path in owned | related} | {
        Knob(Kind.CPU_WEIGHT, path) for path in owned
    }


def cpuset_knobs(members: Iterable[Member], tiers: Iterable[str], *, nested: bool) -> set[Knob]:
    """CPUs and memory nodes of Batch pods and tiers, of what is above and, if `nested` (v1), inside them.

    With an LS pod that binds, of all pods: the others have to leave its CPUs. Only of those that bind, and
    only on v1, the switch that makes pages follow.
    """
    here = tuple(members)
    bound = [m for m in here if m.spec.qos is Qos.LS and m.spec.numa_bind]
    placed = here if bound else tuple(m for m in here if m.spec.qos is Qos.BATCH)
    paths = {m.spec.cgroup for m in placed} | {m.spec.tier for m in placed if m.spec.tier} | set(tiers)
    paths |= around(paths) | (_within(placed) if nested else set())
    moving = {m.spec.cgroup for m in bound} | _within(bound) if nested else set()
    sets = {Knob(kind, path) for kind in (Kind.CPUS, Kind.MEMS) for path in paths}
    return sets | {Knob(Kind.MIGRATE, path) for path in moving}


def weight_knobs(members: Iterable[Member], pools: Collection[str], policy: WeightPolicy) -> set[Knob]:
    """Weight of the directory of the agent's own LS pods, if it is among `pools`; of its online pods that
    tell a request; and of the other LS pods, if the policy wants these changed."""
    found = {OWN_LS} & set(pools)
    for spec in (m.spec for m in members):
        if spec.cgroup.startswith(f"{OWN_ROOT}/"):
            if spec.online and spec.cpu_request_cores is not None:
                found.add(spec.cgroup)
        elif spec.qos is Qos.LS and policy.ls_factor > 1.0:
            found.add(spec.cgroup)
    return {Knob(Kind.CPU_WEIGHT, path) for path in found}


def restrained_knobs(member: Member, restraint: Restraint, *, nested: bool) -> set[Knob]:
    """What a restraint sets that is not read of every Batch pod; `nested` (v1): with the sets inside it."""
    top = member.spec.cgroup
    found = set()
    if restraint.away_from:
        sets = around([top]) | {top} | (_within([member]) if nested else set())
        found |= {Knob(Kind.CPUS, path) for path in sets}
    if restraint.memory_high_bytes is not None:
        found.add(Knob(Kind.MEMORY_HIGH, top))
    if restraint.io_weight is not None:
        found.add(Knob(Kind.IO_WEIGHT, top))
    if restraint.frozen or restraint.rung >= Rung.FREEZE:
        found.add(Knob(Kind.FREEZE, top))
    return found


def absent(wanted: Iterable[Knob], found: Iterable[KnobReading], pods: Collection[str]) -> tuple[Knob, ...]:
    """Those of these pods that are not there; a freezer in which the pod's processes are not is none."""
    wanted = [knob for knob in wanted if knob.target in pods]
    there = {r.knob for r in found if r.knob.kind is not Kind.FREEZE or r.high} if wanted else set()
    return tuple(knob for knob in wanted if knob not in there)


def class_knobs(members: Iterable[Member], tiers: Iterable[str]) -> set[Knob]:
    """Network class of MID and Batch pods, of what is inside them, LS pods too, and of tiers."""
    marked = [m for m in members if m.spec.qos is not Qos.LS]
    return {
        Knob(Kind.NET_CLASS, path) for path in {m.spec.cgroup for m in marked} | _within(marked) | set(tiers)
    }


def limited(pod: Pod) -> frozenset[str]:
    """The cgroups of a pod that have run under a quota of their own: only there the kernel counts periods."""
    own = frozenset((pod.spec.cgroup,) if pod.reading.periods else ())
    return own.union([c.cgroup for c in pod.containers if c.reading.periods]) if pod.containers else own


def burst_knobs(member: Member, limited: Collection[str], *, nested: bool) -> set[Knob]:
    """Quota and burst of the `limited` cgroups of an LS pod, and the quotas that theirs are held against."""
    top = member.spec.cgroup
    related = around([top]) | {top} | (_within([member]) if nested else set())
    return {Knob(kind, path) for kind in (Kind.CPU_QUOTA, Kind.CPU_BURST) for path in limited} | {
        Knob(Kind.CPU_QUOTA, path) for path in related
    }


def around(paths: Iterable[str]) -> set[str]:
    """The cgroups above these, without the root."""
    found: set[str] = set()
    for path in paths:
        parts = path.split("/")
        found.update("/".join(parts[:n]) for n in range(1, len(parts)))
    return found


def _within(members: Iterable[Member]) -> set[str]:
    return {path for member in members for path in member.nested}
