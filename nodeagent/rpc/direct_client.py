"""What `nodeagent direct` asks of the running agent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import grpc

from nodeagent.model.directive import Directive, DirectiveStatus, Taken
from nodeagent.model.errors import Failed
from nodeagent.rpc.channel import Target, opened
from nodeagent.rpc.client import told
from nodeagent.rpc.directed import directive_message, status_of
from nodeagent.v1 import nodeagent_pb2 as pb
from nodeagent.v1.nodeagent_pb2_grpc import NodeAgentStub

_TELLING = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
}


def direct(target: Target, directive: Directive, *, dry_run: bool, timeout_s: float) -> Taken:
    """Have the agent there take it; Failed or Refused with what it says."""
    request = pb.ApplyDirectiveRequest(directive=directive_message(directive), dry_run=dry_run)
    with _node_agent(target, timeout_s) as stub:
        answer = stub.ApplyDirective(request, timeout=timeout_s)
        return Taken(status_of(answer.status), answer.already_taken)


def directives(target: Target, *, timeout_s: float) -> tuple[DirectiveStatus, ...]:
    """Those that the agent there remembers, oldest first; Failed or Refused."""
    with _node_agent(target, timeout_s) as stub:
        answer = stub.ListDirectives(pb.ListDirectivesRequest(), timeout=timeout_s)
        return tuple(map(status_of, answer.directives))


@contextlib.contextmanager
def _node_agent(target: Target, timeout_s: float) -> Iterator[NodeAgentStub]:
    """A stub; what the agent answers instead of an answer is told as it tells it."""
    with opened(target) as channel:
        try:
            yield NodeAgentStub(channel)
        except grpc.RpcError as error:
            if error.code() in _TELLING:
                raise Failed(f"the agent refused: {error.details()}", hint=error.code().name) from None
            raise told(error, timeout_s) from None
        except (KeyError, ValueError):
            raise Failed(
                "the agent is newer than this command", hint="use the agent's own nodeagent"
            ) from None
