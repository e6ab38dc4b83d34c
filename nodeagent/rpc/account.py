"""What one stream has told a controller, and so what it has to tell next. No I/O, no clock of its own.

Invariant: what was told, folded, is the node as it was when the last message was made (see `fold`); a message
is made only from the latest tick, whatever came between.
"""

from __future__ import annotations

from math import inf

from msgspec.structs import replace

from nodeagent.model.capacity import Capacity
from nodeagent.rpc.convert import capacity_message
from nodeagent.rpc.fold import FIXED, apply, difference, renew
from nodeagent.rpc.posted import Posted, differs, withdraw
from nodeagent.rpc.scalars import timestamp
from nodeagent.rpc.status import InForce, Who, node_status
from nodeagent.v1 import collector_pb2 as pb

LEAST_PACE_S = 0.1
STOPPING = "nodeagent is stopping"


class Account:
    """One per stream. `report_s` and `heartbeat_s` are the least and the most time between two reports."""

    def __init__(self, who: Who, report_s: float, heartbeat_s: float) -> None:
        self._who = who
        self._report_s = report_s
        self._heartbeat_s = heartbeat_s
        self._told: pb.NodeStatus | None = None
        self._capacity: Capacity | None = None
        self._sent_at = -inf

    def forget(self) -> None:
        """The controller wants a full status next."""
        self._told = None

    def next(self, posted: Posted, in_force: InForce, now: float) -> pb.ReportRequest | None:
        """The report to send now, and from here on told; None when there is none yet. `now` is monotonic."""
        pace_s = self._pace_s(posted)
        if now < self._sent_at + min(self._report_s, pace_s):
            return None
        capacity = posted.capacity(now)
        request = self._made(node_status(posted.tick, capacity, self._who, in_force), capacity)
        if request is None and now >= self._sent_at + pace_s:
            request = self._heartbeat(capacity)
        if request is not None:
            self._sent_at = now
        return request

    def look_at(self, posted: Posted, now: float) -> float:
        """When there may be something to tell although no other tick came (monotonic seconds)."""
        pace_s = self._pace_s(posted)
        earliest = self._sent_at + min(self._report_s, pace_s)
        if now < earliest:
            return earliest
        beat_at = self._sent_at + pace_s
        return min(beat_at, posted.expires_at) if now < posted.expires_at else beat_at

    def farewell(self, posted: Posted) -> pb.ReportRequest | None:
        """Nothing is offered any more; None when the controller has heard of no offer."""
        if self._told is None:
            return None
        gone = replace(withdraw(posted.tick.decision.capacity), withdrawn=STOPPING)
        return pb.ReportRequest(delta=pb.NodeDelta(capacity=capacity_message(gone)))

    def _made(self, now: pb.NodeStatus, capacity: Capacity) -> pb.ReportRequest | None:
        told, before = self._told, self._capacity
        if told is None or before is None or any(getattr(told, name) != getattr(now, name) for name in FIXED):
            self._told, self._capacity = now, capacity
            return pb.ReportRequest(full=now)
        delta = difference(told, now, moved=differs(before, capacity))
        if delta is None:
            return None
        self._told, self._capacity = apply(told, delta), capacity
        return pb.ReportRequest(delta=delta)

    def _heartbeat(self, capacity: Capacity) -> pb.ReportRequest:
        heartbeat = pb.Heartbeat(
            seq=capacity.seq,
            observed_at=timestamp(capacity.observed_unix),
            valid_until=timestamp(capacity.valid_until_unix),
        )
        assert self._told is not None
        self._told = renew(self._told, heartbeat)
        return pb.ReportRequest(heartbeat=heartbeat)

    def _pace_s(self, posted: Posted) -> float:
        """Often enough that the capacity which was told stays valid while the agent lives."""
        return max(LEAST_PACE_S, min(self._heartbeat_s, posted.valid_s / 2 or self._heartbeat_s))
