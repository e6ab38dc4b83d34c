"""AppSignals: what applications push, checked, and handed on.

Invariant: what is handed on is within bounds, and of a pod whose application or whose director has called.
"""

from __future__ import annotations

import itertools
import math
import time
from typing import Protocol

import grpc

from nodeagent.model.app import LONGEST_S, Push, parse_slo
from nodeagent.model.directive import Refused
from nodeagent.model.pod import PodSpec
from nodeagent.rpc.board import Calls, Context, abort, invalid, read
from nodeagent.rpc.bucket import Buckets
from nodeagent.rpc.caller import CALLER, NOBODY, Role
from nodeagent.rpc.door import CgroupOf
from nodeagent.v1 import apps_pb2 as pb

SERVICE: str = pb.DESCRIPTOR.services_by_name["AppSignals"].full_name
LEAST_WINDOW_S, MOST_WINDOW_S = 0.1, 300.0
MAX_QUANTILES, MAX_BOUNDS = 16, 512
MAX_REQUESTS = 1 << 40
MAX_NAME = 4096
PUSHES_PER_S, POD_PUSHES_PER_S = 500.0, 5.0
STATUS = {status.value[0]: status for status in grpc.StatusCode}


class Pushes(Protocol):
    """Where they go; called on the server's thread alone, must not wait.

    `cgroup_of` tells where a process is, "" where it is not known.
    """

    @property
    def cgroup_of(self) -> CgroupOf: ...

    def push(self, push: Push, *, cgroup: str, name: str, director: bool) -> PodSpec | Refused: ...


class AppCalls:
    """The calls, with requests and responses as bytes."""

    def __init__(self, pushes: Pushes) -> None:
        self._pushes = pushes
        self._buckets = Buckets(PUSHES_PER_S, POD_PUSHES_PER_S, time.monotonic())

    def calls(self) -> Calls:
        """By method."""
        return {"PushAppSignals": grpc.unary_unary_rpc_method_handler(self._push)}

    def handlers(self) -> grpc.GenericRpcHandler:
        """The same for Server.add_generic_rpc_handlers."""
        return grpc.method_handlers_generic_handler(SERVICE, self.calls())

    async def _push(self, request: bytes, context: Context) -> bytes:
        asked = await read(pb.PushAppSignalsRequest, request, context)
        caller = CALLER.get(NOBODY)
        if len(asked.pod) > MAX_NAME:
            await invalid(context, "pod", f"takes a uid or a name of at most {MAX_NAME} characters")
        whose = asked.pod or caller.cgroup or caller.issuer
        if above := self._buckets.take(whose, time.monotonic()):
            await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, above)
        try:
            push = push_of(asked)
        except ValueError as error:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        director = caller.role is Role.DIRECTOR
        found = self._pushes.push(push, cgroup=caller.cgroup, name=asked.pod, director=director)
        if isinstance(found, Refused):
            await abort(context, STATUS[found.code.value], found.message)
        told = pb.PushAppSignalsResponse(pod_uid=found.uid, pod_name=found.name)
        return told.SerializeToString()


def push_of(asked: pb.PushAppSignalsRequest) -> Push:
    """What the message says; ValueError that names the field as in the protocol."""
    window_s = asked.window.seconds + asked.window.nanos / 1e9
    if not LEAST_WINDOW_S <= window_s <= MOST_WINDOW_S:
        raise ValueError(f"window: takes {LEAST_WINDOW_S:g} to {MOST_WINDOW_S:g} s, found {window_s:g} s")
    if asked.requests > MAX_REQUESTS:
        raise ValueError(f"requests: {asked.requests} in one window")
    if asked.quantiles and asked.HasField("histogram"):
        raise ValueError("histogram: takes no quantiles beside it")
    bounds, counts = _histogram(asked) if asked.HasField("histogram") else ((), ())
    try:
        slo = parse_slo(asked.slo) if asked.slo else None
    except ValueError as error:
        raise ValueError(f"slo: {error}") from None
    return Push(window_s, asked.requests, _quantiles(asked), bounds, counts, slo)


def _quantiles(asked: pb.PushAppSignalsRequest) -> tuple[tuple[float, float], ...]:
    found = sorted((each.quantile, each.latency_s) for each in asked.quantiles)
    if len(found) > MAX_QUANTILES:
        raise ValueError(f"quantiles: takes at most {MAX_QUANTILES}, found {len(found)}")
    if not all(0.0 < q < 1.0 and 0.0 <= value <= LONGEST_S for q, value in found):
        raise ValueError(f"quantiles: takes quantile within (0, 1) and latency_s within [0, {LONGEST_S:g}]")
    if any(a[0] == b[0] or a[1] > b[1] for a, b in itertools.pairwise(found)):
        raise ValueError("quantiles: each once, and a higher one has no smaller latency")
    return tuple(found)


def _histogram(asked: pb.PushAppSignalsRequest) -> tuple[tuple[float, ...], tuple[float, ...]]:
    bounds, counts = tuple(asked.histogram.bounds_s), tuple(map(float, asked.histogram.counts))
    if not 0 < len(bounds) <= MAX_BOUNDS or len(counts) != len(bounds) + 1:
        raise ValueError(f"histogram: takes 1 to {MAX_BOUNDS} bounds_s, and one more of counts")
    if not all(map(math.isfinite, bounds)) or any(a >= b for a, b in itertools.pairwise((0.0, *bounds))):
        raise ValueError("histogram.bounds_s: takes ascending seconds above 0")
    if sum(counts) > asked.requests:
        raise ValueError(f"histogram.counts: {sum(counts):g} in all, more than the {asked.requests} requests")
    return (*bounds, math.inf), counts
