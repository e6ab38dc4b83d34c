"""Who has a certificate but no role: it may watch health, and takes nothing from those who may more."""

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
from tests.unit.rpc_clients import WAIT_S, code, eventually, serving

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
