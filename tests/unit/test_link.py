"""The link to a controller, for real, on a unix socket and on loopback."""

from __future__ import annotations

import time
from pathlib import Path

import grpc
import pytest
import structlog

from nodeagent.rpc.backoff import Backoff
from nodeagent.rpc.orders import refused
from nodeagent.v1 import collector_pb2 as pb
from nodeagent.v1 import directive_pb2
from tests.unit import samples
from tests.unit.collectors import SMALL_WINDOW, Collector, collecting, linked
from tests.unit.rpc_clients import eventually, offering


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_first_all_then_what_changed_then_that_it_still_holds(kind: str, tmp_path: Path) -> None:
    at = f"unix:{tmp_path}/c.sock" if kind == "unix" else "127.0.0.1:0"
    with collecting(at) as (collector, address), linked(address) as link:
        link.publish(offering(1, 3.0))
        assert eventually(lambda: bool(collector.streams) and collector.streams[0].kinds() == ["full"])
        heard = collector.streams[0]
        full = heard.requests[0].full
        assert (full.node_name, full.agent_version, full.mode) == (
            "node-7",
            "0.1",
            directive_pb2.MODE_OBSERVE,
        )
        assert full.capacity.cpu.terms
        link.publish(offering(2, 1.0))
        assert eventually(lambda: heard.kinds()[1:2] == ["delta"])
        assert heard.cores() == 1.0
        assert heard.requests[1].delta.capacity.cpu.terms
        link.publish(offering(3, 1.001))  # noise
        assert eventually(lambda: heard.kinds()[2:3] == ["heartbeat"])
        assert heard.requests[2].heartbeat.seq == 3
        assert link.seen().sent == {"full": 1, "delta": 1, "heartbeat": 1, "directive_result": 0}


def test_before_the_first_tick_nothing_is_told(tmp_path: Path) -> None:
    with collecting(f"unix:{tmp_path}/c.sock") as (collector, address), linked(address) as link:
        assert eventually(lambda: bool(collector.streams))
        assert link.seen().connects == 0
        assert collector.streams[0].requests == []
        link.publish(offering(1, 3.0))
        assert eventually(lambda: bool(collector.streams) and collector.streams[0].kinds() == ["full"])


def test_the_heart_beats_twice_within_the_validity(tmp_path: Path) -> None:
    at = f"unix:{tmp_path}/c.sock"
    with collecting(at) as (collector, address), linked(address, heartbeat_s=60.0) as link:
        link.publish(offering(1, 3.0, valid_s=1.0))
        begin = time.monotonic()
        assert eventually(lambda: bool(collector.streams) and "heartbeat" in collector.streams[0].kinds())
        assert time.monotonic() - begin < 1.0


def test_a_loop_that_halts_withdraws_the_offer(tmp_path: Path) -> None:
    with collecting(f"unix:{tmp_path}/c.sock") as (collector, address), linked(address) as link:
        link.publish(offering(1, 3.0, valid_s=0.5))
        assert eventually(lambda: bool(collector.streams) and collector.streams[0].cores() == 3.0)
        assert eventually(lambda: collector.streams[0].cores() == 0.0)
        status = collector.streams[0].status
        assert status is not None and "stale" in status.capacity.withdrawn
        link.publish(offering(2, 3.0))
        assert eventually(lambda: collector.streams[0].cores() == 3.0)


def test_an_agent_that_stops_withdraws_the_offer(tmp_path: Path) -> None:
    with collecting(f"unix:{tmp_path}/c.sock") as (collector, address):
        with linked(address) as link:
            link.publish(offering(1, 3.0))
            assert eventually(lambda: bool(collector.streams) and collector.streams[0].cores() == 3.0)
        heard = collector.streams[0]
        assert heard.ended.wait(5.0)
        assert heard.cores() == 0.0
        assert heard.status is not None and heard.status.capacity.withdrawn == "nodeagent is stopping"


def test_a_resync_is_answered_by_all(tmp_path: Path) -> None:
    with collecting(f"unix:{tmp_path}/c.sock") as (collector, address), linked(address) as link:
        link.publish(offering(1, 3.0))
        assert eventually(lambda: bool(collector.streams) and bool(collector.streams[0].requests))
        heard = collector.streams[0]
        heard.down.put(pb.ReportResponse(resync=pb.Resync()))
        assert eventually(lambda: heard.kinds().count("full") == 2)
        assert len(collector.streams) == 1


def test_a_controller_that_comes_back_hears_all_again(tmp_path: Path) -> None:
    at = f"unix:{tmp_path}/c.sock"
    with structlog.testing.capture_logs() as logs, linked(at) as link:
        link.publish(offering(1, 3.0))
        assert eventually(lambda: link.seen().losses >= 3)  # nobody is there yet
        for cores in (2.0, 1.0):
            link.publish(offering(2, cores))
            with collecting(at) as (collector, _):
                assert eventually(lambda here=collector: here.streams and here.streams[0].requests)  # type: ignore[misc]
                assert collector.streams[0].requests[0].full.capacity.cpu.available_cores == cores
                assert eventually(lambda: link.seen().connected)
            assert eventually(lambda: not link.seen().connected)
    told = [log["event"] for log in logs if log["log_level"] != "debug"]
    changes = [event for event in told if event != "link.failed"]
    assert changes == ["link.connected", "link.lost", "link.connected", "link.lost"]
    assert told[0] == "link.failed"
    assert told.count("link.failed") <= 3  # however often it was tried: once for each reason
    assert all(log["why"] and log["next_try_s"] <= 0.2 for log in logs if log["event"] == "link.lost")


def test_the_bound_of_the_pause_doubles_up_to_the_longest() -> None:
    backoff = Backoff(1.0, 60.0)
    assert [backoff.bound_s(0.0) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert [backoff.bound_s(59.0) for _ in range(1000)] == [60] * 1000  # takes connections, and drops them
    assert [backoff.bound_s(lived_s) for lived_s in (61.0, 0.0, 5.0)] == [1, 2, 4]


def test_pauses_are_spread_over_all_of_the_bound() -> None:
    pauses_s = [Backoff(1.0, 60.0).pause_s(0.0) for _ in range(1000)]
    assert 0.0 <= min(pauses_s) < 0.05
    assert 0.95 < max(pauses_s) <= 1.0
    assert 0.4 < sum(pauses_s) / 1000 < 0.6


def test_a_controller_that_refuses_is_never_called_connected_and_tried_ever_more_rarely(
    tmp_path: Path,
) -> None:
    at, refusing = f"unix:{tmp_path}/c.sock", Collector(grpc.StatusCode.PERMISSION_DENIED)
    with structlog.testing.capture_logs() as logs, collecting(at, refusing), linked(at) as link:
        link.publish(offering(1, 3.0))
        assert eventually(lambda: link.seen().losses >= 5)
        assert not link.seen().connected
        assert link.seen().connects == 0
    lost = [log for log in logs if log["event"] == "link.failed"]
    assert any("PERMISSION_DENIED: not you" in log["why"] for log in lost)
    assert sum(log["log_level"] == "warning" for log in lost) <= 3  # each time that the reason is another one


def test_of_what_a_stalled_controller_missed_it_gets_the_latest(tmp_path: Path) -> None:
    collector = Collector()
    collector.open.clear()
    at = f"unix:{tmp_path}/c.sock"
    with collecting(at, collector, **SMALL_WINDOW), linked(at) as link:
        worst_s, last = 0.0, 400
        for seq in range(1, last + 1):
            tick = offering(seq, float(seq), source="x" * 500_000)  # a full does not fit a stream's window
            begin = time.perf_counter()
            link.publish(tick)
            worst_s = max(worst_s, time.perf_counter() - begin)
            time.sleep(0.005)
        assert link.seen().sent["full"] == 0  # still on its way
        collector.open.set()
        heard = collector.streams[0]
        assert eventually(lambda: heard.cores() == float(last))
        assert heard.kinds()[:2] == ["full", "delta"]
        assert heard.requests[1].delta.capacity.seq == last
        assert worst_s < 0.1


def test_a_directive_is_refused_unless_the_configuration_takes_them(tmp_path: Path) -> None:
    called = []

    async def take(directive: directive_pb2.Directive, issuer: str) -> pb.DirectiveResult:
        called.append(issuer)
        return refused(directive, grpc.StatusCode.OK, "")

    directive = directive_pb2.Directive(id="a", set_mode=directive_pb2.SetMode())
    with collecting(f"unix:{tmp_path}/c.sock") as (collector, address):
        for allowed, code in ((False, grpc.StatusCode.PERMISSION_DENIED), (True, grpc.StatusCode.OK)):
            with linked(address, take=take, directives=allowed) as link:
                link.publish(offering(1, 3.0))
                assert eventually(lambda: bool(collector.streams) and bool(collector.streams[-1].requests))
                heard = collector.streams[-1]
                heard.down.put(pb.ReportResponse(directive=directive))
                assert eventually(lambda here=heard: "directive_result" in here.kinds())  # type: ignore[misc]
                result = heard.requests[heard.kinds().index("directive_result")].directive_result
                assert (result.id, result.code) == ("a", code.value[0])
                assert link.seen().directives == {"taken": int(allowed), "refused": int(not allowed)}
            assert eventually(heard.ended.is_set)
            collector.streams.clear()
    assert called == [f"controller:{address}"]


def test_a_bug_in_taking_a_directive_is_answered_and_ends_nothing(tmp_path: Path) -> None:
    async def take(_directive: directive_pb2.Directive, _issuer: str) -> pb.DirectiveResult:
        raise ZeroDivisionError

    at = f"unix:{tmp_path}/c.sock"
    with collecting(at) as (collector, _), linked(at, take=take, directives=True) as link:
        link.publish(offering(1, 3.0))
        assert eventually(lambda: bool(collector.streams) and bool(collector.streams[0].requests))
        heard = collector.streams[0]
        heard.down.put(pb.ReportResponse(directive=directive_pb2.Directive(id="x" * 1000)))
        assert eventually(lambda: "directive_result" in heard.kinds())
        result = next(r.directive_result for r in heard.requests if r.HasField("directive_result"))
        assert (len(result.id), result.code) == (128, grpc.StatusCode.INTERNAL.value[0])
        assert len(collector.streams) == 1


def test_a_flood_of_directives_is_answered_one_by_one_and_reports_go_on(tmp_path: Path) -> None:
    with collecting(f"unix:{tmp_path}/c.sock") as (collector, address), linked(address) as link:
        link.publish(offering(1, 3.0))
        assert eventually(lambda: bool(collector.streams) and bool(collector.streams[0].requests))
        heard = collector.streams[0]
        for number in range(100):
            heard.down.put(pb.ReportResponse(directive=directive_pb2.Directive(id=str(number))))
        link.publish(offering(2, 1.0))
        assert eventually(lambda: heard.cores() == 1.0)
        assert eventually(lambda: heard.kinds().count("directive_result") == 100)
        answered = [r.directive_result.id for r in heard.requests if r.HasField("directive_result")]
        assert answered == [str(number) for number in range(100)]


def test_the_counts_and_the_node_are_those_of_the_tick(tmp_path: Path) -> None:
    tick = samples.tick(3, pods=5)
    with collecting(f"unix:{tmp_path}/c.sock") as (collector, address), linked(address) as link:
        link.publish(tick)
        assert eventually(lambda: bool(collector.streams) and bool(collector.streams[0].requests))
        full = collector.streams[0].requests[0].full
        assert full.pods.ls + full.pods.mid + full.pods.batch == 5
        assert full.total_cores == len(tick.snapshot.topology.cpus)
        assert tick.snapshot.node.memory is not None
        assert full.total_bytes == tick.snapshot.node.memory.total_bytes
