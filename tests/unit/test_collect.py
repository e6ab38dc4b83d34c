"""The reference controller for real, as a process; some of the agents that talk to it do not behave."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from nodeagent.v1 import collector_pb2 as pb
from tests.unit import cluster_nodes as nodes
from tests.unit.collecting import Agent, Controller, collecting, counted, reporting
from tests.unit.rpc_clients import WAIT_S, eventually

RESYNC = pb.ReportResponse(resync=pb.Resync())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    with collecting(tmp_path_factory.mktemp("collect")) as controller:
        yield controller


def test_the_view_adds_up_what_the_agents_offer_by_numa_node_and_in_total(tmp_path: Path) -> None:
    with collecting(tmp_path) as controller, reporting(controller, "a", "b", "c") as (a, b, c):
        a.offer(1, 4.0, zones=[(0, 1.0, nodes.GIB), (1, 3.0, 2 * nodes.GIB)])
        b.offer(1, 0.5, zones=[(1, 0.5, nodes.GIB)])
        c.offer(1, 9.0, withdrawn="a reading is missing")
        view = controller.view()
        assert view.available_cores == 4.5
        assert view.available_bytes == 16 * nodes.GIB
        assert [(zone.numa_node, zone.available_cores, zone.nodes) for zone in view.zones] == [
            (0, 1.0, 1),
            (1, 3.5, 2),
        ]
        assert (view.fresh_nodes, view.withdrawn_nodes, view.stale_nodes) == (3, 1, 0)
        assert {node.node_name for node in view.nodes} == {"a", "b", "c"}
        assert all(node.connected and not node.stale for node in view.nodes)
        assert not controller.view(nodes=False).nodes


def test_deltas_and_heartbeats_go_on_from_the_full_status(shared: Controller) -> None:
    with reporting(shared, "goes-on") as (agent,):
        agent.offer(1, 4.0, terms=True)
        agent.send(nodes.delta(nodes.capacity(2, time.time(), 3.0)))
        agent.send(pb.ReportRequest(delta=pb.NodeDelta(pods=pb.PodCounts(ls=9))))
        agent.send(nodes.heartbeat(4, time.time()))
        assert eventually(lambda: agent.told(4))
        node = shared.node("goes-on")
        assert node is not None
        assert node.status.capacity.cpu.available_cores == 3.0
        assert (node.status.pods.ls, node.status.total_cores) == (9, 16.0)
        assert node.heard_at.seconds == pytest.approx(time.time(), abs=WAIT_S)


def test_what_comes_before_a_full_status_counts_for_nothing_and_asks_for_one(shared: Controller) -> None:
    with reporting(shared, "late") as (agent,):
        agent.send(nodes.delta(nodes.capacity(7, time.time(), 3.0)), nodes.heartbeat(8, time.time()))
        assert next(agent.call) == RESYNC
        assert shared.node("late") is None
        agent.offer(9, 2.0)
        agent.send(nodes.heartbeat(10, time.time()))
        assert eventually(lambda: agent.told(10))


@pytest.mark.parametrize(
    "request_of",
    [
        lambda: nodes.delta(nodes.capacity(4, time.time(), 1.0)),
        lambda: nodes.heartbeat(4, time.time()),
        lambda: nodes.delta(nodes.capacity(6, time.time(), 1.0, boot_id="another")),
    ],
    ids=["a delta that goes back", "a heartbeat that goes back", "another boot"],
)
def test_what_does_not_go_on_from_before_asks_for_a_full_status(shared: Controller, request_of) -> None:  # type: ignore[no-untyped-def]
    with reporting(shared, "back") as (agent,):
        agent.offer(5, 4.0)
        agent.send(request_of())
        assert next(agent.call) == RESYNC
        agent.send(nodes.delta(nodes.capacity(9, time.time(), 7.0)))  # not before it is there
        node = shared.node("back")
        assert node is not None
        assert (node.status.capacity.seq, node.status.capacity.cpu.available_cores) == (5, 4.0)
        agent.offer(1, 2.0, boot_id="another")  # begins anew
        assert shared.node("back").status.capacity.boot_id == "another"  # type: ignore[union-attr]


def test_a_node_that_falls_silent_counts_for_nothing_once_its_validity_is_over(tmp_path: Path) -> None:
    with collecting(tmp_path) as controller, reporting(controller, "silent", "alive") as (silent, alive):
        silent.offer(1, 4.0, valid_s=0.5)
        alive.offer(1, 1.0, valid_s=60.0)
        assert counted(controller, lambda view: view.stale_nodes == 1)
        view = controller.view()
        assert (view.available_cores, view.fresh_nodes) == (1.0, 1)
        assert {node.node_name: node.stale for node in view.nodes} == {"silent": True, "alive": False}
        assert eventually(lambda: [each["node"] for each in controller.said("node.stale")] == ["silent"])
        silent.send(nodes.heartbeat(2, time.time()))
        assert counted(controller, lambda view: view.available_cores == 5.0)


def test_what_was_valid_only_in_the_past_counts_for_nothing_at_once(shared: Controller) -> None:
    with reporting(shared, "past") as (agent,):
        agent.send(nodes.full("past", nodes.capacity(1, time.time() - 60.0, 4.0)))
        assert eventually(lambda: agent.told(1))
        assert shared.node("past").stale  # type: ignore[union-attr]


def test_a_node_that_hangs_up_counts_until_its_validity_is_over(tmp_path: Path) -> None:
    with collecting(tmp_path) as controller:
        with reporting(controller, "gone") as (agent,):
            agent.offer(1, 4.0, valid_s=2.0)
        assert counted(controller, lambda view: not view.nodes[0].connected)
        assert counted(controller, lambda view: view.stale_nodes == 1 and view.available_cores == 0.0)


def test_of_two_agents_with_one_name_the_newer_one_wins_and_it_is_said(shared: Controller) -> None:
    with reporting(shared, "twin", "twin") as (older, newer):
        older.offer(1, 4.0)
        newer.offer(50, 2.0, boot_id="another")
        status, details = older.code()
        assert status is grpc.StatusCode.ABORTED
        assert "'twin'" in details
        said = shared.said("stream.replaced")[-1]
        assert (said["node"], said["level"]) == ("twin", "warning")
        assert said["older"] != said["newer"]
        newer.send(nodes.heartbeat(51, time.time()))
        assert eventually(lambda: newer.told(51))
        assert shared.node("twin").connected  # type: ignore[union-attr]


def garbage(agent: Agent) -> grpc.StatusCode:
    raw = agent.channel.stream_stream("/nodeagent.v1.Collector/Report")
    call = raw(iter([b"\xff\xff\xff\xff"]))
    with pytest.raises(grpc.RpcError):
        next(call)
    return call.code()


def too_large(agent: Agent) -> grpc.StatusCode:
    status = nodes.status("large", nodes.capacity(1, time.time()))
    status.agent_version = "x" * (1 << 20)
    agent.send(pb.ReportRequest(full=status))
    return agent.code()[0]


def impossible(agent: Agent) -> grpc.StatusCode:
    agent.send(nodes.full("impossible", nodes.capacity(1, time.time(), float("nan"))))
    status, details = agent.code()
    assert "capacity.cpu.available_cores" in details
    return status


def renamed(agent: Agent) -> grpc.StatusCode:
    agent.send(nodes.full("one", nodes.capacity(1, time.time())))
    agent.send(nodes.full("two", nodes.capacity(2, time.time())))
    return agent.code()[0]


@pytest.mark.parametrize(
    ("misbehave", "code"),
    [
        (garbage, grpc.StatusCode.INVALID_ARGUMENT),
        (too_large, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (impossible, grpc.StatusCode.INVALID_ARGUMENT),
        (renamed, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_a_stream_that_sends_what_cannot_be_is_ended_alone(shared: Controller, misbehave, code) -> None:  # type: ignore[no-untyped-def]
    with reporting(shared, "well-behaved", "odd") as (good, odd):
        good.offer(1, 4.0)
        assert misbehave(odd) is code
        good.send(nodes.heartbeat(2, time.time()))
        assert eventually(lambda: good.told(2))
        assert all(node.status.agent_version == "0.1.0" for node in shared.view().nodes)


def test_more_agents_than_allowed_are_turned_away_and_the_others_stay(tmp_path: Path) -> None:
    with (
        collecting(tmp_path, "--max-nodes", "2") as controller,
        reporting(controller, "a", "b") as (a, b),
    ):
        a.offer(1, 1.0)
        b.offer(1, 2.0)
        with reporting(controller, "c") as (third,):
            third.send(nodes.full("c", nodes.capacity(1, time.time())))
            status, details = third.code()
        assert (status, details) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "2 agents are reporting already")
        b.send(nodes.heartbeat(2, time.time()))
        assert eventually(lambda: b.told(2))
        assert controller.view().available_cores == 3.0


def test_an_agent_that_sends_without_end_is_read_slowly_and_no_other_one_is(tmp_path: Path) -> None:
    with collecting(tmp_path) as controller, reporting(controller, "flood", "calm") as (flood, calm):
        flood.offer(1, 1.0)
        flood.send(*(nodes.heartbeat(seq, time.time()) for seq in range(2, 5000)))
        for seq in range(1, 20):
            begin = time.monotonic()
            calm.offer(seq, 1.0)
            assert time.monotonic() - begin < 5.0
        assert controller.node("flood").status.capacity.seq < 4999  # type: ignore[union-attr]
        assert 'reports_total{kind="heartbeat"}' in controller.page()


def test_a_stream_that_says_nothing_is_ended_after_a_while(shared: Controller) -> None:
    with reporting(shared, "mute") as (agent,):
        status, details = agent.code()
    assert (status, details) == (grpc.StatusCode.DEADLINE_EXCEEDED, "no full status within 10 s")


def test_when_the_controller_stops_the_agents_are_told_and_its_socket_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "collect.sock"
    with collecting(tmp_path, "--listen", f"unix:{path}") as controller:
        assert path.stat().st_mode & 0o777 == 0o660
        with reporting(controller, "a") as (agent,):
            agent.offer(1, 4.0)
            controller.process.terminate()
            assert agent.code()[0] is grpc.StatusCode.UNAVAILABLE
            assert controller.process.wait(WAIT_S) == 0
            assert not path.exists()


def test_the_daemon_imports_nothing_of_it() -> None:
    program = "import sys, nodeagent.cli, nodeagent.agent; print('nodeagent.collect' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
