"""What a defragmentation comes to: who is elsewhere than before, and which NUMA nodes are free now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from nodeagent.core.decide import decide
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.decision import Memory
from nodeagent.model.placement import Move, Placed, Tidied
from nodeagent.model.policy import Policy
from nodeagent.model.snapshot import Snapshot
from nodeagent.model.topology import Topology

NOT_PLACED = "pods are not placed now: numa.placement is off, or the node is not known well enough yet"


def effect(snapshot: Snapshot, policy: Policy, before: Memory, *, dry_run: bool) -> Tidied:
    """What a defragmentation in this tick comes to, against the same tick without it.

    `before` is the memory that the tick was decided with.
    """
    asked = decide(replace(snapshot, defragment=True), policy, before)[0].placement
    without = decide(replace(snapshot, defragment=False), policy, before)[0].placement
    if asked is None or without is None:
        return Tidied(dry_run=dry_run, refused=NOT_PLACED)
    freed = _used(without.bound, snapshot.topology) - _used(asked.bound, snapshot.topology)
    return Tidied(
        dry_run=dry_run,
        bound=len(asked.bound),
        unplaced=len(asked.unplaced),
        moves=tuple(_moves(without.bound, asked.bound, {p.spec.uid: p.spec.name for p in snapshot.pods})),
        freed_nodes=str(CpuSet(freed)),
    )


def _moves(was: Iterable[Placed], now: Iterable[Placed], names: dict[str, str]) -> Iterator[Move]:
    """Pods that are here, by name."""
    old, new = {placed.uid: placed for placed in was}, {placed.uid: placed for placed in now}
    for uid in sorted((old.keys() | new.keys()) & names.keys(), key=lambda uid: (names[uid], uid)):
        before, after = old.get(uid, _NOWHERE), new.get(uid, _NOWHERE)
        if (before.cpus, before.mems) != (after.cpus, after.mems):
            yield Move(uid, names[uid], before.cpus, after.cpus, before.mems, after.mems)


_NOWHERE = Placed("", "", "")


def _used(bound: Iterable[Placed], topology: Topology) -> set[int]:
    """NUMA nodes whose CPUs or memory bound pods have."""
    cpus = {cpu for placed in bound for cpu in CpuSet.parse(placed.cpus)}
    mems = {node for placed in bound for node in CpuSet.parse(placed.mems)}
    return mems | {node.id for node in topology.nodes if cpus & set(node.cpus)}
