"""The calls of nodeagent.v1.Cluster: the view, again and again if wanted, and directives for one node.

Invariant: building views takes at most a fifth of the controller's time, whatever is asked: within four times
what a view took to build, the same bytes are handed out again.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from nodeagent.collect.access import DIRECTORS
from nodeagent.collect.tally import Tally
from nodeagent.collect.told import view_message
from nodeagent.collect.view import View
from nodeagent.model.errors import AgentError
from nodeagent.rpc.caller import Caller, director
from nodeagent.v1 import collector_pb2 as pb

SERVICE: str = pb.DESCRIPTOR.services_by_name["Cluster"].full_name
MAX_WATCHERS = 64
WATCH_EVERY_S = 1.0
ANSWER_S = 10.0  # for a directive, when the client sets no deadline
REUSE = 4.0
MAX_ID = 128
CODE = grpc.StatusCode
BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

Context = Any  # grpc.aio.ServicerContext: grpc ships no annotations
M = TypeVar("M", bound=Message)


class Cluster:
    """Reads the view, on the event loop that changes it."""

    def __init__(self, view: View, tally: Tally) -> None:
        self._view = view
        self._tally = tally
        self._built: dict[bool, tuple[float, bytes]] = {}  # by `nodes`: until when it is handed out again
        self._stopping = asyncio.Event()

    def handlers(self) -> grpc.GenericRpcHandler:
        """All calls, for Server.add_generic_rpc_handlers; requests and responses stay bytes."""
        calls = {
            "GetView": grpc.unary_unary_rpc_method_handler(self._get_view),
            "WatchView": grpc.unary_stream_rpc_method_handler(self._watch_view),
            "SendDirective": grpc.unary_unary_rpc_method_handler(self._send_directive),
        }
        return grpc.method_handlers_generic_handler(SERVICE, calls)

    def end_streams(self) -> None:
        """Let every watcher end its stream."""
        self._stopping.set()

    async def _get_view(self, request: bytes, context: Context) -> bytes:
        asked = await _parsed(pb.GetViewRequest, request, context)
        return self._bytes(nodes=asked.nodes)

    async def _watch_view(self, request: bytes, context: Context) -> None:
        asked = await _parsed(pb.WatchViewRequest, request, context)
        if self._tally.watchers >= MAX_WATCHERS:
            await _abort(context, CODE.RESOURCE_EXHAUSTED, f"{MAX_WATCHERS} clients are watching already")
        self._tally.watchers += 1
        try:
            while not self._stopping.is_set():
                await context.write(self._bytes(nodes=asked.nodes))
                await self._pause(WATCH_EVERY_S)
        finally:
            self._tally.watchers -= 1
        await _abort(context, CODE.UNAVAILABLE, "the controller is stopping")

    async def _send_directive(self, request: bytes, context: Context) -> bytes:
        issuer = await director(context, self._denied, DIRECTORS)
        asked = await _parsed(pb.SendDirectiveRequest, request, context)
        if not 1 <= len(asked.directive.id) <= MAX_ID:
            await _abort(context, CODE.INVALID_ARGUMENT, f"directive.id: not 1 to {MAX_ID} characters")
        node = self._view.nodes.get(asked.node_name)
        if node is None:
            await _abort(context, CODE.NOT_FOUND, f"no node {asked.node_name!r}")
        if node.source is None:
            await _abort(context, CODE.UNAVAILABLE, f"{node.name} is not connected")
        left_s = context.time_remaining()
        timeout_s = ANSWER_S if left_s is None else min(left_s, ANSWER_S)
        self._tally.directives += 1
        self._tally.record("directive.sent", node=node.name, id=asked.directive.id, by=issuer)
        try:
            result = await node.source.direct(asked.directive, timeout_s)
        except TimeoutError:
            await _abort(
                context, CODE.DEADLINE_EXCEEDED, f"{node.name} did not answer within {timeout_s:.1f} s"
            )
        except AgentError as error:
            await _abort(context, CODE.UNAVAILABLE, str(error))
        if result.code:
            await _abort(context, BY_NUMBER.get(result.code, CODE.UNKNOWN), result.message)
        return pb.SendDirectiveResponse(status=result.status).SerializeToString()

    def _denied(self, caller: Caller) -> None:
        self._tally.say("directive.refused", by=caller.issuer)

    def _bytes(self, *, nodes: bool) -> bytes:
        """A GetViewResponse, which is a WatchViewResponse as well."""
        begin = time.monotonic()
        until, data = self._built.get(nodes, (0.0, b""))
        if begin < until:
            return data
        chosen = self._view.nodes.values() if nodes else ()
        data = pb.GetViewResponse(view=view_message(self._view, chosen, time.time())).SerializeToString()
        end = time.monotonic()
        self._built[nodes] = end + REUSE * (end - begin), data
        return data

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass


async def _parsed(kind: type[M], request: bytes, context: Context) -> M:
    try:
        return kind.FromString(request)
    except DecodeError:
        await _abort(context, CODE.INVALID_ARGUMENT, f"not a {kind.DESCRIPTOR.full_name}")


async def _abort(context: Context, code: grpc.StatusCode, details: str) -> NoReturn:
    await context.abort(code, details)
    raise AssertionError("abort returned")  # it always raises; told to mypy
