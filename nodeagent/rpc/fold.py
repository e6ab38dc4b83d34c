"""What a stream of reports says of a node: full, then what differs, then only that it still holds. Pure.

Invariant: apply(told, difference(told, now)) is `now`, but for signals that are the same ones for longer, and
for a limit that moved by less than NOISE.
"""

from __future__ import annotations

from nodeagent.v1 import collector_pb2 as pb

NOISE_RATIO = 0.01
NOISE_CORES = 0.01
FIXED = ("node_name", "agent_version", "total_cores", "total_bytes")  # in no delta: another one needs a full


def fold(status: pb.NodeStatus | None, request: pb.ReportRequest) -> pb.NodeStatus | None:
    """What is known of the node after this request; None: a full status is needed first (Resync)."""
    body = request.WhichOneof("body")
    if body == "full":
        return request.full
    if status is None or body in (None, "directive_result"):
        return status
    return apply(status, request.delta) if body == "delta" else renew(status, request.heartbeat)


def apply(status: pb.NodeStatus, delta: pb.NodeDelta) -> pb.NodeStatus:
    """A new status: what the delta has is replaced whole, what it lacks is as before."""
    new = pb.NodeStatus()
    new.CopyFrom(status)
    for name in ("capacity", "pods"):
        if delta.HasField(name):
            getattr(new, name).CopyFrom(getattr(delta, name))
    for name in ("signals", "directives"):
        if delta.HasField(name):
            new.ClearField(name)
            getattr(new, name).extend(getattr(getattr(delta, name), name))
    if delta.HasField("batch_limit"):
        new.ClearField("batch_limit_cores")
        if delta.batch_limit.HasField("cores"):
            new.batch_limit_cores = delta.batch_limit.cores
    if delta.mode:
        new.mode = delta.mode
    if delta.HasField("slowed_pods"):
        new.slowed_pods = delta.slowed_pods
    return new


def renew(status: pb.NodeStatus, heartbeat: pb.Heartbeat) -> pb.NodeStatus:
    """A new status whose capacity, the same as before, holds for longer."""
    new = pb.NodeStatus()
    new.CopyFrom(status)
    new.capacity.seq = heartbeat.seq
    new.capacity.observed_at.CopyFrom(heartbeat.observed_at)
    new.capacity.valid_until.CopyFrom(heartbeat.valid_until)
    return new


def difference(told: pb.NodeStatus, now: pb.NodeStatus, *, moved: bool) -> pb.NodeDelta | None:
    """What `told` lacks of `now`, with the capacity in any case; None when nothing differs.

    `moved`: the capacity differs (see `posted.differs`). `told` and `now` have the same FIXED fields.
    """
    delta = pb.NodeDelta()
    if now.mode != told.mode:
        delta.mode = now.mode
    if now.slowed_pods != told.slowed_pods:
        delta.slowed_pods = now.slowed_pods
    if now.pods != told.pods:
        delta.pods.CopyFrom(now.pods)
    if _limit_moved(told, now):
        delta.batch_limit.SetInParent()
        if now.HasField("batch_limit_cores"):
            delta.batch_limit.cores = now.batch_limit_cores
    if _which(now) != _which(told):
        delta.signals.SetInParent()
        delta.signals.signals.extend(now.signals)
    if list(now.directives) != list(told.directives):
        delta.directives.SetInParent()
        delta.directives.directives.extend(now.directives)
    if not moved and not delta.ByteSize():
        return None
    delta.capacity.CopyFrom(now.capacity)
    return delta


def _limit_moved(told: pb.NodeStatus, now: pb.NodeStatus) -> bool:
    if told.HasField("batch_limit_cores") != now.HasField("batch_limit_cores"):
        return True
    old, new = told.batch_limit_cores, now.batch_limit_cores
    return abs(old - new) > max(NOISE_CORES, NOISE_RATIO * max(old, new))


def _which(status: pb.NodeStatus) -> set[tuple[str, str]]:
    return {(signal.name, signal.subject) for signal in status.signals}
