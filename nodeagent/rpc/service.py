"""The calls of nodeagent.v1.NodeAgent, answered with bytes from the latest posted tick.

Invariant: one message in flight per client; of what it did not take in time only the latest is kept.
"""

from __future__ import annotations

import time

import grpc

from nodeagent.model.capacity import Capacity
from nodeagent.rpc.board import Board, Calls, Context, abort, first, read
from nodeagent.rpc.directing import Taker, direct_calls
from nodeagent.rpc.event_calls import event_calls
from nodeagent.rpc.explain_calls import explain_calls
from nodeagent.rpc.interference_calls import interference_calls
from nodeagent.rpc.pod_calls import pod_calls
from nodeagent.rpc.posted import Posted, differs
from nodeagent.v1 import nodeagent_pb2 as pb

SERVICE: str = pb.DESCRIPTOR.services_by_name["NodeAgent"].full_name
MIN_HEARTBEAT_S = 0.1

# A watch response is a capacity response with one more field: parts of a message may simply be joined.
REASON = {
    reason: pb.WatchCapacityResponse(reason=reason).SerializeToString()
    for reason in (pb.UPDATE_REASON_SNAPSHOT, pb.UPDATE_REASON_CHANGE, pb.UPDATE_REASON_HEARTBEAT)
}


class Service:
    """The board (`latest`, set by any thread) and the calls that read it (on the event loop)."""

    def __init__(
        self,
        *,
        hostname: str,
        version: str,
        heartbeat_s: float,
        max_message_bytes: int,
        max_watchers: int,
        directives: Taker | None = None,
    ) -> None:
        self.board = Board(max_watchers)
        self._hostname = hostname
        self._version = version
        self._heartbeat_s = heartbeat_s
        self._max_message_bytes = max_message_bytes
        self._directives = directives

    @property
    def latest(self) -> Posted | None:
        return self.board.latest

    @property
    def watchers(self) -> int:
        return self.board.watchers

    def calls(self) -> Calls:
        """All of them, by method; requests and responses stay bytes. More tables of calls are joined here."""
        own = {
            "GetCapacity": grpc.unary_unary_rpc_method_handler(self._get_capacity),
            "WatchCapacity": grpc.unary_stream_rpc_method_handler(self._watch_capacity),
            "GetNodeReport": grpc.unary_unary_rpc_method_handler(self._get_node_report),
        }
        return {
            **own,
            **pod_calls(self.board, self._max_message_bytes),
            **explain_calls(self.board, self._max_message_bytes),
            **interference_calls(self.board, self._max_message_bytes),
            **({} if self._directives is None else direct_calls(self.board, self._directives)),
            **event_calls(self.board, self._max_message_bytes, self._heartbeat_s),
        }

    def handlers(self) -> grpc.GenericRpcHandler:
        """The same for Server.add_generic_rpc_handlers."""
        return grpc.method_handlers_generic_handler(SERVICE, self.calls())

    async def _get_capacity(self, request: bytes, context: Context) -> bytes:
        await read(pb.GetCapacityRequest, request, context)
        posted = await self.board.posted(context)
        return posted.offer(time.monotonic()).data

    async def _get_node_report(self, request: bytes, context: Context) -> bytes:
        await read(pb.GetNodeReportRequest, request, context)
        posted = await self.board.posted(context)
        data = posted.report(self._hostname, self._version, time.monotonic())
        if len(data) > self._max_message_bytes:
            await abort(
                context,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"the report has {len(data)} bytes, the limit is {self._max_message_bytes}; "
                "hint: raise the agent's message limit",
            )
        return data

    async def _watch_capacity(self, request: bytes, context: Context) -> None:
        await read(pb.WatchCapacityRequest, request, context)
        await self.board.posted(context)
        async with self.board.watching(context):
            await self._watch(context)

    async def _watch(self, context: Context) -> None:
        sent: Capacity | None = None
        due = 0.0
        while not self.board.stopping:
            news = self.board.news  # taken before the board is read: what is posted from here on sets it
            posted, now = await self.board.posted(context), time.monotonic()
            capacity, data = posted.offer(now)
            reason = _reason(sent, capacity, late=now >= due)
            if reason is not None:
                await context.write(data + REASON[reason])
                sent, due = capacity, time.monotonic() + self._pace_s(posted)
                continue
            until = min(due, posted.expires_at) if now < posted.expires_at else due
            await first(news, until - now)

    def _pace_s(self, posted: Posted) -> float:
        """Heartbeat often enough that a client's last capacity stays valid while the agent lives."""
        return max(MIN_HEARTBEAT_S, min(self._heartbeat_s, posted.valid_s / 2 or self._heartbeat_s))


def _reason(sent: Capacity | None, capacity: Capacity, *, late: bool) -> pb.UpdateReason | None:
    if sent is None:
        return pb.UPDATE_REASON_SNAPSHOT
    if differs(sent, capacity):
        return pb.UPDATE_REASON_CHANGE
    return pb.UPDATE_REASON_HEARTBEAT if late else None
