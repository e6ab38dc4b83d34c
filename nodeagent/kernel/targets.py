"""Which knobs matter for the pods that are here, parents first.

Invariant: whatever the kernel holds a wanted value against is among them.
"""

from __future__ import annotations

from collections.abc import Iterable

from nodeagent.model.plan import Kind, Knob
from nodeagent.model.pod import OWN_ROOT, Member, Qos

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


def around(paths: Iterable[str]) -> set[str]:
    """The cgroups above these, without the root."""
    found: set[str] = set()
    for path in paths:
        parts = path.split("/")
        found.update("/".join(parts[:n]) for n in range(1, len(parts)))
    return found


def _within(members: Iterable[Member]) -> set[str]:
    return {path for member in members for path in member.nested}
