"""Explain: the account of the latest tick, as a message and back."""

from __future__ import annotations

import difflib
import heapq
import time
from itertools import takewhile

import grpc
from msgspec.structs import replace

from nodeagent.model.explanation import Explanation, Input, Reason
from nodeagent.rpc.board import Board, Calls, Context, abort, invalid, read
from nodeagent.rpc.posted import Posted
from nodeagent.rpc.scalars import text, timestamp
from nodeagent.v1 import explain_pb2
from nodeagent.v1 import nodeagent_pb2 as pb

MAX_NAME = 4096  # longest uid: a cgroup's path
NEAR = 3
COMPARED = 16  # names for which a whole comparison is worth its time
LISTED = 5


def explain_calls(board: Board, max_message_bytes: int) -> Calls:
    """The calls that explain, by method."""

    async def explain(request: bytes, context: Context) -> bytes:
        asked = await read(pb.ExplainRequest, request, context)
        subject = asked.WhichOneof("subject")
        if subject is None:
            await invalid(context, "subject", "capacity or pod is to be given")
        posted = await board.posted(context)
        found = await (_capacity(posted, context) if subject == "capacity" else _pod(posted, asked, context))
        data: bytes = pb.ExplainResponse(explanation=explanation_message(found)).SerializeToString()
        if len(data) > max_message_bytes:
            told = f"the explanation has {len(data)} bytes, the limit is {max_message_bytes}"
            await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, told)
        return data

    return {"Explain": grpc.unary_unary_rpc_method_handler(explain)}


def explanation_message(found: Explanation) -> explain_pb2.Explanation:
    """As it is sent."""
    return explain_pb2.Explanation(
        seq=found.seq,
        observed_at=timestamp(found.observed_unix),
        subject=text(found.subject),
        reasons=[
            explain_pb2.Reason(
                name=text(each.name),
                inputs=[
                    explain_pb2.Input(name=text(i.name), value=text(i.value), source=text(i.source))
                    for i in each.inputs
                ],
                rule=text(each.rule),
                arithmetic=text(each.arithmetic),
                result=text(each.result),
                by=text(each.by),
                why=text(each.why),
                written=text(each.written),
                read_back=text(each.read_back),
            )
            for each in found.reasons
        ],
    )


def explanation(message: explain_pb2.Explanation) -> Explanation:
    """What was sent."""
    return Explanation(
        seq=message.seq,
        observed_unix=message.observed_at.ToMicroseconds() / 1e6,
        subject=message.subject,
        reasons=tuple(
            Reason(
                name=each.name,
                inputs=tuple(Input(i.name, i.value, i.source) for i in each.inputs),
                rule=each.rule,
                arithmetic=each.arithmetic,
                result=each.result,
                by=each.by,
                why=each.why,
                written=each.written,
                read_back=each.read_back,
            )
            for each in message.reasons
        ),
    )


async def _capacity(posted: Posted, context: Context) -> Explanation:
    found = posted.capacity_explained
    if found is None:
        return await _unexplained(context)
    stale = posted.stale(time.monotonic())
    return found if stale is None else replace(found, reasons=(stale, *found.reasons))


async def _pod(posted: Posted, asked: pb.ExplainRequest, context: Context) -> Explanation:
    if not 0 < len(asked.pod) <= MAX_NAME:
        await invalid(context, "pod", f"takes a uid or a name of at most {MAX_NAME} characters")
    uid = await _uid(posted, asked.pod, context)
    return posted.account.pod(uid) if posted.account is not None else await _unexplained(context)


async def _uid(posted: Posted, wanted: str, context: Context) -> str:
    """Of the pod with this uid, else of the one with this name."""
    specs = [pod.spec for pod in posted.tick.snapshot.pods]
    if any(spec.uid == wanted for spec in specs):
        return wanted
    named = [spec.uid for spec in specs if wanted in (text(spec.uid), spec.name, text(spec.name))]
    if not named:
        await abort(context, grpc.StatusCode.NOT_FOUND, _no_such([spec.name for spec in specs], wanted))
    if len(named) > 1:
        uids = ", ".join(map(text, sorted(named)[:LISTED])) + (", ..." if len(named) > LISTED else "")
        told = f"pod: {len(named)} pods are called {wanted[:100]!r}; give a uid: {uids}"
        await abort(context, grpc.StatusCode.FAILED_PRECONDITION, told)
    return named[0]


def _no_such(names: list[str], wanted: str) -> str:
    begin = heapq.nlargest(COMPARED, names, key=lambda name: _alike(name, wanted))
    near = difflib.get_close_matches(wanted, begin, NEAR) or [n for n in names if wanted in n][:NEAR]
    told = f"pod: there is no pod {wanted[:100]!r}"
    if near:
        return f"{told}; did you mean {' or '.join(map(text, near))}?"
    if not names:
        return f"{told}; the agent sees none at all"
    more = f", and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{told}; there are {', '.join(map(text, sorted(names)[:LISTED]))}{more}"


def _alike(name: str, wanted: str) -> int:
    """How many characters they begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(name, wanted, strict=False)))


async def _unexplained(context: Context) -> Explanation:
    return await abort(context, grpc.StatusCode.UNIMPLEMENTED, "this agent explains nothing")
