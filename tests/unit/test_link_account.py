"""Over any course of ticks, what a controller was told is what the node is. No sockets, no real clock."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.model.decision import Signal, Tick
from nodeagent.model.settings import Mode
from nodeagent.rpc.account import Account
from nodeagent.rpc.fold import fold
from nodeagent.rpc.posted import Posted, differs
from nodeagent.rpc.status import InForce, Who, node_status
from nodeagent.v1 import collector_pb2 as pb
from tests.unit.rpc_clients import offering

WHO = Who("node-7", "0.1")

steps = st.lists(
    st.tuples(
        st.floats(0.0, 20.0),  # seconds since the step before
        st.one_of(st.just(0.0), st.floats(0.0, 8.0)),  # cores offered
        st.none() | st.floats(0.5, 8.0),  # what Batch may use
        st.sets(st.sampled_from(["pressure", "numa_remote"])),
        st.sampled_from(list(Mode)),
        st.booleans(),  # the controller asks for all
    ),
    min_size=1,
    max_size=12,
)


def tick_of(seq: int, cores: float, limit: float | None, signals: set[str], at: float) -> Tick:
    tick = offering(seq, cores)
    told = tuple(Signal(name, "", 1.0, at, "because") for name in sorted(signals))
    return replace(tick, decision=replace(tick.decision, batch_limit_cores=limit, signals=told))


@given(steps)
@settings(deadline=None)
def test_what_was_told_folded_is_what_the_node_is(
    steps: list[tuple[float, float, float | None, set[str], Mode, bool]],
) -> None:
    account, now, known = Account(WHO, 1.0, 10.0), 0.0, None
    posted, in_force = None, InForce(Mode.OBSERVE)
    for seq, (pause_s, cores, limit, signals, mode, resync) in enumerate(steps, 1):
        if posted is not None:  # what the stream does when no tick comes
            until = now + pause_s
            while (look_at := account.look_at(posted, now)) < until:
                assert look_at > now
                now = look_at
                request = account.next(posted, in_force, now)
                known = known if request is None else fold(known, request)
            now = until
        posted, in_force = Posted(tick_of(seq, cores, limit, signals, now), now), InForce(mode)
        if resync:
            account.forget()
        request = account.next(posted, in_force, now)
        if request is not None:
            assert not resync or request.HasField("full")
            known = fold(known, request)
            assert known is not None
            agrees(known, node_status(posted.tick, posted.capacity(now), WHO, in_force))


def agrees(known: pb.NodeStatus, real: pb.NodeStatus) -> None:
    """The same but for noise; the terms are those of the capacity that was told last."""
    assert (known.node_name, known.mode, known.pods) == (real.node_name, real.mode, real.pods)
    assert known.capacity.seq == real.capacity.seq
    assert known.capacity.valid_until == real.capacity.valid_until
    assert known.capacity.withdrawn == real.capacity.withdrawn
    one, other = known.capacity.cpu.available_cores, real.capacity.cpu.available_cores
    assert abs(one - other) <= max(0.01, 0.01 * max(one, other))
    assert (one == 0.0) == (other == 0.0)
    assert known.HasField("batch_limit_cores") == real.HasField("batch_limit_cores")
    assert abs(known.batch_limit_cores - real.batch_limit_cores) <= 0.01 * 8.0
    assert {s.name for s in known.signals} == {s.name for s in real.signals}


def test_messages_keep_their_distance_and_the_heart_beats_within_half_of_the_validity() -> None:
    account, posted = Account(WHO, 1.0, 10.0), Posted(offering(1, 3.0, valid_s=6.0), 100.0)
    sent = []
    now = 100.0
    while now < 112.0:
        request = account.next(posted, InForce(Mode.OBSERVE), now)
        if request is not None:
            sent.append((now, request.WhichOneof("body")))
        now = max(now + 0.001, account.look_at(posted, now))
    assert sent == [(100.0, "full"), (103.0, "heartbeat"), (106.0, "delta"), (109.0, "heartbeat")]


def test_a_change_waits_for_its_turn_and_then_tells_the_latest() -> None:
    account = Account(WHO, 1.0, 10.0)
    assert account.next(Posted(offering(1, 3.0), 0.0), InForce(Mode.OBSERVE), 0.0) is not None
    early, late = Posted(offering(2, 2.0), 0.5), Posted(offering(3, 1.0), 0.9)
    assert account.next(early, InForce(Mode.OBSERVE), 0.5) is None
    assert account.look_at(early, 0.5) == 1.0
    request = account.next(late, InForce(Mode.OBSERVE), 1.0)
    assert request is not None
    assert request.delta.capacity.seq == 3


def test_more_memory_or_cpus_are_told_by_a_full_status() -> None:
    account = Account(WHO, 1.0, 10.0)
    tick = offering(1, 3.0)
    account.next(Posted(tick, 0.0), InForce(Mode.OBSERVE), 0.0)
    topology = tick.snapshot.topology
    fewer = replace(
        tick, snapshot=replace(tick.snapshot, topology=replace(topology, cpus=topology.cpus[:-1]))
    )
    request = account.next(Posted(fewer, 2.0), InForce(Mode.OBSERVE), 2.0)
    assert request is not None
    assert request.full.total_cores == len(topology.cpus) - 1


def test_nothing_is_withdrawn_from_a_controller_that_was_told_nothing() -> None:
    account, posted = Account(WHO, 1.0, 10.0), Posted(offering(1, 3.0), 0.0)
    assert account.farewell(posted) is None
    account.next(posted, InForce(Mode.OBSERVE), 0.0)
    farewell = account.farewell(posted)
    assert farewell is not None
    assert differs(posted.tick.decision.capacity, posted.capacity(1e9))
    assert farewell.delta.capacity.cpu.available_cores == 0.0
