"""ApplyDirective and ListDirectives, and the same for directives that come down a controller's stream.

Invariant: nothing here waits for the disk on the event loop; what is refused has changed nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, Protocol

import grpc
from google.protobuf.message import DecodeError

from nodeagent.model.directive import Code, Directive, DirectiveStatus, Refused, Taken
from nodeagent.rpc.board import Board, Calls
from nodeagent.rpc.bucket import Buckets
from nodeagent.rpc.caller import director
from nodeagent.rpc.directed import directive_of, status_message
from nodeagent.rpc.orders import take_none
from nodeagent.v1 import collector_pb2, directive_pb2, nodeagent_pb2

MAX_ID = 128
DENIED_PER_S = 0.1  # on record, of one peer
STATUS = {status.value[0]: status for status in grpc.StatusCode}

Context = Any  # grpc.aio.ServicerContext: grpc ships no annotations


class Taker(Protocol):
    """Where directives go; of any thread, and `take` waits for the disk."""

    def take(self, directive: Directive, issuer: str, *, dry_run: bool = False) -> Taken | Refused: ...

    def refused(self, id: str, issuer: str, answer: Refused) -> None: ...  # noqa: A002

    def known(self) -> tuple[DirectiveStatus, ...]: ...


async def take(
    taker: Taker, message: directive_pb2.Directive, issuer: str, *, dry_run: bool = False
) -> Taken | Refused:
    """Have the directive taken, or say why not; for every way by which one comes in."""
    directive = directive_of(message)
    if isinstance(directive, Refused):
        if not dry_run:
            taker.refused(message.id, issuer, directive)
        return directive
    return await asyncio.to_thread(taker.take, directive, issuer, dry_run=dry_run)


async def result(
    taker: Taker, message: directive_pb2.Directive, issuer: str
) -> collector_pb2.DirectiveResult:
    """The same as the answer on a controller's stream."""
    answer = await take(taker, message, issuer)
    told = collector_pb2.DirectiveResult(id=message.id[:MAX_ID])
    if isinstance(answer, Refused):
        told.code, told.message = answer.code, answer.message
    else:
        told.status.CopyFrom(status_message(answer.status))
    return told


class Denied:
    """Puts on record who tried to direct and may not: seldom, so that it drives nothing else out of there."""

    def __init__(self, taker: Taker) -> None:
        self._taker = taker
        self._seldom = Buckets(1.0, DENIED_PER_S, time.monotonic())

    def note(self, id: str, issuer: str) -> None:  # noqa: A002
        """This directive was denied to that issuer."""
        if not self._seldom.take(issuer.partition(" ")[0], time.monotonic()):
            self._taker.refused(id, issuer, Refused(Code.PERMISSION_DENIED, "may not direct this node"))

    async def answer(self, directive: directive_pb2.Directive, issuer: str) -> collector_pb2.DirectiveResult:
        """For a controller that nobody is to listen to; as `orders.Take`."""
        self.note(directive.id[:MAX_ID], issuer)
        return await take_none(directive, issuer)


class Directing:
    """The calls, with requests and responses as bytes."""

    def __init__(self, taker: Taker) -> None:
        self._taker = taker
        self._denied = Denied(taker)

    async def apply(self, request: bytes, context: Context) -> bytes:
        issuer = await director(context, lambda caller: self._denied.note(_id(request), caller.issuer))
        asked = nodeagent_pb2.ApplyDirectiveRequest()
        try:
            asked.ParseFromString(request)
        except DecodeError:
            await _abort(context, Refused(Code.INVALID_ARGUMENT, f"not a {asked.DESCRIPTOR.full_name}"))
        if not asked.HasField("directive"):
            await _abort(context, Refused(Code.INVALID_ARGUMENT, "directive: is missing"))
        answer = await take(self._taker, asked.directive, issuer, dry_run=asked.dry_run)
        if isinstance(answer, Refused):
            await _abort(context, answer)
        done = nodeagent_pb2.ApplyDirectiveResponse(
            status=status_message(answer.status), already_taken=answer.already
        )
        return done.SerializeToString()

    async def list(self, request: bytes, context: Context) -> bytes:
        try:
            nodeagent_pb2.ListDirectivesRequest.FromString(request)
        except DecodeError:
            await _abort(context, Refused(Code.INVALID_ARGUMENT, "not a nodeagent.v1.ListDirectivesRequest"))
        known = [status_message(status) for status in self._taker.known()]
        return nodeagent_pb2.ListDirectivesResponse(directives=known).SerializeToString()


def _id(request: bytes) -> str:
    """Of the directive in a request that nobody looks at any further."""
    try:
        return nodeagent_pb2.ApplyDirectiveRequest.FromString(request).directive.id[:MAX_ID]
    except DecodeError:
        return ""


def direct_calls(board: Board, taker: Taker) -> Calls:
    """The calls about directives, by method; like all others they wait for the first tick."""
    directing = Directing(taker)

    def warm(call: Callable[[bytes, Context], Awaitable[bytes]]) -> grpc.RpcMethodHandler:
        async def once_warm(request: bytes, context: Context) -> bytes:
            await board.posted(context)
            return await call(request, context)

        return grpc.unary_unary_rpc_method_handler(once_warm)

    return {"ApplyDirective": warm(directing.apply), "ListDirectives": warm(directing.list)}


async def _abort(context: Context, refused: Refused) -> NoReturn:
    await context.abort(STATUS[refused.code.value], refused.message)
    raise AssertionError("abort returned")  # it always raises; told to mypy
