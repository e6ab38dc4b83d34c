"""Directives to and from the wire: pure, and total in both directions.

Invariant: what cannot be a directive is refused with the field named as in the protocol; nothing raises.
"""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from nodeagent.model.directive import (
    Code,
    Directive,
    DirectiveStatus,
    End,
    Hold,
    Lend,
    Order,
    Recall,
    Refused,
    SetMode,
    State,
)
from nodeagent.model.settings import Mode
from nodeagent.rpc.scalars import text, timestamp
from nodeagent.v1 import directive_pb2 as pb

MODE = {pb.MODE_OBSERVE: Mode.OBSERVE, pb.MODE_ENFORCE: Mode.ENFORCE}
WIRE_MODE = {Mode.OBSERVE: pb.MODE_OBSERVE, Mode.ENFORCE: pb.MODE_ENFORCE}
STATE = {
    State.IN_FORCE: pb.DIRECTIVE_STATE_IN_FORCE,
    State.EXPIRED: pb.DIRECTIVE_STATE_EXPIRED,
    State.REPLACED: pb.DIRECTIVE_STATE_REPLACED,
    State.ENDED: pb.DIRECTIVE_STATE_ENDED,
}
_MODEL_STATE = {wire: state for state, wire in STATE.items()}
_NANOS = 1_000_000_000
_FIRST_S, _LAST_S = -62_135_596_800, 253_402_300_799  # the years 1 and 9999, as google.protobuf.Timestamp


def directive_of(message: pb.Directive) -> Directive | Refused:
    """What the message asks for; bounds that the agent sets are not looked at here."""
    order = _order(message)
    if isinstance(order, Refused):
        return order
    lease = message.lease
    if abs(lease.nanos) >= _NANOS or lease.seconds * lease.nanos < 0:
        return _wrong("lease: is not a duration")
    lease_s = 0.0 if isinstance(order, End) else lease.seconds + lease.nanos / _NANOS
    return Directive(id=message.id, lease_s=lease_s, reason=message.reason, order=order)


def directive_message(directive: Directive) -> pb.Directive:
    """The reverse."""
    message = pb.Directive(id=text(directive.id), reason=text(directive.reason))
    order = directive.order
    if isinstance(order, SetMode):
        message.set_mode.mode = WIRE_MODE[order.mode]
    elif isinstance(order, Hold):
        message.hold_capacity.SetInParent()
        if order.cpu_cores is not None:
            message.hold_capacity.cpu_cores = order.cpu_cores
        if order.memory_bytes is not None:
            message.hold_capacity.memory_bytes = order.memory_bytes
    elif isinstance(order, Lend):
        message.lend_node.SetInParent()
    elif isinstance(order, Recall):
        message.recall_node.deadline.CopyFrom(timestamp(order.deadline_unix))
    else:
        message.end_directive.id = order.id
    if not isinstance(order, End):
        seconds, nanos = divmod(round(directive.lease_s * _NANOS), _NANOS)
        message.lease.CopyFrom(Duration(seconds=seconds, nanos=nanos))
    return message


def status_message(status: DirectiveStatus) -> pb.DirectiveStatus:
    """A directive as the agent knows it."""
    return pb.DirectiveStatus(
        directive=directive_message(status.directive),
        issuer=text(status.issuer),
        taken_at=timestamp(status.taken_unix),
        ends_at=timestamp(status.ends_unix),
        state=STATE[status.state],
    )


def status_of(message: pb.DirectiveStatus) -> DirectiveStatus:
    """What an agent has told; KeyError or ValueError where it is newer than this."""
    directive = directive_of(message.directive)
    if isinstance(directive, Refused):
        raise ValueError(directive.message)
    return DirectiveStatus(
        directive=directive,
        issuer=message.issuer,
        taken_unix=_unix(message.taken_at),
        ends_unix=_unix(message.ends_at),
        state=_MODEL_STATE[message.state],
    )


def _order(message: pb.Directive) -> Order | Refused:
    which = message.WhichOneof("order")
    if which == "set_mode":
        mode = MODE.get(message.set_mode.mode)
        return _wrong("set_mode.mode: takes MODE_OBSERVE or MODE_ENFORCE") if mode is None else SetMode(mode)
    if which == "hold_capacity":
        hold = message.hold_capacity
        return Hold(
            hold.cpu_cores if hold.HasField("cpu_cores") else None,
            hold.memory_bytes if hold.HasField("memory_bytes") else None,
        )
    if which == "recall_node":
        return _recall(message.recall_node)
    if which == "lend_node":
        return Lend()
    if which == "end_directive":
        return End(message.end_directive.id)
    return _wrong("order: takes set_mode, hold_capacity, lend_node, recall_node or end_directive")


def _recall(recall: pb.RecallNode) -> Recall | Refused:
    if not recall.HasField("deadline"):
        return _wrong("recall_node.deadline: is missing")
    at = recall.deadline
    if not (_FIRST_S <= at.seconds <= _LAST_S and 0 <= at.nanos < _NANOS):
        return _wrong("recall_node.deadline: is not a time")
    return Recall(_unix(at))


def _unix(at: Timestamp) -> float:
    return at.seconds + at.nanos / _NANOS


def _wrong(why: str) -> Refused:
    return Refused(Code.INVALID_ARGUMENT, why)
