"""The cluster's sums by difference are those of a recomputation, whatever comes; the clock is literals."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodeagent.collect.offer import checked_name, offer_in, renewed
from nodeagent.collect.view import FORGET_S, Offer, State, View
from nodeagent.model.errors import Garbled
from nodeagent.v1 import collector_pb2 as pb
from nodeagent.v1 import directive_pb2 as directive_pb
from nodeagent.v1 import nodeagent_pb2 as node_pb
from tests.unit import cluster_nodes as nodes

UNIX = 1_790_000_000.0  # at = 0


class Told:
    """A source of tests: it only remembers who replaced it."""

    def __init__(self, peer: str = "test") -> None:
        self.peer = peer
        self.by = ""

    def replaced(self, by: str) -> None:
        self.by = by

    async def direct(self, _: directive_pb.Directive, timeout_s: float) -> pb.DirectiveResult:
        assert timeout_s
        raise TimeoutError


def offer(
    seq: int = 1,
    cores: float = 4.0,
    at: float = 0.0,
    *,
    valid_s: float = 10.0,
    zones: nodes.Zones = ((0, 4.0, 8),),
    behind_s: float = 0.0,
    withdrawn: str = "",
) -> Offer:
    unix = UNIX + at - behind_s
    made = nodes.capacity(seq, unix, cores, 8, zones=zones, valid_s=valid_s, withdrawn=withdrawn)
    return offer_in(made)


def told(view: View, name: str, what: Offer | None, at: float = 0.0) -> None:
    view.tell(name, pb.NodeStatus(node_name=name), what, at, UNIX + at)


def view_of(*names: str, max_nodes: int = 100) -> View:
    view = View(max_nodes=max_nodes)
    for name in names:
        view.join(name, Told(), 0.0)
    return view


def test_the_sums_are_those_of_the_nodes_that_offer_something() -> None:
    view = view_of("a", "b", "c", "d")
    told(view, "a", offer(cores=4.0, zones=((0, 1.0, 3), (1, 3.0, 5))))
    told(view, "b", offer(cores=0.5, zones=((0, 0.5, 8),)))
    told(view, "c", offer(cores=9.0, withdrawn="a reading is missing"))
    told(view, "d", None)
    assert (view.sums.micro_cores, view.sums.bytes) == (4_500_000, 16)
    assert view.sums.zones == {0: (1_500_000, 11, 2), 1: (3_000_000, 5, 1)}
    assert view.states == {State.OFFERING: 2, State.WITHDRAWN: 1, State.STALE: 1}


def test_another_offer_takes_the_place_of_the_one_before_zone_by_zone() -> None:
    view = view_of("a")
    told(view, "a", offer(1, 4.0, zones=((0, 1.0, 3), (1, 3.0, 5))))
    told(view, "a", offer(2, 2.0, zones=((1, 2.0, 4),)))
    assert view.sums.micro_cores == 2_000_000
    assert view.sums.zones == {1: (2_000_000, 4, 1)}


def test_nothing_is_offered_where_both_amounts_are_0() -> None:
    nothing = offer_in(nodes.capacity(1, UNIX, 0.0, 0))
    assert nothing.withdrawn
    assert not offer_in(nodes.capacity(1, UNIX, 0.0, 1)).withdrawn


def test_a_node_counts_for_nothing_from_the_end_of_its_validity_on_until_it_is_told_anew() -> None:
    view = view_of("a")
    told(view, "a", offer(1, valid_s=10.0))
    assert view.next_due() == 10.0
    assert view.expire(9.9) == []
    assert [node.name for node in view.expire(10.0)] == ["a"]
    assert (view.sums.micro_cores, view.sums.zones) == (0, {})
    assert view.expire(11.0) == []
    told(view, "a", offer(2, at=20.0), at=20.0)
    assert view.sums.micro_cores == 4_000_000
    assert view.next_due() == 30.0


def test_each_heartbeat_lets_an_offer_hold_for_longer() -> None:
    view = view_of("a")
    told(view, "a", offer(1))
    for at in (5.0, 10.0, 15.0):
        beat = nodes.heartbeat(int(at), UNIX + at).heartbeat
        held = view.nodes["a"].offer
        assert held is not None
        told(view, "a", renewed(held, beat), at)
        assert view.expire(at + 9.0) == []
    assert len(view.expire(25.0)) == 1


def test_an_offer_that_is_told_once_more_is_no_newer() -> None:
    view = view_of("a")
    told(view, "a", offer(1))
    told(view, "a", offer(1), at=8.0)  # after a reconnect; the agent's loop has come to a halt
    assert len(view.expire(10.0)) == 1


@pytest.mark.parametrize(
    ("behind_s", "valid_for_s"),
    [(-3600.0, 10.0), (0.0, 10.0), (2.0, 10.0), (5.0, 7.0), (12.0, 0.0), (3600.0, 0.0)],
    ids=["an hour ahead", "right", "behind as is allowed", "more", "at the end", "an hour behind"],
)
def test_a_clock_that_is_ahead_or_a_little_behind_changes_nothing(
    behind_s: float, valid_for_s: float
) -> None:
    view = view_of("a")  # clock_skew_s is 2
    told(view, "a", offer(1, behind_s=behind_s))
    assert view.nodes["a"].state is (State.OFFERING if valid_for_s else State.STALE)
    view.expire(valid_for_s - 0.01)
    assert view.sums.micro_cores == (4_000_000 if valid_for_s else 0)
    view.expire(valid_for_s + 0.01)
    assert view.sums.micro_cores == 0


def test_the_newer_source_of_a_node_takes_it_over_and_the_older_one_can_leave_no_more() -> None:
    view, older, newer = View(max_nodes=10), Told(), Told()
    assert view.join("a", older, 0.0) is None
    assert view.join("a", newer, 1.0) is older
    assert view.join("a", newer, 2.0) is None
    view.leave("a", older)
    assert view.nodes["a"].source is newer
    view.leave("a", newer)
    assert view.nodes["a"].source is None


def test_a_node_that_has_been_gone_for_long_is_forgotten_and_one_that_is_only_silent_is_not() -> None:
    view, source = View(max_nodes=10), Told()
    view.join("gone", source, 0.0)
    view.join("silent", Told(), 0.0)
    told(view, "gone", offer())
    told(view, "silent", offer())
    view.leave("gone", source)
    for at in (10.0, FORGET_S, 2 * FORGET_S + 20.0, 5 * FORGET_S):
        view.expire(at)
    assert set(view.nodes) == {"silent"}
    assert view.states[State.STALE] == 1


def test_where_there_is_no_room_a_stale_node_that_is_not_connected_makes_it() -> None:
    view, gone = View(max_nodes=2), Told()
    view.join("a", Told(), 0.0)
    view.join("b", gone, 0.0)
    with pytest.raises(OverflowError, match="2 nodes"):
        view.join("c", Told(), 0.0)
    view.leave("b", gone)
    view.join("c", Told(), 0.0)
    assert set(view.nodes) == {"a", "c"}


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("cpu.available_cores", nodes.capacity(1, UNIX, float("nan"))),
        ("cpu.available_cores", nodes.capacity(1, UNIX, -0.1)),
        ("cpu.available_cores", nodes.capacity(1, UNIX, float("inf"))),
        ("memory.available_bytes", nodes.capacity(1, UNIX, size=(1 << 50) + 1)),
        ("zones.numa_node", nodes.capacity(1, UNIX, zones=[(1024, 1.0, 1)])),
        ("zones.cpu.available_cores", nodes.capacity(1, UNIX, zones=[(0, 1e6, 1)])),
        ("zones: a numa_node is given twice", nodes.capacity(1, UNIX, zones=[(0, 1.0, 1), (0, 1.0, 1)])),
        ("valid_until", nodes.capacity(1, UNIX, valid_s=1e6)),
    ],
)
def test_a_capacity_that_cannot_be_is_refused_by_the_name_of_its_field(
    field: str, bad: node_pb.Capacity
) -> None:
    with pytest.raises(Garbled, match=field):
        offer_in(bad)


@pytest.mark.parametrize("name", ["", "a" * 254, "a\nb", "a\x1b[31m", "a\u202eb"])
def test_a_name_that_could_spoil_a_screen_or_a_log_is_none(name: str) -> None:
    with pytest.raises(Garbled, match="node_name"):
        checked_name(name)


cores = st.floats(0.0, 64.0)
zones = st.dictionaries(st.integers(0, 3), st.tuples(cores, st.integers(0, 1 << 40)), max_size=3)
names = st.sampled_from("abc")
step = st.one_of(
    st.tuples(st.just("join"), names),
    st.tuples(st.just("leave"), names),
    st.tuples(st.just("pass"), st.floats(0.0, 700.0)),
    st.tuples(
        st.just("tell"),
        names,
        st.integers(1, 5),
        cores,
        zones,
        st.sampled_from([10.0, 10.0, 10.0, 600.0, 0.5, -1.0]),
        st.sampled_from(["", "", "", "withdrawn"]),
        st.sampled_from([0.0, 0.0, 0.0, -30.0, 5.0, 30.0]),
    ),
    st.tuples(st.just("renew"), names, st.integers(1, 9)),
    st.tuples(st.just("unknown"), names),
)


def recomputed(
    view: View, last: dict[str, Offer], at: float
) -> tuple[int, int, dict[int, tuple[int, int, int]]]:
    """The sums from scratch, by what each node last said and until when that holds."""
    counted = [
        last[name]
        for name, node in view.nodes.items()
        if name in last and not last[name].withdrawn and node.expires_at > at
    ]
    by_zone: dict[int, tuple[int, int, int]] = {}
    for zone in (zone for each in counted for zone in each.zones):
        micro, size, count = by_zone.get(zone.numa_node, (0, 0, 0))
        by_zone[zone.numa_node] = micro + zone.micro_cores, size + zone.bytes, count + 1
    return sum(each.micro_cores for each in counted), sum(each.bytes for each in counted), by_zone


@settings(max_examples=300)
@given(st.lists(step, max_size=40))
def test_the_sums_equal_the_recomputation_after_any_sequence(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    view, at = View(max_nodes=2), 0.0
    sources = {name: Told(name) for name in "abc"}
    view.join("a", sources["a"], at)
    last: dict[str, Offer] = {}
    for kind, *rest in steps:
        if kind == "pass":
            at += rest[0]
        elif kind == "join":
            if rest[0] in view.nodes or len(view.nodes) < 2:
                view.join(rest[0], sources[rest[0]], at)
        elif kind == "leave":
            view.leave(rest[0], sources[rest[0]])
        elif rest[0] in view.nodes:
            said = reported(kind, rest, last, at)
            last.pop(rest[0], None)
            last |= {rest[0]: said} if said else {}
            told(view, rest[0], said, at)
        view.expire(at)
        last = {name: each for name, each in last.items() if name in view.nodes}  # the others are forgotten
        assert (view.sums.micro_cores, view.sums.bytes, view.sums.zones) == recomputed(view, last, at)
        assert sum(view.states.values()) == len(view.nodes)
        assert all(view.states[state] >= 0 for state in State)
        due = view.next_due()
        assert due is None or due > at


def reported(kind: str, rest: list, last: dict[str, Offer], at: float) -> Offer | None:  # type: ignore[type-arg]
    """What a node says in one report, None without a capacity."""
    name = rest[0]
    if kind == "tell":
        _, seq, amount, by_zone, valid_s, withdrawn, behind_s = rest
        shares = [(zone, *share) for zone, share in by_zone.items()]
        return offer(seq, amount, at, zones=shares, valid_s=valid_s, withdrawn=withdrawn, behind_s=behind_s)
    if kind == "renew" and name in last:
        return renewed(last[name], nodes.heartbeat(rest[1], UNIX + at).heartbeat)
    return None


def test_a_report_costs_the_same_among_many_nodes_and_the_heap_does_not_grow() -> None:
    view = view_of(*(f"n{number}" for number in range(2000)), max_nodes=2000)
    for seq in range(1, 6):
        for number in range(2000):
            told(view, f"n{number}", offer(seq, at=float(seq), zones=((number % 2, 1.0, 1),)), float(seq))
        view.expire(float(seq))
    assert view.sums.zones == {0: (1_000_000_000, 1000, 1000), 1: (1_000_000_000, 1000, 1000)}
    assert len(view._due) <= 2 * len(view.nodes)
