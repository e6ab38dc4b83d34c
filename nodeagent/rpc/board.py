"""What is posted, and who waits for it: the tick, the events, the number of watchers.

Invariant: `post` and `events.post` are for the agent's thread, all else for the event loop; a watcher never
holds the agent up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError, Message

from nodeagent.model.interference import Episode
from nodeagent.model.interference_changes import closed
from nodeagent.rpc.caller import CALLER
from nodeagent.rpc.posted import Posted
from nodeagent.rpc.ring import Ring

CLEARED = 256  # episodes that are over and still told

Context = Any  # grpc.aio.ServicerContext: grpc ships no annotations
Calls = dict[str, grpc.RpcMethodHandler]  # of a service, by method; requests and responses stay bytes


class Board:
    """`watchers` is the number of streams now, of all kinds; one peer may have 3/4 of what may be."""

    def __init__(self, max_watchers: int) -> None:
        self.latest: Posted | None = None
        self.cleared: tuple[Episode, ...] = ()  # the latest first
        self.events = Ring()
        self.watchers = 0
        self.stopping = False
        self.news = asyncio.Event()
        self._max_watchers = max_watchers
        self._peers: Counter[str] = Counter()

    def post(self, posted: Posted) -> None:
        """The latest tick from now on; episodes that ended in it are kept."""
        before = None if self.latest is None else self.latest.tick
        ended = tuple(closed(before, posted.tick))
        if ended:
            self.cleared = (*ended, *self.cleared)[:CLEARED]
        self.latest = posted

    def wake(self) -> None:
        """Let every watcher look at the board."""
        self.events.take()
        news, self.news = self.news, asyncio.Event()
        news.set()

    def end(self) -> None:
        """Let every watcher end its stream."""
        self.stopping = True
        self.wake()

    async def posted(self, context: Context) -> Posted:
        """The latest tick; ends the call before the first one."""
        if self.latest is None:
            await abort(context, grpc.StatusCode.UNAVAILABLE, "warming up: no tick has finished yet")
        return self.latest

    @contextlib.asynccontextmanager
    async def watching(self, context: Context) -> AsyncIterator[None]:
        """Count as a watcher; ends the call when there are too many, and when the agent stops."""
        if self.watchers >= self._max_watchers:
            told = f"{self.watchers} clients are watching already"
            await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, told)
        caller = CALLER.get(None)
        peer = caller.peer if caller is not None else ""
        most = self._max_watchers - self._max_watchers // 4
        if self._peers[peer] >= most:
            told = f"{peer} has {most} of {self._max_watchers} watches; the others are for others"
            await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, told)
        self.watchers += 1
        self._peers[peer] += 1
        try:
            yield
        finally:
            self.watchers -= 1
            self._peers -= Counter({peer: 1})
        await abort(context, grpc.StatusCode.UNAVAILABLE, "nodeagent is stopping")


async def first(news: asyncio.Event, timeout_s: float) -> None:
    """Return at the news, or after `timeout_s`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await news.wait()


async def read(kind: type[Message], request: bytes, context: Context) -> Any:
    """The request as a message; INVALID_ARGUMENT for what is none."""
    try:
        return kind.FromString(request)
    except DecodeError:
        return await abort(context, grpc.StatusCode.INVALID_ARGUMENT, f"not a {kind.DESCRIPTOR.full_name}")


async def invalid(context: Context, field: str, wrong: str) -> NoReturn:
    """End the call: `field` of the request is wrong."""
    await abort(context, grpc.StatusCode.INVALID_ARGUMENT, f"{field}: {wrong}")


async def abort(context: Context, code: grpc.StatusCode, details: str) -> NoReturn:
    """End the call with a status."""
    await context.abort(code, details)
    raise AssertionError("abort returned")  # it always raises; told to mypy
