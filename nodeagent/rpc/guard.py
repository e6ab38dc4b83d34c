"""Before every call, of every service: who is it, does it call too often, may it?

Invariant: refusing costs less than answering. A request is read only from who may call, and who goes on
calling while it is refused is not read from for a while. Who has no role takes nothing from those who have.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NamedTuple, NoReturn

import grpc
from google.protobuf.message import DecodeError

from nodeagent.rpc.bucket import Buckets
from nodeagent.rpc.caller import CALLER, Access, Caller, Context, Origin, Role
from nodeagent.rpc.splice import Connection

HEALTH = "/grpc.health.v1.Health/"
REQUEST_S = 5.0  # for the request to arrive, once the call has begun
HOLD_S = 0.25  # times the connections by which the same client is held already, and this one
LATE_S = 0.5  # so long a refusal waits where reading cannot be held
MAX_HOLD_S = 5.0  # well below the keepalive timeout
UNREAD_S = 1.0  # a refusal is an open call until its client takes it
STRANGER_CALLS = 8  # at a time, of one peer without a role: it can watch health
ROLES = "grpc.readers, grpc.directors, grpc.reader_uids"
REFUSALS = RATE, CROWD, ROLE = "rate", "concurrency", "role"


class Limits(NamedTuple):
    """Calls: how many a second in all and from one peer, and how many of one peer at a time."""

    per_s: float = 600.0
    per_peer_s: float = 300.0
    calls_per_peer: int = 96


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc ships no annotations
    """For grpc.aio.server(interceptors=...), of the methods that `covers`. `refused` counts by reason."""

    def __init__(
        self,
        access: Access,
        limits: Limits,
        connections: Mapping[str, Connection] | None = None,
        *,
        covers: Callable[[str], bool] = lambda _method: True,
        roles: str = ROLES,
    ) -> None:
        self._covers = covers
        self._roles = roles
        self.refused: Counter[str] = Counter(dict.fromkeys(REFUSALS, 0))
        self._access = access
        self._connections = {} if connections is None else connections
        self._limits = limits
        self._buckets = Buckets(limits.per_s, limits.per_peer_s, time.monotonic())
        self._strangers = Buckets(limits.per_s, limits.per_peer_s, time.monotonic())  # who have no role
        self._calls: Counter[str] = Counter()
        self._late: Counter[str] = Counter()
        self._guarded: dict[str, grpc.RpcMethodHandler] = {}
        self._unknown = self._wrap(grpc.stream_stream_rpc_method_handler(_not_known), "")

    @property
    def open_calls(self) -> int:
        """Of all clients."""
        return sum(tuple(self._calls.values()))

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> grpc.RpcMethodHandler:
        """The handler with the guard before it, also where there is none: unknown methods are counted too."""
        handler = await continuation(details)
        if not self._covers(details.method):
            return handler
        if handler is None:
            return self._unknown
        guarded = self._guarded.get(details.method)
        if guarded is None:
            guarded = self._guarded[details.method] = self._wrap(handler, details.method)
        return guarded

    def _wrap(self, handler: grpc.RpcMethodHandler, method: str) -> grpc.RpcMethodHandler:
        behaviour = (
            handler.stream_stream or handler.stream_unary or handler.unary_stream or handler.unary_unary
        )
        needed = Role.NONE if method.startswith(HEALTH) else Role.READER

        async def answer(requests: AsyncIterator[Any], context: Context) -> Any:
            caller = await self._admit(context, needed)
            CALLER.set(caller)  # a call is a task of its own
            given = requests if handler.request_streaming else await _only(requests, context)
            return await _answered(behaviour(given, context), context)

        # On the wire a single request is a stream of one: so it is not read before the caller may ask.
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return make(answer, handler.request_deserializer, handler.response_serializer)

    async def _admit(self, context: Context, needed: Role) -> Caller:
        connection = self._connections.get(context.peer())
        caller = self._caller(context, connection)
        self._count(caller.peer)
        most = self._limits.calls_per_peer if caller.role else STRANGER_CALLS
        above = (self._buckets if caller.role else self._strangers).take(caller.peer, time.monotonic())
        if above:
            await self._slow_down(connection, caller.peer, most)
            hint = "wait a second; Watch calls tell of changes by themselves"
            await self._refuse(context, RATE, grpc.StatusCode.RESOURCE_EXHAUSTED, f"{above}; hint: {hint}")
        if self._calls[caller.peer] - self._late[caller.peer] > most:
            await self._slow_down(connection, caller.peer, most)
            many = f"{caller.peer} has {most} calls open; hint: end some"
            await self._refuse(context, CROWD, grpc.StatusCode.RESOURCE_EXHAUSTED, many)
        if caller.role < needed:
            text = f"{caller.peer} has no role here; hint: see {self._roles}"
            await self._refuse(context, ROLE, grpc.StatusCode.PERMISSION_DENIED, text)
        return caller

    def _caller(self, context: Context, connection: Connection | None) -> Caller:
        origin = Origin() if connection is None else connection.origin
        caller = self._access.caller(context.auth_context(), origin)
        if connection is not None:
            connection.caller = caller
        return caller

    async def _slow_down(self, connection: Connection | None, peer: str, most: int) -> None:
        """Read less from it; on TCP, where that cannot be had, answer later, `most` calls at a time."""
        if connection is None:
            if self._late[peer] < most:
                self._late[peer] += 1
                try:
                    await asyncio.sleep(LATE_S)
                finally:
                    self._late -= Counter({peer: 1})
            return
        asyncio.get_running_loop().call_later(UNREAD_S, connection.cut_if_unread)
        theirs = (each for each in self._connections.values() if each.caller and each.caller.peer == peer)
        connection.hold(min(MAX_HOLD_S, HOLD_S * (1 + sum(each.held for each in theirs))))

    async def _refuse(self, context: Context, why: str, code: grpc.StatusCode, details: str) -> NoReturn:
        self.refused[why] += 1
        await context.abort(code, details)
        raise AssertionError("abort returned")  # it always raises

    def _count(self, peer: str) -> None:
        """The call is open until its client has taken the answer, or the refusal: that is its task's end."""
        task = asyncio.current_task()
        assert task is not None
        self._calls[peer] += 1
        task.add_done_callback(lambda _task: self._ended(peer))

    def _ended(self, peer: str) -> None:
        self._calls[peer] -= 1
        if not self._calls[peer]:
            del self._calls[peer]


async def _only(requests: AsyncIterator[Any], context: Context) -> Any:
    """The one request of a call that has one."""
    try:
        async with asyncio.timeout(REQUEST_S):
            async for request in requests:
                return request
    except TimeoutError:
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"no request came within {REQUEST_S:g} s")
    except DecodeError:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is not of this method's type")
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call has no request")
    raise AssertionError("abort returned")  # it always raises


async def _answered(answer: Any, context: Context) -> Any:
    """What a handler of any kind gives: a stream is written here, a single response is returned."""
    if hasattr(answer, "__aiter__"):
        async for response in answer:
            await context.write(response)
        return None
    return await answer if inspect.isawaitable(answer) else answer


async def _not_known(_requests: AsyncIterator[bytes], context: Context) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "there is no such method here")
