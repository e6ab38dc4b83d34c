"""The calls of the gRPC server, for real, on a unix socket and on loopback; some clients do not behave."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from nodeagent.rpc.server import RpcServer
from nodeagent.v1 import nodeagent_pb2 as pb
from tests.unit import samples
from tests.unit.rpc_clients import WAIT_S, client, code, eventually, offering, serving


@pytest.fixture(params=["unix", "tcp"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RpcServer]:
    address = f"unix:{tmp_path}/rpc.sock" if request.param == "unix" else "127.0.0.1:0"
    with serving(address) as running:
        yield running


def test_before_the_first_tick_every_call_says_that_it_is_warming_up(server: RpcServer) -> None:
    with client(server) as stub:
        for call in (
            lambda: stub.GetCapacity(pb.GetCapacityRequest(), timeout=WAIT_S),
            lambda: stub.GetNodeReport(pb.GetNodeReportRequest(), timeout=WAIT_S),
            lambda: next(stub.WatchCapacity(pb.WatchCapacityRequest(), timeout=WAIT_S)),
        ):
            status, details = code(call)
            assert status is grpc.StatusCode.UNAVAILABLE
            assert "warming up" in details


def test_the_capacity_and_the_report_are_those_of_the_published_tick(server: RpcServer) -> None:
    tick = samples.tick(3)
    server.publish(tick)
    with client(server) as stub:
        capacity = stub.GetCapacity(pb.GetCapacityRequest(), timeout=WAIT_S).capacity
        report = stub.GetNodeReport(pb.GetNodeReportRequest(), timeout=WAIT_S).report
    assert capacity.seq == report.seq == 3
    assert capacity.cpu.available_cores == tick.decision.capacity.cpu.available
    assert report.node.hostname == "node-7"
    assert report.node.agent_version == "0.1"
    assert [pod.name for pod in report.pods] == [pod.spec.name for pod in tick.snapshot.pods]


def test_many_clients_cost_one_serialisation_a_tick(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/rpc.sock") as server, client(server) as stub:
        server.publish(samples.tick(1))
        posted = server.service.latest
        calls = [stub.GetCapacity.future(pb.GetCapacityRequest(), timeout=WAIT_S) for _ in range(20)]
        calls += [stub.GetNodeReport.future(pb.GetNodeReportRequest(), timeout=WAIT_S) for _ in range(10)]
        first = next(stub.WatchCapacity(pb.WatchCapacityRequest(), timeout=WAIT_S))
        assert first.capacity.seq == 1
        assert all(call.result() for call in calls)
        assert posted is not None
        assert posted.serialised == 2  # one capacity, one report


def test_a_watch_begins_with_a_snapshot_then_tells_changes_only(server: RpcServer) -> None:
    server.publish(offering(1, 3.0))
    with client(server) as stub:
        watch = stub.WatchCapacity(pb.WatchCapacityRequest(), timeout=WAIT_S)
        assert next(watch).reason == pb.UPDATE_REASON_SNAPSHOT
        server.publish(offering(2, 3.001))  # noise
        begin = time.monotonic()
        server.publish(offering(3, 1.0))
        change = next(watch)
        assert time.monotonic() - begin < 2.0  # told by the tick, not found by the heartbeat after 5 s
        assert (change.reason, change.capacity.seq) == (pb.UPDATE_REASON_CHANGE, 3)
        assert change.capacity.cpu.available_cores == 1.0
        watch.cancel()
    assert eventually(lambda: server.service.watchers == 0)


def test_a_tick_wakes_the_server_only_for_those_who_watch(server: RpcServer) -> None:
    board = server.service.board
    before = board.news
    server.publish(offering(1, 3.0))
    assert eventually(lambda: board.news is not before)  # it turns healthy
    with client(server) as stub:
        stub.GetCapacity(pb.GetCapacityRequest(), timeout=WAIT_S)  # its thread is done with that
        asleep = board.news
        server.publish(offering(2, 3.0))
        assert stub.GetCapacity(pb.GetCapacityRequest(), timeout=WAIT_S).capacity.seq == 2
        assert board.news is asleep
        watch = stub.WatchCapacity(pb.WatchCapacityRequest(), timeout=WAIT_S)
        assert next(watch).capacity.seq == 2
        server.publish(offering(3, 1.0))
        assert next(watch).capacity.seq == 3
        watch.cancel()


def test_a_watch_without_changes_beats(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/rpc.sock", heartbeat_s=0.1) as server, client(server) as stub:
        server.publish(offering(1, 3.0))
        watch = stub.WatchCapacity(pb.WatchCapacityRequest(), timeout=WAIT_S)
        reasons = [next(watch).reason for _ in range(3)]
        assert reasons == [pb.UPDATE_REASON_SNAPSHOT, pb.UPDATE_REASON_HEARTBEAT, pb.UPDATE_REASON_HEARTBEAT]


def test_the_heart_beats_before_the_client_s_capacity_expires(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/rpc.sock", heartbeat_s=60.0) as server, client(server) as stub:
        server.publish(offering(1, 3.0, valid_s=0.6))
        watch = stub.WatchCapacity(pb.WatchCapacityRequest(), timeout=WAIT_S)
        assert next(watch).reason == pb.UPDATE_REASON_SNAPSHOT
        beat = next(watch)
        assert (beat.reason, beat.capacity.withdrawn) == (pb.UPDATE_REASON_HEARTBEAT, "")


def test_a_loop_that_halts_withdraws_the_offer(server: RpcServer) -> None:
    server.publish(offering(1, 3.0, valid_s=0.5))
    with client(server) as stub:
        watch = stub.WatchCapacity(pb.WatchCapacityRequest(), timeout=WAIT_S)
        last = next(watch)
        assert last.capacity.cpu.available_cores == 3.0
        while last.reason != pb.UPDATE_REASON_CHANGE:
            last = next(watch)
        assert (last.capacity.cpu.available_cores, last.capacity.memory.available_bytes) == (0.0, 0)
        assert "stale" in last.capacity.withdrawn
        asked = stub.GetCapacity(pb.GetCapacityRequest(), timeout=WAIT_S).capacity
        assert asked == last.capacity
        server.publish(offering(2, 3.0))
        assert next(watch).capacity.cpu.available_cores == 3.0


def test_a_client_that_does_not_read_delays_nobody_and_gets_the_latest(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/rpc.sock") as server, client(server) as slow, client(server) as quick:
        last_seq, worst_s = 300, 0.0
        server.publish(offering(1, 1.0))
        lazy = slow.WatchCapacity(pb.WatchCapacityRequest(), timeout=60.0)
        next(lazy)  # from here on it does not read
        for seq in range(2, last_seq + 1):
            tick = offering(seq, float(seq) ** 2, source="x" * 100_000)  # 30 MB in all, if it were queued
            start = time.perf_counter()
            server.publish(tick)
            worst_s = max(worst_s, time.perf_counter() - start)
            assert quick.GetCapacity(pb.GetCapacityRequest(), timeout=WAIT_S).capacity.seq == seq
        received = [next(lazy).capacity.seq]
        while received[-1] != last_seq:
            received.append(next(lazy).capacity.seq)
    assert received == sorted(set(received))
    assert len(received) < last_seq / 3
    assert worst_s < 0.25


def test_a_deadline_ends_the_stream_on_both_sides(server: RpcServer) -> None:
    server.publish(samples.tick(1))
    with client(server) as stub:
        watch = stub.WatchCapacity(pb.WatchCapacityRequest(), timeout=0.3)
        assert next(watch).capacity.seq == 1
        assert server.service.watchers == 1
        assert code(lambda: next(watch))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        assert eventually(lambda: server.service.watchers == 0)


def test_a_client_that_vanishes_leaves_no_watcher(server: RpcServer) -> None:
    server.publish(samples.tick(1))
    program = (
        "import sys, grpc; from nodeagent.v1 import nodeagent_pb2 as pb\n"
        "from nodeagent.v1.nodeagent_pb2_grpc import NodeAgentStub\n"
        "watch = NodeAgentStub(grpc.insecure_channel(sys.argv[1])).WatchCapacity(pb.WatchCapacityRequest())\n"
        "next(watch); print('watching', flush=True); next(watch)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, server.address], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "watching\n"
        assert server.service.watchers == 1
        process.kill()
    assert eventually(lambda: server.service.watchers == 0)


def test_watchers_beyond_the_limit_are_refused_and_the_others_go_on(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/rpc.sock", max_watchers=2) as server, client(server) as stub:
        server.publish(offering(1, 1.0))
        watches = [stub.WatchCapacity(pb.WatchCapacityRequest(), timeout=WAIT_S) for _ in range(2)]
        assert all(next(watch).capacity.seq == 1 for watch in watches)
        refused = stub.WatchCapacity(pb.WatchCapacityRequest(), timeout=WAIT_S)
        assert code(lambda: next(refused))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        server.publish(offering(2, 2.0))
        assert all(next(watch).capacity.seq == 2 for watch in watches)


def test_connections_are_bounded_and_come_back(tmp_path: Path) -> None:
    path = str(tmp_path / "rpc.sock")
    with serving(f"unix:{path}", max_watchers=1) as server:
        server.publish(samples.tick(1))
        silent = [socket.socket(socket.AF_UNIX) for _ in range(100)]
        for each in silent:
            each.settimeout(WAIT_S)
            each.connect(path)
        refused = sum(not received(each) for each in silent)
        assert 0 < refused < 100
        for each in silent:
            each.close()
        with client(server) as stub:
            request = pb.GetCapacityRequest()
            assert stub.GetCapacity(request, timeout=WAIT_S, wait_for_ready=True).capacity.seq == 1


def test_a_report_above_the_limit_is_refused_with_a_hint(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/rpc.sock", max_message_bytes=4096) as server, client(server) as stub:
        server.publish(samples.tick(1, pods=100))
        status, details = code(lambda: stub.GetNodeReport(pb.GetNodeReportRequest(), timeout=WAIT_S))
        assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "raise the agent's message limit" in details
        assert stub.GetCapacity(pb.GetCapacityRequest(), timeout=WAIT_S).capacity.seq == 1


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
        (b"\x0a" + b"\x80\x80\x08" + b"x" * (128 << 10), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
    ids=["garbage", "huge"],
)
def test_a_bad_request_is_refused(
    server: RpcServer, request_bytes: bytes, status: grpc.StatusCode, caplog: pytest.LogCaptureFixture
) -> None:
    server.publish(samples.tick(1))
    with closing(grpc.insecure_channel(server.address)) as channel:
        call = channel.unary_unary("/nodeagent.v1.NodeAgent/GetCapacity")
        assert code(lambda: call(request_bytes, timeout=WAIT_S))[0] is status
    assert not caplog.records  # a client cannot fill the agent's log


def test_health_follows_the_first_tick_and_the_end(server: RpcServer) -> None:
    status = health_pb2.HealthCheckResponse
    with closing(grpc.insecure_channel(server.address)) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        asked = [health_pb2.HealthCheckRequest(service=name) for name in ("", "nodeagent.v1.NodeAgent")]
        watches = [stub.Watch(each, timeout=WAIT_S) for each in asked]
        assert [stub.Check(each, timeout=WAIT_S).status for each in asked] == [status.NOT_SERVING] * 2
        assert [next(watch).status for watch in watches] == [status.NOT_SERVING] * 2
        server.publish(samples.tick(1))
        assert [next(watch).status for watch in watches] == [status.SERVING] * 2
        stopping = threading.Thread(target=server.stop, args=(WAIT_S,))
        stopping.start()
        assert [next(watch).status for watch in watches] == [status.NOT_SERVING] * 2
        for watch in watches:
            watch.cancel()  # or it would wait for them
        stopping.join(WAIT_S / 2)
        assert not stopping.is_alive()


def test_reflection_lists_the_services(server: RpcServer) -> None:
    with closing(grpc.insecure_channel(server.address)) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        reply = next(iter(stub.ServerReflectionInfo(iter([request]), timeout=WAIT_S)))
    listed = {service.name for service in reply.list_services_response.service}
    assert listed == {
        "nodeagent.v1.NodeAgent",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_every_method_of_the_protocol_is_served(server: RpcServer) -> None:
    server.publish(samples.tick(1))
    subject = pb.ExplainRequest(capacity=pb.CapacitySubject()).SerializeToString()
    for method in pb.DESCRIPTOR.services_by_name["NodeAgent"].methods:
        if method.name in {"ApplyDirective", "ListDirectives"}:
            continue  # these are where directives are taken: tests/unit/test_rpc_directives.py
        with closing(grpc.insecure_channel(server.address)) as channel:
            call = channel.unary_stream(f"/{method.containing_service.full_name}/{method.name}")
            assert next(call(subject if method.name == "Explain" else b"", timeout=WAIT_S))


def test_a_foreign_client_can_call_by_reflection(tmp_path: Path) -> None:
    buf = shutil.which("buf", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if buf is None:
        pytest.skip("buf is not installed (package buf-bin)")
    with serving(f"unix:{tmp_path}/rpc.sock") as server:
        server.publish(offering(5, 2.5))
        url = "http://localhost/nodeagent.v1.NodeAgent/GetCapacity"
        command = [buf, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--unix-socket"]
        answer = subprocess.run(
            [*command, str(tmp_path / "rpc.sock"), url],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert answer.returncode == 0, answer.stderr
    assert '"availableCores": 2.5' in answer.stdout


def received(connection: socket.socket) -> bytes:
    """The first bytes of the server's greeting, empty when it hung up."""
    try:
        return connection.recv(9)
    except ConnectionError:
        return b""
