"""ListPods: pages of the latest tick, by name and uid.

Invariant: a page is never larger than the message limit; a token tells after which pod to go on, so that it
holds over ticks.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Sequence
from typing import NamedTuple

import grpc
import msgspec

from nodeagent.model.decision import Signal
from nodeagent.model.explanation import PodUse
from nodeagent.model.plan import Setting
from nodeagent.model.pod import PodSpec
from nodeagent.model.snapshot import Pod
from nodeagent.rpc.board import Board, Calls, Context, abort, invalid, read
from nodeagent.rpc.convert import setting_message, signal_message
from nodeagent.rpc.nics import traffic_message
from nodeagent.rpc.placed import place_message
from nodeagent.rpc.posted import Posted
from nodeagent.rpc.scalars import counter, text, timestamp
from nodeagent.rpc.seen import QOS, pod_message
from nodeagent.v1 import nodeagent_pb2 as pb

MAX_PAGE = 1000
MAX_TOKEN = 16 << 10
AT_ONCE = 50  # pods to convert before other calls have a turn
OF_QOS = {number: qos for qos, number in QOS.items()}


class Token(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Where the next page begins: after this pod; `qos` is the filter that it belongs to."""

    qos: tuple[int, ...]
    name: str
    uid: str


class Asked(NamedTuple):
    """A checked request."""

    qos: tuple[int, ...]
    most: int
    after: tuple[str, str] | None


def pod_calls(board: Board, max_message_bytes: int) -> Calls:
    """The calls about pods, by method."""

    async def list_pods(request: bytes, context: Context) -> bytes:
        asked = await _checked(await read(pb.ListPodsRequest, request, context), context)
        return await _page(await board.posted(context), asked, context, max_message_bytes)

    return {"ListPods": grpc.unary_unary_rpc_method_handler(list_pods)}


async def _checked(request: pb.ListPodsRequest, context: Context) -> Asked:
    for number in request.qos:
        if number not in OF_QOS:
            await invalid(context, "qos", f"{number} is no class of pods")
    qos = tuple(sorted(set(request.qos)))
    most = min(request.page_size or MAX_PAGE, MAX_PAGE)
    if not request.page_token:
        return Asked(qos, most, None)
    token = _token(request.page_token)
    if token is None:
        return await invalid(context, "page_token", "is not one that this call has given")
    if token.qos != qos:
        await invalid(context, "page_token", "is of another filter: qos differs")
    return Asked(qos, most, (token.name, token.uid))


def _token(given: str) -> Token | None:
    if len(given) > MAX_TOKEN:
        return None
    try:
        return msgspec.msgpack.decode(base64.b64decode(given, b"-_", validate=True), type=Token)
    except (binascii.Error, msgspec.DecodeError, ValueError):
        return None


def _written(qos: tuple[int, ...], spec: PodSpec) -> str:
    packed = msgspec.msgpack.encode(Token(qos, *_key(spec)))
    return base64.urlsafe_b64encode(packed).decode()


def _key(spec: PodSpec) -> tuple[str, str]:
    """The order of pods, by what has a place in a token."""
    return text(spec.name), text(spec.uid)


async def _page(posted: Posted, asked: Asked, context: Context, max_bytes: int) -> bytes:
    seen = posted.tick.snapshot
    wanted = [pod for pod in seen.pods if not asked.qos or QOS[pod.spec.qos] in asked.qos]
    pods = sorted(wanted, key=lambda pod: _key(pod.spec))
    if asked.after is not None:
        pods = [pod for pod in pods if _key(pod.spec) > asked.after]
    head: bytes = pb.ListPodsResponse(seq=seen.seq, observed_at=timestamp(seen.unix)).SerializeToString()
    parts, size, last = [head], len(head), None
    for count, pod in enumerate(pods):
        if count == asked.most:
            break
        await _give_way(count)
        data = _status(posted, pod)
        token = len(_written(asked.qos, pod.spec)) + 8
        if size + len(data) + token > max_bytes:
            break
        parts.append(data)
        size, last = size + len(data), pod
    if pods and last is None:
        told = f"pod {_key(pods[0].spec)[0]} alone is larger than the limit of {max_bytes} bytes"
        hint = "raise the agent's message limit"
        await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, f"{told}; hint: {hint}")
    if last is not None and last is not pods[-1]:
        token_message = pb.ListPodsResponse(next_page_token=_written(asked.qos, last.spec))
        parts.append(token_message.SerializeToString())
    return b"".join(parts)


async def _give_way(count: int) -> None:
    if count % AT_ONCE == AT_ONCE - 1:
        await asyncio.sleep(0)


def _status(posted: Posted, pod: Pod) -> bytes:
    """A ListPodsResponse with this pod alone: messages may simply be joined."""
    data = posted.statuses.get(pod.spec.uid)
    if data is None:
        made = pb.ListPodsResponse(pods=[_message(posted, pod)])
        data = posted.statuses[pod.spec.uid] = made.SerializeToString()
    return data


def _message(posted: Posted, pod: Pod) -> pb.PodStatus:
    decision, uid, at = posted.tick.decision, pod.spec.uid, posted.tick.snapshot.at
    use = posted.uses.get(uid, PodUse(None, pod.reading.working_set_bytes, None, None))
    message = pb.PodStatus(
        pod=pod_message(pod, at),
        cpu_cores=use.cpu_cores,
        memory_bytes=counter(use.memory_bytes),
        cpu_stall_ratio=use.cpu_stall_ratio,
        throttled_ratio=use.throttled_ratio,
        settings=map(setting_message, _own(decision.plan, pod.spec)),
        signals=[signal_message(s, at) for s in _about(decision.signals, uid)],
    )
    if uid in posted.places:
        message.pod.placement.CopyFrom(place_message(posted.places[uid]))
    if uid in posted.ways:
        message.pod.traffic.CopyFrom(traffic_message(*posted.ways[uid]))
    return message


def _own(plan: Sequence[Setting], spec: PodSpec) -> list[Setting]:
    inside = f"{spec.cgroup}/"
    return [s for s in plan if s.knob.target == spec.cgroup or s.knob.target.startswith(inside)]


def _about(signals: Sequence[Signal], uid: str) -> list[Signal]:
    return [signal for signal in signals if signal.subject == uid]
