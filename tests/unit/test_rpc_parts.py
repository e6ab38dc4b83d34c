"""Clients with certificates that take more than their part: what is left to others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from nodeagent.rpc.caller import Access
from nodeagent.rpc.guard import STRANGER_CALLS, Limits
from nodeagent.rpc.server import RpcServer
from nodeagent.rpc.tls import Identity, TlsFiles
from nodeagent.v1 import nodeagent_pb2 as pb
from nodeagent.v1.nodeagent_pb2_grpc import NodeAgentStub
from tests.unit import samples
from tests.unit.certificates import Authority, needs_openssl
from tests.unit.rpc_clients import WAIT_S, client, code, eventually, serving

pytestmark = needs_openssl

ASK = health_pb2.HealthCheckRequest()
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextmanager
def secured(authority: Authority, **terms: Any) -> Iterator[RpcServer]:
    """A server that knows readers alone."""
    node = Identity(authority.issue("IP:127.0.0.1"))
    access = Access(readers=("reader.example",))
    with serving("", tls=node, tls_address="127.0.0.1:0", access=access, **terms) as server:
        server.publish(samples.tick(1))
        yield server


def channel(server: RpcServer, files: TlsFiles) -> Any:
    credentials = Identity(files).channel_credentials()
    private = [("grpc.use_local_subchannel_pool", 1)]
    return closing(grpc.secure_channel(server.tls_address, credentials, options=private))


def test_it_takes_no_calls_from_those_who_have_a_role(authority: Authority) -> None:
    stranger, reader = authority.issue("DNS:stranger.example"), authority.issue("DNS:reader.example")
    with (
        secured(authority, limits=Limits(per_s=1.0, per_peer_s=1.0)) as server,
        channel(server, stranger) as strange,
        channel(server, reader) as known,
    ):
        assert health_pb2_grpc.HealthStub(strange).Check(ASK, timeout=WAIT_S).status == SERVING
        answer = NodeAgentStub(known).GetCapacity(pb.GetCapacityRequest(), timeout=WAIT_S)
        assert answer.capacity.seq == 1


def test_it_keeps_few_calls_open(authority: Authority) -> None:
    stranger = authority.issue("DNS:stranger.example")
    with secured(authority) as server, channel(server, stranger) as strange:
        stub = health_pb2_grpc.HealthStub(strange)
        watches = [stub.Watch(ASK, timeout=WAIT_S) for _ in range(STRANGER_CALLS)]
        assert [next(watch).status for watch in watches] == [SERVING] * STRANGER_CALLS
        status, details = code(lambda: next(stub.Watch(ASK, timeout=WAIT_S)))
        assert (status, f"has {STRANGER_CALLS} calls open" in details) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            True,
        )
        watches[0].cancel()
        assert eventually(lambda: server.guard.open_calls < STRANGER_CALLS)
        assert next(stub.Watch(ASK, timeout=WAIT_S)).status == SERVING


def test_one_peer_cannot_watch_with_all_that_there_is(authority: Authority, tmp_path: Path) -> None:
    reader = authority.issue("DNS:reader.example")
    access = Access(readers=("reader.example",))
    tls = {"tls": Identity(authority.issue("IP:127.0.0.1")), "tls_address": "127.0.0.1:0"}
    with (
        serving(f"unix:{tmp_path}/s", access=access, max_watchers=8, **tls) as server,
        channel(server, reader) as greedy,
        client(server) as other,
    ):
        server.publish(samples.tick(1))
        ask = pb.WatchCapacityRequest()
        watches = [NodeAgentStub(greedy).WatchCapacity(ask, timeout=WAIT_S) for _ in range(6)]
        assert [next(watch).capacity.seq for watch in watches] == [1] * 6
        refused = NodeAgentStub(greedy).WatchCapacity(ask, timeout=WAIT_S)
        assert code(lambda: next(refused))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert next(other.WatchCapacity(ask, timeout=WAIT_S)).capacity.seq == 1
        watches[0].cancel()
        assert eventually(lambda: server.service.board._peers["dns:reader.example"] == 5)
        assert next(NodeAgentStub(greedy).WatchCapacity(ask, timeout=WAIT_S)).capacity.seq == 1
