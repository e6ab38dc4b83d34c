"""The calls of nodeagent.v1.Control: wishes that wait for a tick, on a socket that only root may open.

Invariant: a client that is gone before the tick has wished nothing; nothing here makes the agent's loop wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from nodeagent.model.errors import AgentError
from nodeagent.model.placement import Tidied
from nodeagent.rpc.address import identity, listen, parse_unix
from nodeagent.rpc.placed import tidied_message
from nodeagent.v1 import nodeagent_pb2 as pb

SERVICE: str = pb.DESCRIPTOR.services_by_name["Control"].full_name
MODE = 0o600
MAX_WAITING = 16

Context = Any  # grpc.aio.ServicerContext: grpc ships no annotations


class Wanted:
    """One client that waits. Made by the server's thread, answered by the agent's loop."""

    def __init__(self, dry_run: bool) -> None:
        self.dry_run = dry_run
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[Tidied] = self._loop.create_future()

    def answer(self, done: Tidied) -> None:
        """Tell the client; does not wait."""
        with contextlib.suppress(RuntimeError):  # the server has stopped
            self._loop.call_soon_threadsafe(self._set, done)

    def _set(self, done: Tidied) -> None:
        if not self.done.done():
            self.done.set_result(done)


class Control:
    """`closed` is why its socket is not open, "" while it is or was never to be."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.closed = ""
        self._waiting: deque[Wanted] = deque()

    def take(self) -> tuple[Wanted, ...]:
        """What was asked for since the last call; called by the agent's loop."""
        taken = []
        with contextlib.suppress(IndexError):
            while True:
                taken.append(self._waiting.popleft())
        return tuple(taken)

    def refusals(self) -> grpc.GenericRpcHandler:
        """The same calls for servers that others may reach: denied."""
        return _handlers(self._deny)

    @contextlib.asynccontextmanager
    async def served(self, options: list[tuple[str, int]]) -> AsyncIterator[None]:
        """Serve on the socket as long as the context lasts; without an address nowhere."""
        if not self.address:
            yield
            return
        server = grpc.aio.server(options=options, maximum_concurrent_rpcs=2 * MAX_WAITING)
        server.add_generic_rpc_handlers((_handlers(self._defragment),))
        path, bound = self.address.removeprefix("unix:"), None
        try:
            listen(parse_unix(self.address), server.add_insecure_port, MODE)
            bound = identity(path)
            await server.start()
        except AgentError as error:
            self.closed = str(error)
        try:
            yield
        finally:
            await server.stop(0.0)
            if bound is not None and identity(path) == bound:
                os.unlink(path)

    async def _defragment(self, request: bytes, context: Context) -> bytes:
        asked = pb.DefragmentRequest()
        try:
            asked.ParseFromString(request)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a nodeagent.v1.DefragmentRequest")
        if len(self._waiting) >= MAX_WAITING:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_WAITING} clients wait already")
        wanted = Wanted(asked.dry_run)
        self._waiting.append(wanted)
        try:
            done = await wanted.done
        finally:
            with contextlib.suppress(ValueError):  # taken by now, as it should be
                self._waiting.remove(wanted)
        if done.refused:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, done.refused)
        return tidied_message(done).SerializeToString()

    async def _deny(self, _request: bytes, context: Context) -> bytes:
        where = self.address or "a socket of its own"
        await context.abort(
            grpc.StatusCode.PERMISSION_DENIED, f"{SERVICE} is served only to root, on {where}"
        )
        raise AssertionError("abort returned")  # it always raises


def _handlers(defragment: Any) -> grpc.GenericRpcHandler:
    calls = {"Defragment": grpc.unary_unary_rpc_method_handler(defragment)}
    return grpc.method_handlers_generic_handler(SERVICE, calls)
