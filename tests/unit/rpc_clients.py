"""A real RpcServer and real clients for tests."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import grpc
import pytest
from msgspec.structs import replace

from nodeagent.core.explain import Told
from nodeagent.model.capacity import Amount
from nodeagent.model.decision import Tick
from nodeagent.rpc.entrance import Terms
from nodeagent.rpc.server import RpcServer
from nodeagent.v1.nodeagent_pb2_grpc import NodeAgentStub
from tests.unit import samples

WAIT_S = 10.0


@contextmanager
def serving(address: str, **options: Any) -> Iterator[RpcServer]:
    """A server that runs; fields of its Terms may be given by their names."""
    given = {name: options.pop(name) for name in Terms._fields if name in options}
    parts = {"accountant": Told, "terms": Terms(**given), **options}
    server = RpcServer(address, hostname="node-7", version="0.1", **parts)
    server.start()
    try:
        yield server
    finally:
        server.stop(0.0)


@contextmanager
def client(server: RpcServer, *options: tuple[str, int]) -> Iterator[Any]:
    private = ("grpc.use_local_subchannel_pool", 1)  # or clients of one address share a connection
    with closing(grpc.insecure_channel(server.address, options=[private, *options])) as channel:
        yield NodeAgentStub(channel)


def offering(seq: int, cores: float, *, valid_s: float = 10.0, source: str = "") -> Tick:
    tick = samples.tick(seq)
    capacity = tick.decision.capacity
    terms = (replace(capacity.cpu.terms[0], source=source), *capacity.cpu.terms[1:])
    changed = replace(
        capacity, cpu=Amount(cores, cores, terms), valid_until_unix=capacity.observed_unix + valid_s
    )
    return replace(tick, decision=replace(tick.decision, capacity=changed))


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def code(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
