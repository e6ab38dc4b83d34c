"""One agent that is asked: its node report for what it is, then its capacity as it changes.

Invariant: one connection per agent, with the certificate of the moment; an agent that does not answer is
asked again after a random and growing pause, and its node turns stale by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from typing import Any

import grpc

from nodeagent.collect.offer import checked_name, offer_in, offer_of
from nodeagent.collect.tally import Tally
from nodeagent.collect.view import View
from nodeagent.model.errors import Garbled, Gone
from nodeagent.rpc.backoff import Backoff
from nodeagent.rpc.channel import checked, named, plain
from nodeagent.rpc.fold import apply
from nodeagent.rpc.keepalive import keepalive
from nodeagent.rpc.tls import Identity
from nodeagent.v1 import collector_pb2 as pb
from nodeagent.v1 import directive_pb2 as directive_pb
from nodeagent.v1 import nodeagent_pb2 as node_pb
from nodeagent.v1.nodeagent_pb2_grpc import NodeAgentStub

REPORT_EVERY_S = 30.0
ANSWER_S = 10.0
MIN_PAUSE_S, MAX_PAUSE_S = 0.5, 30.0
MAX_NODE_REPORT_BYTES = 16 << 20
QOS = {node_pb.QOS_LS: "ls", node_pb.QOS_MID: "mid", node_pb.QOS_BATCH: "batch"}


class Queried:
    """The agent at `address`; a `view.Source`."""

    def __init__(
        self, address: str, tls: Identity | None, view: View, tally: Tally, *, tls_name: str = ""
    ) -> None:
        self.peer = address
        self.name = ""
        self._tls = None if address.startswith(("unix:", "/")) else tls
        self._tls_name = tls_name
        self._target = plain(address) if self._tls is None else checked(address)
        self._held: object = None  # what the connection is made with
        self._view = view
        self._tally = tally
        self._stub: Any = None
        self._replaced = False
        self._why = ""  # it does not answer, as was said

    async def run(self) -> None:
        """Ask until cancelled."""
        backoff = Backoff(MIN_PAUSE_S, MAX_PAUSE_S)
        while True:
            begin = time.monotonic()
            async with self._channel() as channel:
                self._stub = NodeAgentStub(channel)
                try:
                    await self._follow()
                except grpc.aio.AioRpcError as error:
                    self._lost("agent.lost", error.code().name, error.details() or "")
                except (Garbled, OverflowError) as error:
                    self._lost("agent.refused", str(error))
                except Gone:
                    pass  # another source tells of the node, which has been said, or the files are others
                finally:
                    self._view.leave(self.name, self)
            await asyncio.sleep(backoff.pause_s(time.monotonic() - begin))

    def replaced(self, by: str) -> None:
        """As view.Source; the agent is asked again once nothing else tells of its node."""
        self._replaced = True
        self._tally.say("stream.replaced", node=self.name, older=self.peer, newer=by)

    async def direct(self, directive: directive_pb.Directive, timeout_s: float) -> pb.DirectiveResult:
        """As view.Source: by ApplyDirective, so the agent must take this controller for a director."""
        request = node_pb.ApplyDirectiveRequest(directive=directive)
        try:
            answer = await self._stub.ApplyDirective(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TimeoutError from None
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                raise Gone(f"{self.name}: {error.details()}") from None
            return pb.DirectiveResult(
                id=directive.id, code=error.code().value[0], message=error.details() or ""
            )
        return pb.DirectiveResult(id=directive.id, status=answer.status)

    async def _follow(self) -> None:
        """Until the stream of capacities ends, which it does with an error."""
        await self._refresh()
        due = time.monotonic() + REPORT_EVERY_S
        watch = self._stub.WatchCapacity(node_pb.WatchCapacityRequest())
        try:
            async for update in watch:
                self._take(update)
                self._check_files()
                if time.monotonic() >= due:
                    await self._refresh()
                    due = time.monotonic() + REPORT_EVERY_S
        finally:
            watch.cancel()

    async def _refresh(self) -> None:
        answer = await self._stub.GetNodeReport(node_pb.GetNodeReportRequest(), timeout=ANSWER_S)
        status = status_of(answer.report)
        name = checked_name(status.node_name)
        if name != self.name:
            self._view.leave(self.name, self)
            self.name = name
        self._check_place(name)
        before = self._view.join(name, self, time.monotonic())
        if before is not None:
            before.replaced(self.peer)
        if self._why:
            self._tally.note("agent.found", agent=self.peer, node=name)
            self._why = ""
        self._tally.reports["full"] += 1
        self._view.tell(name, status, offer_of(status), time.monotonic(), time.time())

    def _take(self, update: node_pb.WatchCapacityResponse) -> None:
        self._check_place(self.name)
        node = self._view.nodes[self.name]
        heartbeat = update.reason == node_pb.UPDATE_REASON_HEARTBEAT
        self._tally.reports["heartbeat" if heartbeat else "delta"] += 1
        status = apply(node.status, pb.NodeDelta(capacity=update.capacity))
        self._view.tell(self.name, status, offer_in(update.capacity), time.monotonic(), time.time())

    def _check_place(self, name: str) -> None:
        """Gone while another source that is newer tells of the node."""
        node = self._view.nodes.get(name)
        if self._replaced and node is not None and node.source not in (None, self):
            raise Gone(f"{name} is told of by another source")
        self._replaced = False

    def _lost(self, event: str, why: str, details: str = "") -> None:
        """Said once for each reason; the details differ from time to time."""
        if why != self._why:
            self._why = why
            self._tally.say(event, agent=self.peer, why=f"{why}: {details}" if details else why)

    def _check_files(self) -> None:
        """Gone once the connection is that of an identity which is no more."""
        if self._tls is not None and self._tls.material is not self._held:
            raise Gone("the files of TLS are others now")

    def _channel(self) -> contextlib.AbstractAsyncContextManager[Any]:
        options = [
            ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new connection
            ("grpc.enable_http_proxy", 0),  # what the environment names is for other programs
            ("grpc.max_receive_message_length", MAX_NODE_REPORT_BYTES),
            *keepalive(),
        ]
        if self._tls is None:
            return grpc.aio.insecure_channel(self._target, options=options)  # type: ignore[no-any-return]
        self._tls.refresh()
        self._held = self._tls.material
        secure = self._tls.channel_credentials()
        return grpc.aio.secure_channel(  # type: ignore[no-any-return]
            self._target, secure, options=[*options, *named(self._tls_name)]
        )


def status_of(report: node_pb.NodeReport) -> pb.NodeStatus:
    """What a controller keeps of a node, out of its report, which does not tell the mode."""
    counts = Counter(QOS.get(pod.qos) for pod in report.pods)
    status = pb.NodeStatus(
        node_name=report.node.hostname,
        agent_version=report.node.agent_version,
        total_cores=report.node.topology.online_cpu_count,
        total_bytes=report.node.memory.total_bytes,
        pods=pb.PodCounts(ls=counts["ls"], mid=counts["mid"], batch=counts["batch"]),
        signals=report.signals,
        slowed_pods=len({e.victim_uid for e in report.interference.episodes if not e.HasField("cleared_at")}),
    )
    if report.HasField("capacity"):
        status.capacity.CopyFrom(report.capacity)
    if report.HasField("batch_limit_cores"):
        status.batch_limit_cores = report.batch_limit_cores
    return status
