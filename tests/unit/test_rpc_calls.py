"""ListPods, Explain and WatchEvents of the real server: pages, near names, slow and late readers."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from msgspec.structs import replace

from nodeagent.core.decide import decide
from nodeagent.model.decision import Memory, Signal, Tick
from nodeagent.model.event import Event
from nodeagent.model.policy import Policy
from nodeagent.rpc.server import RpcServer
from nodeagent.v1 import event_pb2
from nodeagent.v1 import nodeagent_pb2 as pb
from tests.unit import samples
from tests.unit.rpc_clients import WAIT_S, client, code, eventually, serving
from tests.unit.world import Load, World

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RpcServer]:
    with serving(f"unix:{tmp_path}/rpc.sock", heartbeat_s=60.0) as running:
        yield running


def pages(stub: Any, **request: Any) -> Iterator[pb.ListPodsResponse]:
    token = ""
    while True:
        page = stub.ListPods(pb.ListPodsRequest(page_token=token, **request), timeout=WAIT_S)
        yield page
        token = page.next_page_token
        if not token:
            return


def post(server: RpcServer, tick: Tick, *events: Event) -> None:
    server.publish(tick, Policy(), Memory(), events)


def happened(number: int, level: str = "info", name: str = "pod.appeared") -> Event:
    return Event(level, name, {"pod": f"p{number}", "count": number, "sure": True})


def has(server: RpcServer, last: int) -> bool:
    return server.service.board.events.last == last


def test_pods_come_by_name_in_pages_each_once(server: RpcServer) -> None:
    server.publish(samples.tick(1, pods=23))
    with client(server) as stub:
        all_pages = list(pages(stub, page_size=5))
        names = [status.pod.name for page in all_pages for status in page.pods]
        one = stub.ListPods(pb.ListPodsRequest(), timeout=WAIT_S)
    assert [len(page.pods) for page in all_pages] == [5, 5, 5, 5, 3]
    assert names == sorted(names) and len(set(names)) == 23
    assert [status.pod.name for status in one.pods] == names
    assert (one.seq, one.next_page_token) == (1, "")


def test_pods_are_filtered_by_class(server: RpcServer) -> None:
    server.publish(samples.tick(1, pods=16))
    with client(server) as stub:
        found = [s for page in pages(stub, qos=[pb.QOS_BATCH, pb.QOS_MID], page_size=3) for s in page.pods]
    assert {status.pod.qos for status in found} == {pb.QOS_BATCH, pb.QOS_MID}
    assert len(found) == 8


def test_a_pod_is_told_with_its_use_its_settings_and_its_signals(server: RpcServer) -> None:
    seen = samples.snapshot(2, pods=4)
    tick = samples.tick(2, pods=4)
    hurt = Signal("ls-cpu-pressure", seen.pods[0].spec.uid, 0.5, seen.at - 2.0, "waits")
    tick = replace(tick, decision=replace(tick.decision, signals=(hurt,)))
    server.publish(tick, Policy(), Memory(previous=samples.snapshot(1, pods=4)))
    with client(server) as stub:
        found = {s.pod.name: s for s in stub.ListPods(pb.ListPodsRequest(), timeout=WAIT_S).pods}
        server.publish(samples.tick(1))
        first = stub.ListPods(pb.ListPodsRequest(), timeout=WAIT_S).pods[0]
    assert 0.0 < found["pod0"].cpu_cores < 0.7
    assert found["pod0"].HasField("cpu_stall_ratio") and found["pod0"].memory_bytes > 0
    assert [(s.name, s.duration_s) for s in found["pod0"].signals] == [("ls-cpu-pressure", 2.0)]
    assert found["pod3"].settings[0].knob.target == "nodeagent/batch/pod3"
    assert not found["pod1"].signals and not found["pod0"].settings
    assert not first.HasField("cpu_cores")  # in the first tick there is no rate


def test_a_page_stays_within_the_message_limit(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/rpc.sock", max_message_bytes=4096) as server, client(server) as stub:
        server.publish(samples.tick(1, pods=60))
        all_pages = list(pages(stub))
    assert len(all_pages) > 1
    assert all(page.ByteSize() <= 4096 for page in all_pages)
    assert len({s.pod.uid for page in all_pages for s in page.pods}) == 60


def test_a_pod_that_alone_is_above_the_limit_is_told(tmp_path: Path) -> None:
    pod = samples.pod(0, 1000.0, containers=60)
    with serving(f"unix:{tmp_path}/rpc.sock", max_message_bytes=4096) as server, client(server) as stub:
        server.publish(samples.tick(1, pods=(pod,)))
        status, details = code(lambda: stub.ListPods(pb.ListPodsRequest(), timeout=WAIT_S))
    assert status is grpc.StatusCode.RESOURCE_EXHAUSTED and "pod0 alone" in details


def test_a_token_goes_on_when_pods_come_and_go_meanwhile(server: RpcServer) -> None:
    server.publish(samples.tick(1, pods=8))
    with client(server) as stub:
        first = stub.ListPods(pb.ListPodsRequest(page_size=4), timeout=WAIT_S)
        gone = tuple(p for p in samples.mixed_pods(12, 1002.0) if p.spec.name not in {"pod3", "pod4"})
        server.publish(samples.tick(2, pods=gone))
        rest = stub.ListPods(pb.ListPodsRequest(page_token=first.next_page_token), timeout=WAIT_S)
    assert [s.pod.name for s in first.pods] == ["pod0", "pod1", "pod2", "pod3"]
    assert [s.pod.name for s in rest.pods] == ["pod5", "pod6", "pod7", "pod8", "pod9"]


def packed(*parts: object) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(parts)).decode()


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (pb.ListPodsRequest(qos=[pb.QOS_UNSPECIFIED]), "qos: 0"),
        (pb.ListPodsRequest(qos=[77]), "qos: 77"),  # type: ignore[list-item]
        (pb.ListPodsRequest(page_token="?"), "page_token: "),
        (pb.ListPodsRequest(page_token="AAAA"), "page_token: "),
        (pb.ListPodsRequest(page_token=packed([], "name")), "page_token: "),
        (pb.ListPodsRequest(page_token=packed([], 1, 2)), "page_token: "),
        (pb.ListPodsRequest(page_token=packed([3], "a", "b")), "page_token: is of another filter"),
        (pb.ListPodsRequest(page_token="x" * 20_000), "page_token: "),
        (pb.ExplainRequest(), "subject: "),
        (pb.ExplainRequest(pod=""), "pod: "),
        (pb.WatchEventsRequest(topics=[event_pb2.EVENT_TOPIC_UNSPECIFIED]), "topics: 0"),
        (pb.WatchEventsRequest(topics=[99]), "topics: 99"),  # type: ignore[list-item]
        (pb.WatchEventsRequest(least_level=99), "least_level: 99"),  # type: ignore[arg-type]
        (pb.WatchEventsRequest(run_id="x" * 65), "run_id: "),
    ],
)
def test_what_is_wrong_with_a_request_is_told_by_its_field(
    server: RpcServer, request_: Any, told: str
) -> None:
    server.publish(samples.tick(1))
    with client(server) as stub:
        kind = type(request_).__name__.removesuffix("Request")
        call = getattr(stub, kind)(request_, timeout=WAIT_S) if kind == "WatchEvents" else None
        ask = (
            (lambda: next(call))
            if call is not None
            else (lambda: getattr(stub, kind)(request_, timeout=WAIT_S))
        )
        status, details = code(ask)
    assert status is INVALID
    assert details.startswith(told), details


def test_a_garbled_request_of_each_call_is_refused(server: RpcServer) -> None:
    server.publish(samples.tick(1))
    for name in ("ListPods", "Explain", "WatchEvents"):
        with grpc.insecure_channel(server.address) as channel:
            call = channel.unary_stream(f"/nodeagent.v1.NodeAgent/{name}")
            assert code(partial(next, call(b"\xff\xff\xff", timeout=WAIT_S)))[0] is INVALID


def explained(server: RpcServer) -> World:
    """The third tick of a world with one LS and two Batch pods."""
    world = World()
    world.run(Load(), Load())
    seen, before = world.snapshot(Load()), world.memory
    decision, world.memory = decide(seen, world.policy, before)
    server.publish(Tick(seen, decision), world.policy, before)
    return world


def test_the_capacity_and_a_pod_are_explained_from_the_latest_tick(server: RpcServer) -> None:
    explained(server)
    with client(server) as stub:
        asked = pb.ExplainRequest(capacity=pb.CapacitySubject())
        capacity = stub.Explain(asked, timeout=WAIT_S).explanation
        offer = stub.GetCapacity(pb.GetCapacityRequest(), timeout=WAIT_S).capacity
        by_name = stub.Explain(pb.ExplainRequest(pod="pod1"), timeout=WAIT_S).explanation
        by_uid = stub.Explain(pb.ExplainRequest(pod="nodeagent/batch/pod1"), timeout=WAIT_S).explanation
    reasons = {each.name: each for each in capacity.reasons}
    assert capacity.seq == offer.seq
    told = float(reasons["cpu.available"].result.split()[0])
    assert told == pytest.approx(offer.cpu.available_cores, abs=0.001)
    assert {i.name for i in reasons["cpu.computed"].inputs} == {term.name for term in offer.cpu.terms}
    assert by_name == by_uid
    assert "cpu.quota nodeagent/batch/pod1" in {each.name for each in by_name.reasons}


def test_an_unknown_pod_is_answered_with_near_names(server: RpcServer) -> None:
    explained(server)
    with client(server) as stub:
        status, details = code(lambda: stub.Explain(pb.ExplainRequest(pod="pdo1"), timeout=WAIT_S))
        assert status is grpc.StatusCode.NOT_FOUND
        assert "there is no pod 'pdo1'; did you mean pod1" in details
        far = code(lambda: stub.Explain(pb.ExplainRequest(pod="zzz"), timeout=WAIT_S))[1]
    assert "there are pod0, pod1, pod2" in far


def test_two_pods_of_one_name_are_told_by_their_uids(server: RpcServer) -> None:
    two = [samples.pod(n, 1000.0) for n in (1, 2)]
    pods = tuple(replace(p, spec=replace(p.spec, name="twin")) for p in two)
    server.publish(samples.tick(1, pods=pods))
    with client(server) as stub:
        status, details = code(lambda: stub.Explain(pb.ExplainRequest(pod="twin"), timeout=WAIT_S))
    assert status is grpc.StatusCode.FAILED_PRECONDITION
    assert "give a uid: nodeagent/ls/pod1, nodeagent/ls/pod2" in details


def test_a_capacity_that_has_run_out_is_explained_as_stale(server: RpcServer) -> None:
    tick = samples.tick(1)
    capacity = replace(tick.decision.capacity, valid_until_unix=tick.decision.capacity.observed_unix)
    server.publish(replace(tick, decision=replace(tick.decision, capacity=capacity)))
    with client(server) as stub:
        asked = pb.ExplainRequest(capacity=pb.CapacitySubject())
        first = stub.Explain(asked, timeout=WAIT_S).explanation.reasons[0]
    assert (first.name, first.rule) == ("stale", "0 after valid_until")


def test_events_come_as_they_happen_with_their_number_topic_and_keys(server: RpcServer) -> None:
    post(server, samples.tick(1), happened(0))
    with client(server) as stub:
        watch = stub.WatchEvents(pb.WatchEventsRequest(), timeout=WAIT_S)
        hello = next(watch)
        assert (list(hello.events), hello.missed, hello.caught_up) == ([], 0, True)  # only those to come
        assert hello.run_id
        post(server, samples.tick(2), happened(1), happened(2, "warning", "knob.drift"))
        told = next(watch)
        watch.cancel()
    first, second = told.events
    assert (first.number, first.seq, first.name) == (2, 2, "pod.appeared")
    assert dict(first.keys) == {"pod": "p1", "count": "1", "sure": "true"}
    assert (second.topic, second.level) == (event_pb2.EVENT_TOPIC_DRIFT, event_pb2.EVENT_LEVEL_WARNING)
    assert told.run_id == hello.run_id
    assert eventually(lambda: server.service.watchers == 0)


def test_a_reader_takes_up_where_it_was(server: RpcServer) -> None:
    post(server, samples.tick(1), *map(happened, range(10)))
    with client(server) as stub:

        def read(**request: Any) -> pb.WatchEventsResponse:
            watch = stub.WatchEvents(pb.WatchEventsRequest(**request), timeout=WAIT_S)
            answer: pb.WatchEventsResponse = next(watch)
            watch.cancel()
            return answer

        run_id = read().run_id
        assert [e.number for e in read(after_number=7, run_id=run_id).events] == [8, 9, 10]
        assert [e.number for e in read(after_number=10, run_id=run_id).events] == []
        assert len(read(after_number=7, run_id="another").events) == 10
        assert len(read(run_id=run_id).events) == 10
        status, details = code(lambda: read(after_number=11, run_id=run_id))
    assert status is INVALID and details.startswith("after_number: 11")


def test_only_the_topics_and_levels_that_are_asked_for_come(server: RpcServer) -> None:
    post(
        server,
        samples.tick(1),
        happened(1),
        happened(2, "debug", "knob.written"),
        happened(3, "warning", "knob.drift"),
        happened(4, "info", "ls-cpu-pressure.began"),
    )
    level, topic = event_pb2.EventLevel, event_pb2.EventTopic
    with client(server) as stub:

        def numbers(**request: Any) -> list[int]:
            asked = pb.WatchEventsRequest(run_id="-", **request)
            watch = stub.WatchEvents(asked, timeout=WAIT_S)
            found = [event.number for event in next(watch).events]
            watch.cancel()
            return found

        assert numbers() == [1, 3, 4]
        assert numbers(least_level=level.EVENT_LEVEL_DEBUG) == [1, 2, 3, 4]
        assert numbers(least_level=level.EVENT_LEVEL_WARNING) == [3]
        assert numbers(topics=[topic.EVENT_TOPIC_SIGNAL, topic.EVENT_TOPIC_POD]) == [1, 4]


def test_who_is_too_slow_misses_the_oldest_and_is_told_how_many(server: RpcServer) -> None:
    post(server, samples.tick(1))
    long = "x" * 400
    tick = samples.tick(1)
    with client(server, ("grpc.http2.bdp_probe", 0)) as stub:  # or its window would grow with what comes
        watch = stub.WatchEvents(pb.WatchEventsRequest(), timeout=60.0)
        next(watch)  # from here on it does not read
        for number in range(1, 4001):
            post(server, tick, Event("info", "pod.appeared", {"pod": long}))
            if number % 50 == 0:
                assert eventually(partial(has, server, number))
        read, missed, last = 0, 0, 0
        while last < 4000:
            message = next(watch)
            missed += message.missed
            for event in message.events:
                assert event.number > last
                read, last = read + 1, event.number
    assert missed > 0
    assert read + missed == 4000


def test_debug_events_drive_no_others_out(server: RpcServer) -> None:
    post(server, samples.tick(1), happened(1))
    for number in range(40):
        post(server, samples.tick(number), *[happened(2, "debug", "knob.written")] * 50)
        assert eventually(partial(has, server, 1 + 50 * (number + 1)))
    with client(server) as stub:
        watch = stub.WatchEvents(pb.WatchEventsRequest(run_id="-"), timeout=WAIT_S)
        first = next(watch)
        watch.cancel()
    assert ([event.number for event in first.events], first.missed) == ([1], 0)


def test_a_watch_without_events_beats_and_ends_with_the_agent(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/rpc.sock", heartbeat_s=0.1) as server, client(server) as stub:
        post(server, samples.tick(1))
        watch = stub.WatchEvents(pb.WatchEventsRequest(), timeout=WAIT_S)
        assert [len(next(watch).events) for _ in range(3)] == [0, 0, 0]
        server.stop()
        assert code(lambda: [None for _ in watch])[0] is grpc.StatusCode.UNAVAILABLE


def test_watchers_of_both_kinds_share_the_limit(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/rpc.sock", max_watchers=2) as server, client(server) as stub:
        post(server, samples.tick(1))
        watches = [
            stub.WatchEvents(pb.WatchEventsRequest(), timeout=WAIT_S),
            stub.WatchCapacity(pb.WatchCapacityRequest(), timeout=WAIT_S),
        ]
        assert all(next(watch) for watch in watches)
        for refused in (
            stub.WatchEvents(pb.WatchEventsRequest(), timeout=WAIT_S),
            stub.WatchCapacity(pb.WatchCapacityRequest(), timeout=WAIT_S),
        ):
            assert code(partial(next, refused))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
