"""Peers that are gone without a word are missed, by those that serve as by those that ask."""

from __future__ import annotations

from contextlib import closing

import grpc
import pytest

from nodeagent.rpc import keepalive
from nodeagent.v1 import nodeagent_pb2 as pb
from nodeagent.v1.nodeagent_pb2_grpc import NodeAgentStub
from tests.unit import samples
from tests.unit.rpc_clients import eventually, serving
from tests.unit.test_link_trouble import forwarding


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepalive, "PING_S", 1.0)
    monkeypatch.setattr(keepalive, "PONG_S", 1.0)


def test_a_client_that_is_gone_without_a_word_holds_no_call() -> None:
    with serving("127.0.0.1:0", heartbeat_s=600.0) as server, forwarding(server.address) as (through, dark):
        server.publish(samples.tick(1))
        with closing(grpc.insecure_channel(through)) as channel:
            watch = NodeAgentStub(channel).WatchCapacity(pb.WatchCapacityRequest(), timeout=60.0)
            assert next(watch).capacity.seq == 1
            assert server.told().calls == 1
            dark.set()
            assert eventually(lambda: server.told().calls == 0)
