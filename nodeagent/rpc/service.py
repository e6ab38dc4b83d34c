"""The calls of nodeagent.v1.NodeAgent, answered with bytes from the latest posted tick.

Invariant: one message in flight per client; of what it did not take in time only the latest is kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError, Message

from nodeagent.model.capacity import Capacity
from nodeagent.rpc.directing import Directing, Taker
from nodeagent.rpc.posted import Posted, differs
from nodeagent.v1 import nodeagent_pb2 as pb

SERVICE: str = pb.DESCRIPTOR.services_by_name["NodeAgent"].full_name
MIN_HEARTBEAT_S = 0.1

# A watch response is a capacity response with one more field: parts of a message may simply be joined.
REASON = {
    reason: pb.WatchCapacityResponse(reason=reason).SerializeToString()
    for reason in (pb.UPDATE_REASON_SNAPSHOT, pb.UPDATE_REASON_CHANGE, pb.UPDATE_REASON_HEARTBEAT)
}

Context = Any  # grpc.aio.ServicerContext: grpc ships no annotations
Call = Callable[[bytes, Context], Awaitable[bytes]]


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
        self.latest: Posted | None = None
        self.watchers = 0
        self._hostname = hostname
        self._version = version
        self._heartbeat_s = heartbeat_s
        self._max_message_bytes = max_message_bytes
        self._max_watchers = max_watchers
        self._directing = None if directives is None else Directing(directives)
        self._news = asyncio.Event()
        self._stopping = False

    def handlers(self) -> grpc.GenericRpcHandler:
        """All calls, for Server.add_generic_rpc_handlers; requests and responses stay bytes."""
        calls = {
            "GetCapacity": grpc.unary_unary_rpc_method_handler(self._get_capacity),
            "WatchCapacity": grpc.unary_stream_rpc_method_handler(self._watch_capacity),
            "GetNodeReport": grpc.unary_unary_rpc_method_handler(self._get_node_report),
        }
        if self._directing is not None:
            for name, call in (
                ("ApplyDirective", self._directing.apply),
                ("ListDirectives", self._directing.list),
            ):
                calls[name] = grpc.unary_unary_rpc_method_handler(self._warm(call))
        return grpc.method_handlers_generic_handler(SERVICE, calls)

    def wake(self) -> None:
        """Let every watcher look at the board."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def end_streams(self) -> None:
        """Let every watcher end its stream."""
        self._stopping = True
        self.wake()

    async def _get_capacity(self, request: bytes, context: Context) -> bytes:
        await _check(pb.GetCapacityRequest, request, context)
        posted = await self._posted(context)
        return posted.offer(time.monotonic()).data

    async def _get_node_report(self, request: bytes, context: Context) -> bytes:
        await _check(pb.GetNodeReportRequest, request, context)
        posted = await self._posted(context)
        data = posted.report(self._hostname, self._version)
        if len(data) > self._max_message_bytes:
            await _abort(
                context,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"the report has {len(data)} bytes, the limit is {self._max_message_bytes}; "
                "hint: raise the agent's message limit",
            )
        return data

    async def _watch_capacity(self, request: bytes, context: Context) -> None:
        await _check(pb.WatchCapacityRequest, request, context)
        await self._posted(context)
        if self.watchers >= self._max_watchers:
            await _abort(
                context, grpc.StatusCode.RESOURCE_EXHAUSTED, f"{self.watchers} clients are watching already"
            )
        self.watchers += 1
        try:
            await self._watch(context)
        finally:
            self.watchers -= 1
        await _abort(context, grpc.StatusCode.UNAVAILABLE, "nodeagent is stopping")

    async def _watch(self, context: Context) -> None:
        sent: Capacity | None = None
        due = 0.0
        while not self._stopping:
            news = self._news  # taken before the board is read: what is posted from here on sets it
            posted, now = await self._posted(context), time.monotonic()
            capacity, data = posted.offer(now)
            reason = _reason(sent, capacity, late=now >= due)
            if reason is not None:
                await context.write(data + REASON[reason])
                sent, due = capacity, time.monotonic() + self._pace_s(posted)
                continue
            until = min(due, posted.expires_at) if now < posted.expires_at else due
            await _first(news, until - now)

    def _pace_s(self, posted: Posted) -> float:
        """Heartbeat often enough that a client's last capacity stays valid while the agent lives."""
        return max(MIN_HEARTBEAT_S, min(self._heartbeat_s, posted.valid_s / 2 or self._heartbeat_s))

    def _warm(self, call: Call) -> Call:
        """The call, once a tick has finished."""

        async def warm(request: bytes, context: Context) -> bytes:
            await self._posted(context)
            return await call(request, context)

        return warm

    async def _posted(self, context: Context) -> Posted:
        if self.latest is None:
            await _abort(context, grpc.StatusCode.UNAVAILABLE, "warming up: no tick has finished yet")
        return self.latest


def _reason(sent: Capacity | None, capacity: Capacity, *, late: bool) -> pb.UpdateReason | None:
    if sent is None:
        return pb.UPDATE_REASON_SNAPSHOT
    if differs(sent, capacity):
        return pb.UPDATE_REASON_CHANGE
    return pb.UPDATE_REASON_HEARTBEAT if late else None


async def _first(news: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await news.wait()
    except TimeoutError:
        pass


async def _check(kind: type[Message], request: bytes, context: Context) -> None:
    try:
        kind.FromString(request)
    except DecodeError:
        await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, f"not a {kind.DESCRIPTOR.full_name}")


async def _abort(context: Context, code: grpc.StatusCode, details: str) -> NoReturn:
    await context.abort(code, details)
    raise AssertionError("abort returned")  # it always raises; told to mypy
