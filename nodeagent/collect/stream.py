"""One agent's stream of reports: what it says goes into the view, what it is to do goes down.

Invariant: a delta or a heartbeat counts only on top of a full status of this stream, of the same boot and
with a sequence that goes on; whatever else comes is answered with Resync, and what
cannot be ends this stream alone.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError

from nodeagent.collect.access import node_names, peer
from nodeagent.collect.offer import checked_name, offer_in, offer_of, renewed
from nodeagent.collect.tally import Tally
from nodeagent.collect.view import Offer, View
from nodeagent.model.errors import Garbled, Gone
from nodeagent.rpc.fold import apply, renew
from nodeagent.v1 import collector_pb2 as pb
from nodeagent.v1 import directive_pb2 as directive_pb
from nodeagent.v1 import nodeagent_pb2 as node_pb

FULL_WITHIN_S = 10.0
MAX_REPORTS_PER_S = 20  # agents send one a tick, and a tick is at least 0.1 s; who sends more is read later
MAX_ASKED = 16
RESYNC = pb.ReportResponse(resync=pb.Resync()).SerializeToString()
CODE = grpc.StatusCode

Context = Any  # grpc.aio.ServicerContext: grpc ships no annotations


class Ending(NamedTuple):
    """Why a stream is ended by the controller; `kind` is one of tally.ENDINGS."""

    kind: str
    code: grpc.StatusCode
    why: str


class Stream:
    """A call of Collector.Report, from its first message to its end; a `view.Source`."""

    def __init__(self, view: View, tally: Tally, context: Context, *, own_names: bool = False) -> None:
        self.peer = peer(context)
        self._own_names = node_names(context) if own_names else None
        self.name = ""
        self._view = view
        self._tally = tally
        self._context = context
        self._ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._needs_full = True
        self._resync_sent = False
        self._writing = asyncio.Lock()
        self._asked: dict[str, asyncio.Future[pb.DirectiveResult]] = {}
        self._second = 0.0
        self._in_second = 0

    async def run(self) -> None:
        """Read until either side ends it."""
        too_late = asyncio.get_running_loop().call_later(FULL_WITHIN_S, self._check_begun)
        reading = asyncio.create_task(self._read())
        try:
            await asyncio.wait((reading, self._ended), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._tally.endings["lost"] += 1
            raise
        finally:
            too_late.cancel()
            reading.cancel()
            self._leave()
        ending = self._ended.result() if self._ended.done() else await _outcome(reading)
        self._tally.endings[ending.kind if ending else "agent"] += 1
        if ending is not None:
            await self._context.abort(ending.code, ending.why)

    def end(self, ending: Ending) -> None:
        """Let run() end; of what still comes nothing counts."""
        if not self._ended.done():
            self._ended.set_result(ending)

    def replaced(self, by: str) -> None:
        """As view.Source: the newer stream of a node wins."""
        self._tally.say("stream.replaced", node=self.name, older=self.peer, newer=by)
        self.end(Ending("replaced", CODE.ABORTED, f"{by} reports as {self.name!r} from now on"))

    async def direct(self, directive: directive_pb.Directive, timeout_s: float) -> pb.DirectiveResult:
        """As view.Source. Gone when the stream ends before the answer; TimeoutError."""
        if directive.id in self._asked or len(self._asked) >= MAX_ASKED:
            raise Gone(f"{self.name} has not answered to what it was sent before")
        answer: asyncio.Future[pb.DirectiveResult] = asyncio.get_running_loop().create_future()
        self._asked[directive.id] = answer
        try:
            async with asyncio.timeout(timeout_s):
                await self._write(pb.ReportResponse(directive=directive).SerializeToString())
                return await answer
        finally:
            del self._asked[directive.id]

    async def _read(self) -> Ending | None:
        """None when the agent has ended it."""
        while (data := await self._context.read()) is not grpc.aio.EOF:
            if self._ended.done():
                break
            try:
                self._take(pb.ReportRequest.FromString(data))
            except DecodeError:
                return self._refuse("not a nodeagent.v1.ReportRequest")
            except Garbled as error:
                return self._refuse(str(error))
            except OverflowError as error:
                self._tally.say("stream.refused", peer=self.peer, why=str(error))
                return Ending("limit", CODE.RESOURCE_EXHAUSTED, str(error))
            if self._needs_full and not self._resync_sent:
                self._resync_sent = True
                self._tally.resyncs += 1
                await self._write(RESYNC)
            await self._pace()
        return None

    def _take(self, request: pb.ReportRequest) -> None:
        kind = request.WhichOneof("body") or "unknown"
        self._tally.reports[kind] += 1
        if kind == "full":
            self._take_full(request.full)
        elif kind == "directive_result":
            self._take_result(request.directive_result)
        elif kind != "unknown" and not self._needs_full:
            self._take_change(request)

    def _take_full(self, status: pb.NodeStatus) -> None:
        name, offer = checked_name(status.node_name), offer_of(status)
        if self.name and name != self.name:
            raise Garbled(f"full.node_name: this stream is that of {self.name!r}")
        if self._own_names is not None and name not in self._own_names:
            raise Garbled(f"full.node_name: the certificate does not name {name!r}")
        now = time.monotonic()
        if not self.name:
            before = self._view.join(name, self, now)
            self.name = name
            if before is not None:
                before.replaced(self.peer)
        self._needs_full = self._resync_sent = False
        self._view.tell(name, status, offer, now, time.time())

    def _take_change(self, request: pb.ReportRequest) -> None:
        """A delta or a heartbeat; what does not go on from where we are makes a full status be asked for."""
        node = self._view.nodes[self.name]
        if request.WhichOneof("body") == "heartbeat":
            if node.offer is None or request.heartbeat.seq < node.offer.seq:
                self._needs_full = True
                return
            offer: Offer | None = renewed(node.offer, request.heartbeat)
            status = renew(node.status, request.heartbeat)
        else:
            delta = request.delta
            if delta.HasField("capacity") and not _goes_on(node.offer, delta.capacity):
                self._needs_full = True
                return
            offer = offer_in(delta.capacity) if delta.HasField("capacity") else node.offer
            status = apply(node.status, delta)
        self._view.tell(self.name, status, offer, time.monotonic(), time.time())

    def _take_result(self, result: pb.DirectiveResult) -> None:
        answer = self._asked.get(result.id)
        if answer is not None and not answer.done():
            answer.set_result(result)

    async def _pace(self) -> None:
        """Who sends too much waits: flow control slows its sender down, and nobody else."""
        now = time.monotonic()
        if now - self._second >= 1.0:
            self._second, self._in_second = now, 0
        self._in_second += 1
        if self._in_second > MAX_REPORTS_PER_S:
            await asyncio.sleep(self._second + 1.0 - now)

    async def _write(self, data: bytes) -> None:
        async with self._writing:  # one at a time, as gRPC wants it
            await self._context.write(data)

    def _refuse(self, why: str) -> Ending:
        self._tally.say("stream.refused", peer=self.peer, node=self.name, why=why)
        return Ending("garbage", CODE.INVALID_ARGUMENT, why)

    def _check_begun(self) -> None:
        if not self.name:
            self.end(Ending("silent", CODE.DEADLINE_EXCEEDED, f"no full status within {FULL_WITHIN_S:g} s"))

    def _leave(self) -> None:
        self._view.leave(self.name, self)
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(Gone(f"{self.name} has gone before it answered"))


def _goes_on(offer: Offer | None, capacity: node_pb.Capacity) -> bool:
    return offer is None or (capacity.boot_id == offer.boot_id and capacity.seq >= offer.seq)


async def _outcome(reading: asyncio.Task[Ending | None]) -> Ending | None:
    """How reading came to its end; a connection that is lost in mid-read raises whatever gRPC likes."""
    try:
        return await reading
    except Exception:
        return Ending("lost", CODE.UNAVAILABLE, "the connection was lost")
