"""Directives that come down a stream: each is answered, and none changes anything unless that was allowed.

Invariant: one answer for each, whatever comes, with the code that ApplyDirective would give.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import grpc
import structlog

from nodeagent.v1 import collector_pb2 as pb
from nodeagent.v1 import directive_pb2

MAX_ID = 128

Take = Callable[
    [directive_pb2.Directive, str], Awaitable[pb.DirectiveResult]
]  # of a directive and its issuer

log = structlog.get_logger()


def refused(directive: directive_pb2.Directive, code: grpc.StatusCode, why: str) -> pb.DirectiveResult:
    """The answer to a directive that changes nothing."""
    return pb.DirectiveResult(id=directive.id[:MAX_ID], code=code.value[0], message=why)


async def take_none(directive: directive_pb2.Directive, _issuer: str) -> pb.DirectiveResult:
    """For an agent that is not to listen to its controller."""
    why = "this agent takes no directives from its controller; hint: controller.directives = true"
    return refused(directive, grpc.StatusCode.PERMISSION_DENIED, why)


async def taken(take: Take, directive: directive_pb2.Directive, issuer: str) -> pb.DirectiveResult:
    """The answer of `take`; INTERNAL when it has a bug, which must not end the link."""
    try:
        return await take(directive, issuer)
    except Exception as error:
        log.exception("directive.failed", id=directive.id[:MAX_ID])
        return refused(
            directive, grpc.StatusCode.INTERNAL, f"{type(error).__name__}: the agent's log tells more"
        )
