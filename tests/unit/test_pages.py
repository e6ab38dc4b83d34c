"""Pages first: memory nodes are narrowed only when the pages are known to be there."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import msgpack
from msgspec.structs import replace

from nodeagent.core.pages import STUCK_BYTES
from nodeagent.journal.packed import Packer, Unpacker
from nodeagent.model.cpuset import within
from nodeagent.model.decision import Memory, Tick
from nodeagent.model.pages import SMALL_BYTES, PageMove, PagesMoving
from nodeagent.model.plan import Kind, Knob, KnobReading
from nodeagent.report.events import events
from nodeagent.report.metrics import Metrics, OwnCost
from tests.unit import samples
from tests.unit.seated_node import Node, moved

BOUND, OTHER, JOB = "nodeagent/ls/pod1", "nodeagent/ls/pod2", "nodeagent/batch/pod3"
GIB = 1 << 30


def still(move: PageMove) -> PagesMoving:
    return PagesMoving(move, 1000.0, 1 << 20, GIB)


def test_cpus_are_set_at_once_and_memory_nodes_when_the_pages_are_there() -> None:
    node = Node()
    node.mover = still
    decision = node.run(5)
    assert len(node.cpus_of(BOUND)) == 2
    assert node.mems_of(BOUND) == "0-1"
    (move,) = decision.moves
    assert (move.cgroup, move.inode) == (BOUND, 1001)
    node.mover = moved
    node.step()
    assert node.mems_of(BOUND) == "0-1", "what was decided is looked at in the next tick"
    node.step()
    assert node.mems_of(BOUND) == move.mems
    assert node.step().moves == (), "nothing is left to be moved"


def test_a_second_decision_moves_nothing() -> None:
    node = Node()
    node.run(4)
    before = node.kernel.knobs
    for _ in range(5):
        assert node.step().moves == ()
    assert node.kernel.knobs == before


@pytest.mark.parametrize(
    ("found", "written"),
    [
        (None, False),
        (PagesMoving(PageMove("", 0, "", ""), 0.0), False),
        (PagesMoving(PageMove("", 0, "", ""), 0.0, left_bytes=0), False),
        (PagesMoving(PageMove("", 0, "", ""), 0.0, left_bytes=None, settled=True), False),
        (PagesMoving(PageMove("", 0, "", ""), 0.0, left_bytes=GIB, settled=True), False),
        (PagesMoving(PageMove("", 0, "", ""), 0.0, left_bytes=0, why="no free memory on node 1"), False),
        (PagesMoving(PageMove("", 0, "", ""), 0.0, left_bytes=SMALL_BYTES, settled=True), True),
        (PagesMoving(PageMove("", 0, "", ""), 0.0, 0, STUCK_BYTES, STUCK_BYTES, settled=True), True),
        (PagesMoving(PageMove("", 0, "", ""), 0.0, 0, GIB, GIB, settled=True), False),
        (PagesMoving(PageMove("", 0, "", ""), 0.0, 0, GIB, 0, unable="ENOSYS"), True),
    ],
    ids=str,
)
def test_only_what_is_known_to_be_moved_stuck_or_unmovable_is_written(
    found: PagesMoving | None, written: bool
) -> None:
    node = Node()
    node.mover = lambda move: None if found is None else replace(found, move=move)
    node.run(4)
    assert (node.mems_of(BOUND) != "0-1") is written


@pytest.mark.parametrize("change", [{"inode": 7}, {"mems": "0-1"}, {"cgroup": "nodeagent/ls/pod9"}])
def test_progress_of_another_pod_or_to_other_nodes_writes_nothing(change: dict[str, int | str]) -> None:
    node = Node()
    node.mover = lambda move: moved(replace(move, **change))
    node.run(4)
    assert node.mems_of(BOUND) == "0-1"


def test_a_restart_half_way_keeps_the_seat_and_goes_on() -> None:
    node = Node()
    node.mover = still
    moves = node.run(3).moves
    (move,) = moves
    cpus = node.cpus_of(BOUND)
    node.memory, node.moving = Memory(), ()
    for _ in range(3):
        assert node.step().moves == (move,)
        assert node.cpus_of(BOUND) == cpus
    node.mover = moved
    node.run(2)
    assert (node.cpus_of(BOUND), node.mems_of(BOUND)) == (cpus, move.mems)


def test_an_exclusive_pod_keeps_its_node_over_a_restart_half_way() -> None:
    node = Node(exclusive=True)
    node.mover = still
    moves = node.run(3).moves
    cpus = node.cpus_of(BOUND)
    node.memory, node.moving = Memory(), ()
    for _ in range(3):
        assert node.step().moves == moves
        assert node.cpus_of(BOUND) == cpus


def test_batch_and_the_pool_leave_the_node_of_an_exclusive_pod_page_by_page_too() -> None:
    node = Node(exclusive=True)
    node.mover = still
    moves = node.run(3).moves
    assert [move.cgroup for move in moves] == [BOUND, JOB, OTHER], "bound pods first"
    assert {node.mems_of(path) for path in (BOUND, OTHER, JOB, samples.TIER)} == {"0-1"}
    node.mover = lambda move: still(move) if move.cgroup == JOB else moved(move)
    node.run(3)
    own, rest = node.mems_of(BOUND), node.mems_of(OTHER)
    assert {own, rest} == {"0", "1"}
    assert node.mems_of(JOB) == node.mems_of(samples.TIER) == "0-1", "the tier waits for what is in it"
    node.mover = moved
    node.run(3)
    assert node.mems_of(JOB) == node.mems_of(samples.TIER) == rest


def test_pages_go_to_nodes_that_the_set_has_already() -> None:
    node = Node()
    node.run(4)
    own = node.mems_of(BOUND)
    other = "1" if own == "0" else "0"
    knob = Knob(Kind.MEMS, BOUND)
    found = node.kernel.knobs[knob]
    node.kernel.knobs[knob] = replace(found, actual=other, effective=other)
    node.mover = still
    decision = node.step()
    assert decision.moves[0].mems == own
    assert node.mems_of(BOUND) == "0-1"
    node.mover = moved
    node.run(2)
    assert node.mems_of(BOUND) == own


def test_giving_back_waits_for_no_page() -> None:
    node = Node()
    node.run(4)
    node.mover = still
    node.bind = False
    assert node.step().moves == ()
    assert node.mems_of(BOUND) == "0-1"


STATES = st.builds(
    PagesMoving,
    st.just(PageMove("", 0, "", "")),
    st.just(1000.0),
    st.integers(0, GIB),
    st.none() | st.sampled_from([0, SMALL_BYTES, SMALL_BYTES + 1, STUCK_BYTES, GIB]),
    st.sampled_from([0, SMALL_BYTES, STUCK_BYTES, STUCK_BYTES + 1, GIB]),
    st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.none() | STATES, min_size=3, max_size=6), st.booleans())
def test_whatever_the_progress_no_set_is_narrowed_while_much_can_still_be_moved(
    course: list[PagesMoving | None], exclusive: bool
) -> None:
    node = Node(exclusive=exclusive)
    for found in course:
        node.mover = lambda move, found=found: None if found is None else replace(found, move=move)  # type: ignore[misc]
        told = {each.move.cgroup: each for each in node.moving}
        before = {path: node.mems_of(path) for path in (BOUND, OTHER, JOB)}
        node.step()
        for path, mems in before.items():
            if not within(mems, node.mems_of(path)):
                assert told[path].settled
                assert (told[path].left_bytes or 0) - told[path].stuck_bytes <= SMALL_BYTES


def test_a_pod_without_a_set_of_its_own_moves_with_the_one_around_it() -> None:
    node = Node(exclusive=True)
    for kind in (Kind.CPUS, Kind.MEMS):
        del node.kernel.knobs[Knob(kind, JOB)]
    node.mover = still
    moves = node.run(3).moves
    assert JOB in [move.cgroup for move in moves]
    assert node.mems_of(samples.TIER) == "0-1"


def test_the_switch_of_v1_comes_with_the_memory_nodes() -> None:
    node = Node()
    knob = Knob(Kind.MIGRATE, BOUND)
    node.kernel.knobs[knob] = KnobReading(knob, 0.0, high=1.0)
    node.mover = still
    node.run(3)
    assert node.kernel.knobs[knob].actual == 0.0
    node.mover = moved
    node.run(2)
    assert node.kernel.knobs[knob].actual == 1.0


MOVE = PageMove("nodeagent/ls/pod1", 1001, "nodeagent/ls/pod1", "1")


def _tick(at: float, found: PagesMoving) -> Tick:
    seen = samples.snapshot(int(at), at, pods=(samples.pod(1, at),))
    seen = replace(seen, moving=(found,))
    return Tick(seen, replace(samples.decision(seen), moves=(MOVE,)))


def _course(*founds: PagesMoving) -> list[tuple[str, str]]:
    told, before = [], None
    for number, found in enumerate(founds):
        now = _tick(1000.0 + number, found)
        told += [(e.level, e.name) for e in events(before, now) if e.name.startswith("pages.")]
        before = now
    return told


def test_progress_is_told_at_the_beginning_at_each_tenth_and_at_the_end() -> None:
    waiting = PagesMoving(MOVE, 1000.0)
    steps = [PagesMoving(MOVE, 1000.0, part, 1000 - part) for part in (0, 50, 99, 100, 350)]
    end = PagesMoving(MOVE, 1000.0, 1000, 0, settled=True)
    assert _course(waiting, *steps[:2]) == [("info", "pages.moving")]
    assert _course(*steps[:2], steps[3]) == [("info", "pages.moving")] * 2
    assert _course(steps[1], steps[3], steps[4], end, end) == [("info", "pages.moving")] * 3 + [
        ("info", "pages.moved")
    ]


def test_slow_progress_is_told_every_few_seconds_and_none_never() -> None:
    slow = [PagesMoving(MOVE, 1000.0, moved_bytes, GIB) for moved_bytes in range(12)]
    assert len(_course(*slow)) == 3
    assert len(_course(*slow[:1] * 12)) == 1
    shrinking = [PagesMoving(MOVE, 1000.0, 1, GIB >> part) for part in range(12)]
    assert len(_course(*shrinking)) == 1, "what the pod frees by itself is no progress"


def test_nodes_that_are_full_are_told_once_with_the_reason() -> None:
    moving = PagesMoving(MOVE, 1000.0, 1, GIB)
    full = replace(moving, why="no free memory on node 1")
    assert _course(moving, *[full] * 12) == [("info", "pages.moving"), ("warning", "pages.stuck")]
    (event,) = [e for e in events(None, _tick(1010.0, full)) if e.name == "pages.stuck"]
    assert event.keys["why"] == "no free memory on node 1"


def test_what_cannot_be_read_is_told_before_it_was_ever_counted() -> None:
    assert _course(*[PagesMoving(MOVE, 1000.0, why="cgroup.procs: Permission denied")] * 3) == [
        ("warning", "pages.stuck")
    ]


def test_what_does_not_move_is_a_warning_once() -> None:
    stuck = PagesMoving(MOVE, 1000.0, 0, GIB, GIB, settled=True)
    unable = PagesMoving(MOVE, 1000.0, unable="not permitted")
    assert _course(stuck, stuck) == [("warning", "pages.stuck")]
    assert _course(unable, unable) == [("warning", "pages.unmovable")]


def test_an_event_says_who_where_to_and_how_fast() -> None:
    now = _tick(1010.0, PagesMoving(MOVE, 1000.0, 50, 150))
    (event,) = [e for e in events(None, now) if e.name == "pages.moving"]
    assert event.keys == {
        "pod": "pod1",
        "to_nodes": "1",
        "moved_bytes": 50,
        "left_bytes": 150,
        "stuck_bytes": 0,
        "bytes_per_s": 5,
    }


def test_metrics_count_the_bytes_once() -> None:
    metrics = Metrics("0")
    for number, moved_bytes in enumerate((0, 100, 100, 250)):
        found = PagesMoving(MOVE, 1000.0, moved_bytes, 400 - moved_bytes)
        metrics.observe_tick(_tick(1000.0 + number, found), 0.001, OwnCost(1.0))
    page = metrics.render().decode()
    assert "nodeagent_numa_pages_moved_bytes_total 250.0\n" in page
    assert "nodeagent_numa_pages_left_bytes 150\n" in page


def test_moves_and_their_progress_survive_the_journal() -> None:
    tick = _tick(1000.0, PagesMoving(MOVE, 999.0, 5, None, unable="no", why="full"))
    assert Unpacker().unpack(Packer().pack(tick)) == tick


def test_progress_of_older_journals_has_no_reason() -> None:
    old = msgpack.encode([["u", 1, "u", "1"], 999.0, 5, 7, 0, False, ""])
    assert msgpack.decode(old, type=PagesMoving) == PagesMoving(PageMove("u", 1, "u", "1"), 999.0, 5, 7)
