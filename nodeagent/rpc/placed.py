"""Where pods run, as messages: the pools, each pod's place, and what a defragmentation came to."""

from __future__ import annotations

from nodeagent.model.decision import Tick
from nodeagent.model.placement import Place, Placement, Pool, Tidied, places
from nodeagent.rpc.scalars import U32, text
from nodeagent.v1 import nodeagent_pb2 as pb

POOL = {
    Pool.NONE: pb.POOL_UNSPECIFIED,
    Pool.BOUND: pb.POOL_BOUND,
    Pool.SHARED: pb.POOL_SHARED,
    Pool.MID: pb.POOL_MID,
    Pool.BATCH: pb.POOL_BATCH,
    Pool.LEFT_ALONE: pb.POOL_LEFT_ALONE,
}


def add_placement(report: pb.NodeReport, tick: Tick) -> None:
    """Add the pools, and the place of each pod, whose order is that of the snapshot."""
    report.owners_unknown.extend(map(text, tick.snapshot.foreign.unknown))
    found = tick.decision.placement
    if found is None:
        return
    report.placement.CopyFrom(_placement(found))
    specs = [pod.spec for pod in tick.snapshot.pods]
    where = places(specs, found, tick.decision.plan)
    for spec, message in zip(specs, report.pods, strict=True):
        message.placement.CopyFrom(place_message(where[spec.uid]))


def place_message(place: Place) -> pb.PodPlacement:
    """One pod's place."""
    return pb.PodPlacement(pool=POOL[place.pool], cpus=place.cpus, mems=place.mems, why=text(place.why))


def tidied_message(done: Tidied) -> pb.DefragmentResponse:
    """The answer to a request that was not refused."""
    return pb.DefragmentResponse(
        dry_run=done.dry_run,
        written=done.written,
        moves=[
            pb.Move(
                pod_uid=text(move.uid),
                pod_name=text(move.name),
                old_cpus=move.old_cpus,
                new_cpus=move.new_cpus,
                old_mems=move.old_mems,
                new_mems=move.new_mems,
            )
            for move in done.moves
        ],
        freed_numa_nodes=done.freed_nodes,
        bound_pods=min(done.bound, U32),
        unplaced_pods=min(done.unplaced, U32),
        errors=map(text, done.errors),
    )


def _placement(found: Placement) -> pb.Placement:
    return pb.Placement(
        shared_cpus=found.shared,
        mid_cpus=found.mid,
        batch_cpus=found.batch,
        shared_mems=found.shared_mems,
        batch_mems=found.batch_mems,
        hands_off_cpus=found.hands_off,
        owned=[pb.OwnedCpus(pod_uid=text(o.uid), cpus=o.cpus, why=text(o.why)) for o in found.owned],
    )
