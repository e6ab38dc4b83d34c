"""What directives do to a tick: laws for all inputs, and the words that are said of it."""

from __future__ import annotations

import math
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.core.decide import decide
from nodeagent.journal.packed import Packer, Unpacker
from nodeagent.model.decision import Decision, Memory, Tick
from nodeagent.model.directive import (
    Code,
    Directive,
    DirectiveStatus,
    End,
    Hold,
    Lend,
    Order,
    Recall,
    Refusal,
    SetMode,
    State,
    wrong,
)
from nodeagent.model.policy import CapacityPolicy, CpuPolicy, Policy
from nodeagent.model.settings import Mode
from nodeagent.model.snapshot import Snapshot
from nodeagent.report.events import events
from nodeagent.report.metrics import Metrics, OwnCost
from nodeagent.report.screen import Screen
from tests.unit import samples
from tests.unit.metric_pages import values
from tests.unit.world import Load, World

FLOOR = CpuPolicy().floor_cores
BEGIN = samples.snapshot(0, 1000.0).unix


class Directed(World):
    """A World in which directives are in force."""

    def __init__(self, policy: Policy | None = None, numa_nodes: int = 1) -> None:
        super().__init__(policy=policy, numa_nodes=numa_nodes)
        self.statuses: tuple[DirectiveStatus, ...] = ()

    @property
    def now(self) -> float:
        return BEGIN + self.seq

    def order(self, *orders: Order, lease_s: float = 1e6) -> None:
        self.statuses = tuple(status(order, self.now, lease_s) for order in orders)

    def snapshot(self, load: Load) -> Snapshot:
        return replace(super().snapshot(load), directives=self.statuses)


def status(order: Order, taken_unix: float = BEGIN, lease_s: float = 1e6) -> DirectiveStatus:
    return DirectiveStatus(
        directive=Directive(id=f"the-{type(order).__name__.lower()}", lease_s=lease_s, order=order),
        issuer="uid:0",
        taken_unix=taken_unix,
        ends_unix=taken_unix + lease_s,
    )


ratio = st.floats(0.0, 1.0)
loads = st.builds(
    Load,
    ls_cores=st.one_of(st.none(), st.floats(0, 6)),
    batch_cores=st.one_of(st.none(), ratio),
    stall_ratio=st.one_of(st.none(), ratio),
    steal_cores=ratio,
)
holds = st.builds(Hold, cpu_cores=st.one_of(st.none(), st.floats(0, 10)), memory_bytes=st.integers(0, 2**36))
recalls = st.builds(Recall, deadline_unix=st.floats(BEGIN - 5, BEGIN + 40))
takers = st.lists(st.one_of(holds, recalls, st.just(SetMode(Mode.OBSERVE))), max_size=3)
POLICY = Policy(capacity=CapacityPolicy(reserved_cpu_cores=0.5, reserved_memory_bytes=1 << 30))


@settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(loads, takers), min_size=1, max_size=15), st.sampled_from([1, 2]))
def test_no_directive_but_a_lend_ever_gives_more_than_the_formula(
    course: list[tuple[Load, list[Order]]], numa_nodes: int
) -> None:
    """Against the same node, seen through the same memory, without any directive."""
    world = Directed(policy=POLICY, numa_nodes=numa_nodes)
    for load, orders in course:
        world.order(*orders)
        seen = world.snapshot(load)
        plain, _ = decide(replace(seen, directives=()), world.policy, world.memory)
        decision, world.memory = decide(seen, world.policy, world.memory)
        assert_no_more(decision, plain)


def assert_no_more(decision: Decision, plain: Decision) -> None:
    assert decision.capacity.cpu.available <= plain.capacity.cpu.available
    assert decision.capacity.memory.available <= plain.capacity.memory.available
    if plain.batch_limit_cores is not None:
        assert decision.batch_limit_cores is not None
        assert FLOOR <= decision.batch_limit_cores <= plain.batch_limit_cores
    for mine, theirs in ((z.capacity, z.capacity.zones) for z in (decision,)):
        assert sum(zone.cpu.available for zone in theirs) <= mine.cpu.available + 1e-9
        assert sum(zone.memory.available for zone in theirs) <= mine.memory.available + 1e-3


@settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(loads, st.booleans()), min_size=1, max_size=20), st.sampled_from([1, 2, 4]))
def test_a_lend_offers_no_more_than_reservations_and_present_online_use_leave(
    course: list[tuple[Load, bool]], numa_nodes: int
) -> None:
    world = Directed(policy=POLICY, numa_nodes=numa_nodes)
    for load, lends in course:
        world.order(*([Lend()] if lends else []))
        capacity = world.step(load).capacity
        cpu = {t.name: t.value for t in capacity.cpu.terms}
        memory = {t.name: t.value for t in capacity.memory.terms}
        taken = max(0.5, cpu["system"]) + cpu["online_now"]
        assert 0.0 <= capacity.cpu.available <= max(0.0, cpu["total"] - cpu["steal"] - taken) + 1e-9
        taken = max(1 << 30, memory["system"]) + memory["online_now"]
        assert 0.0 <= capacity.memory.available <= max(0.0, memory["total"] - memory["watermark"] - taken) + 1
        assert sum(z.cpu.available for z in capacity.zones) <= capacity.cpu.available + 1e-9


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(loads, st.sampled_from([None, Lend()])), min_size=1, max_size=20))
def test_blindness_gives_nothing_more_even_while_the_node_is_lent(
    course: list[tuple[Load, Lend | None]],
) -> None:
    world = Directed()
    for load, lend in course:
        world.order(*([lend] if lend else []))
        offered, limit = world.memory.offer, world.memory.batch.cores
        decision = world.step(load)
        if load.ls_cores is None:
            assert decision.capacity.cpu.available <= offered.cpu_cores
            assert decision.capacity.memory.available <= offered.memory_bytes
            assert limit is None or (decision.batch_limit_cores or 0.0) <= limit


def test_a_hold_caps_offer_and_limit_at_once_and_says_who_asked() -> None:
    world = Directed()
    world.run(*[Load()] * 60)
    assert world.memory.offer.cpu_cores > 4.0 and world.quota > 4.0
    world.order(Hold(cpu_cores=2.0, memory_bytes=1 << 30))
    decision = world.step(Load())
    capacity = decision.capacity
    assert (capacity.cpu.available, capacity.memory.available) == (2.0, float(1 << 30))
    assert capacity.cpu.terms[-1].name == capacity.memory.terms[-1].name == "hold"
    assert capacity.cpu.terms[-1].source == "directive the-hold of uid:0"
    assert decision.batch_limit_cores == 2.0 and world.quota == 2.0
    assert decision.limit_why == "hold at 2 cores: directive the-hold of uid:0"
    assert all("hold at 2 cores" in s.why for s in decision.plan if s.knob.target == samples.TIER)
    world.order()
    later = [world.step(Load()) for _ in range(2)]
    assert 2.0 < (later[-1].batch_limit_cores or 0.0) <= 2.0 + 2 * 0.05 * 8 + 1e-9, "slow up"
    assert later[-1].capacity.cpu.available == pytest.approx(2.0 + 2 * 0.01 * 8)


def test_a_hold_of_memory_alone_leaves_cpu_as_it_is() -> None:
    plain, world = Directed(), Directed()
    world.order(Hold(memory_bytes=0))
    a, b = plain.run(*[Load()] * 20)[-1], world.run(*[Load()] * 20)[-1]
    assert b.capacity.memory.available == 0.0 < a.capacity.memory.available
    assert (b.capacity.cpu, b.batch_limit_cores) == (a.capacity.cpu, a.batch_limit_cores)


def test_a_hold_at_nothing_leaves_batch_its_floor_and_one_above_the_limit_changes_nothing() -> None:
    world = Directed()
    world.run(*[Load()] * 20)
    world.order(Hold(cpu_cores=0.0))
    assert world.step(Load()).batch_limit_cores == FLOOR
    plain, loose = Directed(), Directed()
    loose.order(Hold(cpu_cores=100.0))
    a, b = plain.run(*[Load()] * 20)[-1], loose.run(*[Load()] * 20)[-1]
    assert (a.batch_limit_cores, a.limit_why) == (b.batch_limit_cores, b.limit_why)
    assert a.capacity.cpu.available == b.capacity.cpu.available


def test_a_lend_offers_what_is_idle_now_and_its_end_takes_it_back() -> None:
    world = Directed()
    world.run(*[Load(ls_cores=6.0)] * 3)
    world.run(*[Load(ls_cores=0.5)] * 3)
    assert world.memory.offer.cpu_cores < 1.0
    world.order(Lend())
    capacity = world.step(Load(ls_cores=0.5)).capacity
    assert capacity.cpu.available == pytest.approx(8.0 - 0.5, abs=0.1)
    sources = {t.name: t.source for t in capacity.cpu.terms}
    assert sources["online_peak"] == "what is used now: directive the-lend of uid:0"
    limit = [world.step(Load()).batch_limit_cores or 0.0 for _ in range(40)][-1]
    assert 8.0 * 0.95 - 0.5 < limit <= 8.0 - 0.5, "the ceiling of Batch's limit is lent too"
    world.order()
    assert world.step(Load(ls_cores=0.5)).capacity.cpu.available < 2.0, "the peak of a minute counts again"


def test_a_recall_withdraws_at_once_and_batch_falls_evenly_to_its_floor() -> None:
    world = Directed()
    world.run(*[Load()] * 60)
    start = world.memory.batch.cores or 0.0
    world.order(Recall(world.now + 9.0), lease_s=20.0)
    decisions = world.run(*[Load()] * 19)
    assert decisions[0].capacity.withdrawn == "recalled by directive the-recall of uid:0"
    assert all(d.capacity.cpu.available == d.capacity.memory.available == 0.0 for d in decisions)
    limits = [d.batch_limit_cores or 0.0 for d in decisions]
    expected = [FLOOR + (start - FLOOR) * max(0.0, 9.0 - n) / 9.0 for n in range(19)]
    assert limits == pytest.approx(expected)
    assert decisions[3].limit_why.startswith("recall by 20") and "the-recall" in decisions[3].limit_why
    after = world.run(*[Load()] * 3)
    assert 0.0 < after[-1].capacity.cpu.available <= 3 * 0.01 * 8 + 1e-9
    assert FLOOR < (after[-1].batch_limit_cores or 0.0) <= FLOOR + 3 * 0.05 * 8


def test_a_deadline_that_is_over_is_at_once() -> None:
    world = Directed()
    world.run(*[Load()] * 20)
    world.order(Recall(world.now - 1.0))
    assert world.step(Load()).batch_limit_cores == FLOOR


def test_a_recall_goes_on_falling_after_a_restart() -> None:
    world = Directed()
    world.run(*[Load()] * 20)
    world.order(Recall(world.now + 10.0))
    world.run(*[Load()] * 5)
    halfway = world.quota
    world.memory = Memory()
    limits = [d.batch_limit_cores or 0.0 for d in world.run(*[Load()] * 6)]
    assert limits[0] <= halfway + 1e-9
    assert all(b <= a for a, b in pairwise(limits))
    assert limits[-1] == FLOOR


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(-30.0, 30.0), min_size=1, max_size=15))
def test_no_jump_of_the_clock_lets_batch_rise_during_a_recall(jumps: list[float]) -> None:
    world = Directed()
    world.run(*[Load()] * 20)
    recalled = (status(Recall(world.now + 10.0), world.now),)
    last = math.inf
    for jump in jumps:
        seen = super(Directed, world).snapshot(Load())
        seen = replace(seen, unix=seen.unix + jump, directives=recalled)
        decision, world.memory = decide(seen, world.policy, world.memory)
        assert FLOOR <= (decision.batch_limit_cores or 0.0) <= last
        last = decision.batch_limit_cores or 0.0


def test_a_recall_ends_a_lend_and_what_is_over_does_nothing() -> None:
    world = Directed()
    world.order(Lend(), Recall(world.now))
    assert world.run(*[Load()] * 5)[-1].capacity.withdrawn
    over = replace(status(Hold(cpu_cores=0.0)), state=State.ENDED)
    world.statuses = (over, status(Hold(cpu_cores=0.0), lease_s=3.0))
    assert world.run(*[Load()] * 5)[-1].batch_limit_cores != FLOOR


@pytest.mark.parametrize(
    ("configured", "order", "mode"),
    [
        (Mode.ENFORCE, None, Mode.ENFORCE),
        (Mode.ENFORCE, SetMode(Mode.OBSERVE), Mode.OBSERVE),
        (Mode.ENFORCE, SetMode(Mode.ENFORCE), Mode.ENFORCE),
        (Mode.OBSERVE, SetMode(Mode.ENFORCE), Mode.OBSERVE),
        (None, SetMode(Mode.OBSERVE), None),
    ],
)
def test_a_directive_lets_an_enforcing_agent_observe_and_no_other_enforce(
    configured: Mode | None, order: SetMode | None, mode: Mode | None
) -> None:
    world = Directed()
    world.order(*([order] if order else []))
    seen = replace(world.snapshot(Load()), mode=configured)
    assert decide(seen, world.policy, world.memory)[0].mode is mode


GOOD = Directive(id="a.B_9:/-", lease_s=60.0, order=Hold(cpu_cores=1.0))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"id": ""}, "id: "),
        ({"id": "x" * 129}, "id: "),
        ({"id": "né"}, "id: "),
        ({"id": "a b"}, "id: "),
        ({"reason": "x" * 257}, "reason: "),
        ({"reason": "two\nlines"}, "reason: "),
        ({"lease_s": 0.0}, "lease: "),
        ({"lease_s": -1.0}, "lease: "),
        ({"lease_s": 3601.0}, "lease: takes more than 0 and at most 3600 s here, found 3601 s"),
        ({"lease_s": math.nan}, "lease: "),
        ({"order": Hold()}, "hold_capacity: needs"),
        ({"order": Hold(cpu_cores=-0.1)}, "hold_capacity.cpu_cores: "),
        ({"order": Hold(cpu_cores=math.nan)}, "hold_capacity.cpu_cores: "),
        ({"order": Hold(cpu_cores=math.inf)}, "hold_capacity.cpu_cores: "),
        ({"order": Hold(cpu_cores=65537.0)}, "hold_capacity.cpu_cores: "),
        ({"order": Hold(memory_bytes=-1)}, "hold_capacity.memory_bytes: "),
        ({"order": Recall(BEGIN + 61)}, "recall_node.deadline: "),
        ({"order": Recall(math.nan)}, "recall_node.deadline: "),
        ({"order": Recall(-math.inf)}, "recall_node.deadline: "),
        ({"order": End("")}, "end_directive.id: "),
        ({"order": End("x"), "lease_s": math.inf}, "lease: "),
    ],
)
def test_what_is_wrong_is_told_with_its_field(changed: dict[str, object], said: str) -> None:
    assert wrong(GOOD, 3600.0, BEGIN) == ""
    assert wrong(replace(GOOD, **changed), 3600.0, BEGIN).startswith(said)


def test_directives_come_back_from_the_journal_and_decide_the_same() -> None:
    world = Directed()
    world.order(Hold(cpu_cores=1.5), Recall(world.now + 5), SetMode(Mode.OBSERVE), Lend())
    packer, unpacker = Packer(), Unpacker()
    memory = world.memory
    for seq in range(5):
        refused = (Refusal("x", "uid:1", Code.INVALID_ARGUMENT, "lease: ..."),) if seq == 2 else ()
        seen = replace(world.snapshot(Load()), mode=Mode.ENFORCE, refused=refused)
        decision, after = decide(seen, world.policy, memory)
        again = unpacker.unpack(packer.pack(Tick(seen, decision)))
        assert again == Tick(seen, decision)
        assert decide(again.snapshot, world.policy, memory) == (decision, after)
        memory = after


def test_a_tick_of_an_agent_that_knew_no_directives_still_reads_and_decides_as_it_did() -> None:
    world = World()
    seen = world.snapshot(Load())
    decision, _ = decide(seen, world.policy, world.memory)
    old_seen, old_decision = msgspec.to_builtins(seen), msgspec.to_builtins(decision)
    for name in ("directives", "refused", "mode"):
        del old_seen[name]
    del old_decision["mode"]
    assert decide(msgspec.convert(old_seen, Snapshot), world.policy, world.memory)[0] == msgspec.convert(
        old_decision, Decision
    )


def test_every_directive_is_told_once_when_it_comes_and_once_when_it_goes() -> None:
    held = status(Hold(cpu_cores=2.0))
    gone = replace(held, state=State.EXPIRED)
    short = replace(status(Lend()), state=State.REPLACED)
    refusal = Refusal("bad id", "uid:7", Code.PERMISSION_DENIED, "readers may not")
    plain = samples.tick(1)
    course = [(), (held, short), (held,), (gone,), ()]
    ticks = [replace(plain, snapshot=replace(plain.snapshot, directives=each)) for each in course]
    ticks[2] = replace(ticks[2], snapshot=replace(ticks[2].snapshot, refused=(refusal,)))
    told = [
        [e for e in events(before, now) if e.name.startswith("directive")] for before, now in pairwise(ticks)
    ]
    names = [[(e.name, e.keys["id"]) for e in each] for each in told]
    assert names == [
        [
            ("directive.taken", "the-hold"),
            ("directive.taken", "the-lend"),
            ("directive.ended", "the-lend"),
        ],
        [("directive.refused", "bad id")],
        [("directive.expired", "the-hold")],
        [],
    ]
    assert told[0][0].keys["cpu_cores"] == 2.0 and told[0][0].keys["issuer"] == "uid:0"
    assert told[0][2].keys["state"] == "replaced"
    assert told[1][0].keys["code"] == "PERMISSION_DENIED"
    first = [e.name for e in events(None, ticks[1]) if e.name.startswith("directive")]
    assert first == ["directive.resumed", "directive.ended"]


def test_metrics_tell_kinds_in_force_and_whether_the_agent_writes() -> None:
    plain = samples.tick(1)
    seen = replace(plain.snapshot, directives=(status(Hold(cpu_cores=1.0)), status(SetMode(Mode.OBSERVE))))
    decision = replace(plain.decision, mode=Mode.OBSERVE)
    metrics = Metrics("1")
    metrics.observe_tick(Tick(seen, decision), 0.01, OwnCost(1.0))
    page = metrics.render().decode()
    in_force = values(page, "nodeagent_directives_in_force")
    assert {kind for kind, value in in_force.items() if value} == {"kind=hold", "kind=observe"}
    assert len(in_force) == 5
    assert values(page, "nodeagent_enforcing") == {"": 0.0}


def test_the_screen_has_a_line_for_each_in_force(capsys: pytest.CaptureFixture[str]) -> None:
    plain = samples.tick(1)
    held = replace(status(Hold(cpu_cores=1.0), plain.snapshot.unix, 5400.0), issuer="[red]uid:0")
    over = replace(status(Lend()), state=State.ENDED)
    screen = Screen("nodeagent")
    try:
        screen.show(replace(plain, snapshot=replace(plain.snapshot, directives=(held, over))), 0.01)
    finally:
        screen.close()
    shown = capsys.readouterr().out
    assert "directive the-hold of [red]uid:0: hold, 1h 30m left" in shown
    assert "directive the-lend" not in shown


class Blind(Directed):
    """The node's CPU times cannot be read, so that what online work leaves is never known."""

    def snapshot(self, load: Load) -> Snapshot:
        seen = super().snapshot(load)
        return replace(seen, node=replace(seen.node, cpus=None))


@given(st.tuples(holds, recalls) | st.tuples(holds) | st.tuples(recalls), st.integers(1, 6))
def test_batch_is_bounded_by_what_is_asked_though_what_online_work_leaves_is_not_known(
    orders: tuple[Order, ...], ticks: int
) -> None:
    world = Blind()
    world.order(*orders)
    decisions = world.run(*[Load()] * ticks)
    limits = [d.batch_limit_cores for d in decisions]
    for order in orders:
        if isinstance(order, Hold) and order.cpu_cores is not None:
            assert all(limit is not None and limit <= max(FLOOR, order.cpu_cores) for limit in limits)
        if isinstance(order, Recall) and order.deadline_unix <= decisions[-1].capacity.observed_unix:
            assert limits[-1] == FLOOR
    assert all(b is not None and b <= a for a, b in pairwise(limits) if a is not None), "it never rises"
