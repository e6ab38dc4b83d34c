"""What a command asks of the running agent."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from typing import Any

import grpc

from nodeagent.model.errors import AgentError, Failed, Refused
from nodeagent.model.explanation import Explanation
from nodeagent.model.nic_told import NetTold
from nodeagent.model.placement import Move, Tidied
from nodeagent.rpc.channel import IS_IT_RUNNING, Target, opened
from nodeagent.rpc.explain_calls import explanation
from nodeagent.rpc.nics import told_by
from nodeagent.v1 import nodeagent_pb2 as pb
from nodeagent.v1.nodeagent_pb2_grpc import ControlStub, NodeAgentStub

SIZE = ("grpc.max_receive_message_length", -1)  # the server's own limit is the one that counts
_TLS = re.compile("verif|handshake|ssl|certificate", re.IGNORECASE)
TLS_HINT = "has each side a certificate that is not expired, of a CA that the other one knows, with its name?"


def defragment(address: str, *, dry_run: bool, timeout_s: float) -> Tidied:
    """Ask the agent at `address` ("unix:/path"); Failed or Refused with what to do about it."""
    with opened(Target(address)) as channel:
        try:
            done = ControlStub(channel).Defragment(
                pb.DefragmentRequest(dry_run=dry_run), timeout=timeout_s, wait_for_ready=False
            )
        except grpc.RpcError as error:
            raise told(error, timeout_s) from None
    return Tidied(
        dry_run=done.dry_run,
        bound=done.bound_pods,
        unplaced=done.unplaced_pods,
        moves=tuple(_move(move) for move in done.moves),
        freed_nodes=done.freed_numa_nodes,
        errors=tuple(done.errors),
        written=done.written,
    )


@contextlib.contextmanager
def asking(target: Target, timeout_s: float) -> Iterator[Any]:
    """The calls of the agent there; what they raise becomes Failed or Refused."""
    with opened(target, SIZE) as channel:
        try:
            yield NodeAgentStub(channel)
        except grpc.RpcError as error:
            raise told(error, timeout_s) from None


def explain(target: Target, pod: str | None, *, timeout_s: float) -> Explanation:
    """Why this pod (uid or name) has the limits that it has, without one why this capacity.

    Failed when there is no such pod; Failed or Refused, with what to do, when there is no answer.
    """
    request = pb.ExplainRequest(capacity=pb.CapacitySubject()) if pod is None else pb.ExplainRequest(pod=pod)
    with asking(target, timeout_s) as agent:
        return explanation(agent.Explain(request, timeout=timeout_s).explanation)


def watch_events(
    target: Target, request: pb.WatchEventsRequest, *, timeout_s: float
) -> Iterator[pb.WatchEventsResponse]:
    """Messages until the agent stops or the reader does; the first one comes within `timeout_s`."""
    with asking(target, timeout_s) as agent:
        stream = agent.WatchEvents(request)
        alarm = threading.Timer(timeout_s, stream.cancel)
        alarm.start()
        try:
            for message in stream:
                alarm.cancel()
                yield message
        finally:
            alarm.cancel()
            stream.cancel()


def network(target: Target, *, timeout_s: float) -> NetTold | None:
    """How the agent there shapes traffic, None when it shapes none; Failed or Refused with what to do."""
    with asking(target, timeout_s) as agent:
        answer = agent.GetNodeReport(pb.GetNodeReportRequest(), timeout=timeout_s)
    try:
        return told_by(answer.report.network) if answer.report.HasField("network") else None
    except KeyError:
        raise Failed("the agent is newer than this command", hint="use the agent's own nodeagent") from None


def _move(move: pb.Move) -> Move:
    return Move(move.pod_uid, move.pod_name, move.old_cpus, move.new_cpus, move.old_mems, move.new_mems)


def told(error: grpc.RpcError, timeout_s: float) -> AgentError:
    """What went wrong, in words, and what to do about it."""
    status, details = error.code(), error.details()
    if status is grpc.StatusCode.NOT_FOUND or (
        status is grpc.StatusCode.FAILED_PRECONDITION and details.startswith("pod: ")
    ):
        return Failed(details.removeprefix("pod: "), hint="uids and names: nodeagent once")
    if status is grpc.StatusCode.FAILED_PRECONDITION:
        return Failed(details, hint="run the agent with --set numa.placement=true")
    if status in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}:
        return Failed(f"the agent did not answer within {timeout_s:g} s", hint="its log says why")
    if status is grpc.StatusCode.PERMISSION_DENIED:
        message, _, hint = details.partition("; hint: ")
        return Refused(message, hint=hint or "see grpc.readers and grpc.directors of the agent")
    if status is grpc.StatusCode.UNAVAILABLE and _TLS.search(details):
        return Failed(f"no TLS with the agent: {details}", hint=TLS_HINT)
    return Failed(f"the agent answered {status.name}: {details}", hint=IS_IT_RUNNING)
