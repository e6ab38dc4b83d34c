"""One stream to a controller, from its first message to its end.

Invariant: one write in flight, bounded in time; answers that wait for it are few, for then no more is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from nodeagent.model.decision import Tick
from nodeagent.rpc.account import Account
from nodeagent.rpc.mailbox import Mailbox
from nodeagent.rpc.orders import Take, taken
from nodeagent.rpc.status import InForce
from nodeagent.v1 import collector_pb2 as pb

CONNECT_S = 10.0
WRITE_S = 10.0
SETTLED_S = 0.5  # a stream that the controller refuses has ended by then
FAREWELL_S = 0.5
MAX_RESULTS = 16
HEAR_S = 0.01  # between two messages from the controller, which so cannot keep the thread busy
LONGEST_REASON = 300
UNKNOWN = "Internal error from Core"  # grpc.aio's, for a write that was on its way when the status came

Call = Any  # grpc.aio.StreamStreamCall of bytes: grpc ships no annotations


class Lost(Exception):
    """The stream has ended; `planned` when the agent itself wants another one."""

    def __init__(self, why: str, *, planned: bool = False) -> None:
        super().__init__("".join(c if c.isprintable() else " " for c in why)[:LONGEST_REASON])
        self.planned = planned


class Counts:
    """Since the start: requests sent by kind, directives by result; `sent_unix` of the last report."""

    def __init__(self) -> None:
        self.sent = dict.fromkeys(("full", "delta", "heartbeat", "directive_result"), 0)
        self.directives = {"taken": 0, "refused": 0}
        self.sent_unix: float | None = None


class Stream:
    """`settled` is called once the controller has it; `outdated` says why another stream is needed, or ""."""

    def __init__(  # noqa: PLR0913  # what belongs to the link, and what to the stream
        self,
        call: Call,
        mailbox: Mailbox,
        account: Account,
        *,
        in_force: Callable[[Tick], InForce],
        take: Take,
        issuer: str,
        counts: Counts,
        settled: Callable[[], None],
        outdated: Callable[[], str],
    ) -> None:
        self.stopping = False
        self._call = call
        self._mailbox = mailbox
        self._account = account
        self._in_force = in_force
        self._take = take
        self._issuer = issuer
        self._counts = counts
        self._settled = settled
        self._outdated = outdated
        self.begun = False
        self._results: asyncio.Queue[pb.DirectiveResult] = asyncio.Queue(MAX_RESULTS)

    async def run(self) -> None:
        """Until it ends: Lost with the reason, or a return after `stopping`."""
        tasks = [asyncio.create_task(each()) for each in (self._tell, self._hear)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            lost = await self._why([task for task in tasks if task.done() and not task.cancelled()])
        finally:
            self._call.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if not self.stopping:
            raise lost

    async def _tell(self) -> None:
        async with _within(CONNECT_S, "no connection"):
            await self._call.wait_for_connection()
        while not self.stopping:
            self._mailbox.clear()
            request, until = self._next(time.monotonic())
            if request is None:
                await self._mailbox.wait(until)
            else:
                await self._send(request)
        await self._leave()

    def _next(self, now: float) -> tuple[pb.ReportRequest | None, float | None]:
        """What to send, or for how many seconds at most there is nothing."""
        if why := self._outdated():
            raise Lost(why, planned=True)
        if not self._results.empty():
            return pb.ReportRequest(directive_result=self._results.get_nowait()), None
        posted = self._mailbox.latest
        if posted is None:
            return None, None
        request = self._account.next(posted, self._in_force(posted.tick), now)
        return request, None if request else max(0.0, self._account.look_at(posted, now) - now)

    async def _send(self, request: pb.ReportRequest) -> None:
        async with _within(WRITE_S, "the controller has read nothing"):
            await self._call.write(request.SerializeToString())
        if not self.begun:
            self.begun = True
            asyncio.get_running_loop().call_later(SETTLED_S, self._settle)
        kind = request.WhichOneof("body")
        assert kind is not None
        self._counts.sent[kind] += 1
        if kind != "directive_result":
            self._counts.sent_unix = time.time()

    def _settle(self) -> None:
        if not self._call.done():
            self._settled()

    async def _leave(self) -> None:
        """Withdraw the offer and wait a moment for the controller to have it."""
        posted = self._mailbox.latest
        request = self._account.farewell(posted) if posted is not None else None
        if request is None or not self.begun:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                await self._call.write(request.SerializeToString())
                await self._call.done_writing()
                await self._call.code()

    async def _hear(self) -> None:
        while (data := await self._call.read()) is not grpc.aio.EOF:
            try:
                response = pb.ReportResponse.FromString(data)
            except DecodeError:
                raise Lost("the controller sent what is no nodeagent.v1.ReportResponse") from None
            match response.WhichOneof("body"):
                case "directive":
                    await self._obey(response)
                case "resync":
                    self._account.forget()
            self._mailbox.wake()
            await asyncio.sleep(HEAR_S)

    async def _obey(self, response: pb.ReportResponse) -> None:
        result = await taken(self._take, response.directive, self._issuer)
        self._counts.directives["refused" if result.code else "taken"] += 1
        await self._results.put(result)

    async def _why(self, ended: list[asyncio.Task[None]]) -> Lost:
        """Our own reason, else the status that the call has ended with."""
        errors = [error for task in ended if (error := task.exception()) is not None]
        for error in errors:
            if isinstance(error, Lost):
                return error
        if self._call.done():
            code, details = await self._call.code(), await self._call.details()
            if code is not grpc.StatusCode.OK and details != UNKNOWN:
                return Lost(f"{code.name}: {_gist(details)}")
        known = asyncio.InvalidStateError  # a write after the end
        if bugs := [error for error in errors if not isinstance(error, known | grpc.aio.AioRpcError)]:
            return Lost(f"bug: {bugs[0]!r}")
        return Lost("the controller has ended the stream")


def _gist(details: str) -> str:
    """What grpc says, without how it says it."""
    return details.rpartition("last error: ")[2].removeprefix("UNKNOWN: ").removeprefix("UNAVAILABLE: ")


@contextlib.asynccontextmanager
async def _within(limit_s: float, otherwise: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError:
        raise Lost(f"{otherwise} for {limit_s:g} s") from None
