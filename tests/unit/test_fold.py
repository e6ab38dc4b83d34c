"""Full, then deltas and heartbeats: what a controller knows is what the node has told."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.rpc.fold import apply, difference, fold, renew
from nodeagent.v1 import collector_pb2 as pb
from nodeagent.v1 import directive_pb2, nodeagent_pb2


def capacity(seq: int, cores: float, zones: int = 0) -> nodeagent_pb2.Capacity:
    cpu = nodeagent_pb2.CpuAmount(
        available_cores=cores, computed_cores=cores, terms=[nodeagent_pb2.CpuTerm(name="total", cores=8.0)]
    )
    return nodeagent_pb2.Capacity(
        seq=seq,
        observed_at=Timestamp(seconds=seq),
        valid_until=Timestamp(seconds=seq + 10),
        cpu=cpu,
        zones=[nodeagent_pb2.Zone(numa_node=number, cpu=cpu) for number in range(zones)],
    )


signals = st.lists(
    st.builds(
        nodeagent_pb2.Signal,
        name=st.sampled_from(["pressure", "numa_remote"]),
        subject=st.sampled_from(["", "a", "b"]),
        level=st.floats(0.0, 1.0),
    ),
    max_size=3,
    unique_by=lambda signal: (signal.name, signal.subject),
)
directives = st.lists(
    st.builds(
        directive_pb2.DirectiveStatus,
        issuer=st.sampled_from(["uid:0", "controller:a:1"]),
        state=st.sampled_from([directive_pb2.DIRECTIVE_STATE_IN_FORCE, directive_pb2.DIRECTIVE_STATE_ENDED]),
    ),
    max_size=2,
)
statuses = st.builds(
    pb.NodeStatus,
    node_name=st.just("node-7"),
    mode=st.sampled_from([directive_pb2.MODE_OBSERVE, directive_pb2.MODE_ENFORCE]),
    capacity=st.builds(capacity, st.integers(1, 99), st.floats(0.0, 8.0), st.integers(0, 2)),
    pods=st.builds(pb.PodCounts, ls=st.integers(0, 3), mid=st.integers(0, 3), batch=st.integers(0, 3)),
    batch_limit_cores=st.none() | st.integers(0, 60).map(lambda fifths: fifths / 5),
    signals=signals,
    directives=directives,
    slowed_pods=st.integers(0, 2),
)


@given(statuses, statuses)
def test_what_was_told_and_what_differs_make_what_is(told: pb.NodeStatus, now: pb.NodeStatus) -> None:
    delta = difference(told, now, moved=True)
    assert delta is not None
    made = apply(told, delta)
    same = {(s.name, s.subject) for s in told.signals} == {(s.name, s.subject) for s in now.signals}
    if same:  # the same ones for longer: not told again
        assert list(made.signals) == list(told.signals)
        made.ClearField("signals")
        made.signals.extend(now.signals)
    assert made == now


@given(statuses)
def test_nothing_differs_from_itself_and_applying_changes_neither_argument(status: pb.NodeStatus) -> None:
    before = status.SerializeToString(deterministic=True)
    assert difference(status, status, moved=False) is None
    delta = difference(status, status, moved=True)
    assert delta is not None
    apply(status, delta)
    renew(status, pb.Heartbeat(seq=100))
    assert status.SerializeToString(deterministic=True) == before


def test_a_limit_that_is_no_longer_known_and_lists_that_are_empty_now_are_told() -> None:
    told = pb.NodeStatus(batch_limit_cores=2.0, signals=[nodeagent_pb2.Signal(name="pressure")])
    delta = difference(told, pb.NodeStatus(), moved=False)
    assert delta is not None
    made = apply(told, delta)
    assert not made.HasField("batch_limit_cores")
    assert not made.signals


def test_a_heartbeat_prolongs_and_leaves_the_rest() -> None:
    status = pb.NodeStatus(node_name="a", capacity=capacity(1, 3.0))
    beat = pb.Heartbeat(seq=5, observed_at=Timestamp(seconds=5), valid_until=Timestamp(seconds=15))
    made = renew(status, beat)
    assert (made.capacity.seq, made.capacity.valid_until.seconds) == (5, 15)
    assert made.capacity.cpu == status.capacity.cpu


def test_without_a_full_status_nothing_is_known() -> None:
    delta = pb.NodeDelta(capacity=capacity(2, 1.0))
    assert fold(None, pb.ReportRequest(delta=delta)) is None
    assert fold(None, pb.ReportRequest(heartbeat=pb.Heartbeat())) is None
    known = fold(None, pb.ReportRequest(full=pb.NodeStatus(node_name="a")))
    assert known is not None and known.node_name == "a"
    assert fold(known, pb.ReportRequest(directive_result=pb.DirectiveResult(id="x"))) is known
    assert fold(known, pb.ReportRequest()) is known
    after = fold(known, pb.ReportRequest(delta=delta))
    assert after is not None and after.capacity.cpu.available_cores == 1.0
