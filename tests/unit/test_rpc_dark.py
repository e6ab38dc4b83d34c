"""Peers that are gone without a word are missed, by those that serve as by those that ask."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager

import grpc
import pytest

from nodeagent.collect.access import Allowed
from nodeagent.collect.cluster import Cluster
from nodeagent.collect.query import Queried
from nodeagent.collect.server import CollectServer, Reports
from nodeagent.collect.tally import Tally
from nodeagent.collect.view import View
from nodeagent.rpc import keepalive
from nodeagent.v1 import collector_pb2 as pb
from nodeagent.v1 import nodeagent_pb2 as node_pb
from nodeagent.v1.collector_pb2_grpc import CollectorStub
from nodeagent.v1.nodeagent_pb2_grpc import NodeAgentStub
from tests.unit import cluster_nodes as nodes
from tests.unit import samples
from tests.unit.rpc_clients import eventually, offering, serving
from tests.unit.test_link_trouble import forwarding


def be_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever begins from here on; the other side never misses anybody."""
    monkeypatch.setattr(keepalive, "PING_S", 1.0)
    monkeypatch.setattr(keepalive, "PONG_S", 1.0)


def test_a_client_that_is_gone_without_a_word_holds_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    be_impatient(monkeypatch)
    with serving("127.0.0.1:0", heartbeat_s=600.0) as server, forwarding(server.address) as (through, dark):
        server.publish(samples.tick(1))
        with closing(grpc.insecure_channel(through)) as channel:
            watch = NodeAgentStub(channel).WatchCapacity(node_pb.WatchCapacityRequest(), timeout=60.0)
            assert next(watch).capacity.seq == 1
            assert server.told().calls == 1
            dark.set()
            assert eventually(lambda: server.told().calls == 0)


@contextmanager
def controlling(view: View, tally: Tally, *asked: str) -> Iterator[str]:
    """A controller within this process, so that it can be made impatient; its address."""
    started: Future[str] = Future()
    stop = asyncio.Event()

    async def run() -> None:
        reports, cluster = Reports(view, tally, 10), Cluster(view, tally)
        server = CollectServer("127.0.0.1:0", None, Allowed(), reports, cluster, 10)
        await server.start()
        asking = [asyncio.create_task(Queried(each, None, view, tally).run()) for each in asked]
        loops.append(asyncio.get_running_loop())
        started.set_result(server.address)
        await stop.wait()
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await server.stop(0.0)

    loops: list[asyncio.AbstractEventLoop] = []
    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        yield started.result(10.0)
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(10.0)


def test_an_agent_that_is_gone_without_a_word_holds_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    be_impatient(monkeypatch)
    view, tally = View(max_nodes=10), Tally()
    requests: queue.SimpleQueue[pb.ReportRequest | None] = queue.SimpleQueue()
    requests.put(nodes.full("a", nodes.capacity(1, time.time())))
    with (
        controlling(view, tally) as address,
        forwarding(address) as (through, dark),
        closing(grpc.insecure_channel(through)) as channel,
    ):
        call = CollectorStub(channel).Report(iter(requests.get, None))
        assert eventually(lambda: "a" in view.nodes)
        dark.set()
        assert eventually(lambda: tally.streams == 0)
        # gRPC tells of either: that the connection is lost, or that no more will come
        assert tally.endings["lost"] + tally.endings["agent"] == 1
        assert view.nodes["a"].source is None
        requests.put(None)
        call.cancel()


def test_an_asked_agent_that_is_gone_without_a_word_is_not_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    view, tally = View(max_nodes=10), Tally()
    with serving("127.0.0.1:0", heartbeat_s=600.0) as agent, forwarding(agent.address) as (through, dark):
        agent.publish(offering(1, 1.0, valid_s=3600.0))
        be_impatient(monkeypatch)
        with controlling(view, tally, through):
            assert eventually(lambda: "node-7" in view.nodes and view.nodes["node-7"].source is not None)
            dark.set()
            assert eventually(lambda: view.nodes["node-7"].source is None)
            dark.clear()
            assert eventually(lambda: view.nodes["node-7"].source is not None)
