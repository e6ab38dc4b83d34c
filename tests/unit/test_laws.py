"""The laws of the loop, for all inputs: what must hold whatever the node does."""

from __future__ import annotations

import math
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.core.decide import decide
from nodeagent.core.diff import diff, fit, left_alone
from nodeagent.core.fair import max_min
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.decision import Decision, Memory
from nodeagent.model.plan import Conflict, Kind, Knob, KnobReading, Setting, numeric, one_owner
from nodeagent.model.policy import CpuPolicy, DriftPolicy, OnDrift, Policy
from tests.unit import samples
from tests.unit.world import TIER, Kernel, Load, World, acceptable, valid

PATHS = ("a", "a/b", "a/c", "a/b/d", "a/b/e")
quota = st.one_of(st.just(math.inf), st.integers(1, 800).map(lambda n: n / 100))
ratio = st.floats(0.0, 1.0)


def _tree(values: dict[str, float]) -> dict[Knob, KnobReading]:
    readings = (samples.quota_knob(path, value) for path, value in values.items())
    return {r.knob: r for r in readings}


@st.composite
def trees(draw: st.DrawFn) -> dict[str, float]:
    """Quotas on a small tree that cgroup v1 would accept."""
    values = {path: draw(quota) for path in PATHS}
    for path in PATHS:
        parts = path.split("/")
        roof = min((values["/".join(parts[:n])] for n in range(1, len(parts))), default=math.inf)
        if not math.isinf(values[path]):
            values[path] = min(values[path], roof)
    return values


def _plan(values: dict[str, float]) -> dict[Knob, float]:
    return {Knob(Kind.CPU_QUOTA, path): value for path, value in values.items()}


@settings(max_examples=400)
@given(trees(), trees(), st.sets(st.sampled_from(PATHS)))
def test_every_prefix_of_a_diff_is_a_valid_hierarchy_and_the_second_diff_is_empty(
    before: dict[str, float], wanted: dict[str, float], some: set[str]
) -> None:
    kernel = Kernel(_tree(before))
    plan = _plan({path: wanted[path] for path in some})
    kernel.apply(plan)  # asserts validity at every write
    assert kernel.apply(plan) == ()


@settings(max_examples=300)
@given(trees(), trees())
def test_a_plan_that_the_kernel_accepts_is_reached_exactly(
    before: dict[str, float], wanted: dict[str, float]
) -> None:
    kernel = Kernel(_tree(before))
    kernel.apply(_plan(wanted))
    assert {k.target: r.actual for k, r in kernel.knobs.items()} == wanted


@settings(max_examples=300)
@given(trees(), st.lists(st.tuples(trees(), st.sets(st.sampled_from(PATHS))), max_size=4))
def test_stopping_is_the_empty_plan_and_restores_everything(
    before: dict[str, float], plans: list[tuple[dict[str, float], set[str]]]
) -> None:
    kernel = Kernel(_tree(before))
    for wanted, some in plans:
        kernel.apply(_plan({path: wanted[path] for path in some}))
    kernel.apply({})
    assert {k.target: r.actual for k, r in kernel.knobs.items()} == before
    assert not any(r.held for r in kernel.knobs.values())


@given(trees(), trees(), trees())
def test_a_value_that_somebody_else_wrote_is_left_and_told(
    before: dict[str, float], wanted: dict[str, float], theirs: dict[str, float]
) -> None:
    kernel = Kernel(_tree(before))
    kernel.apply(_plan(wanted))
    found = [replace(r, actual=theirs[k.target]) for k, r in kernel.knobs.items()]
    foreign = {r.knob for r in found if r.held and r.actual not in (r.written, r.original)}
    assert not foreign & {c.knob for c in diff({}, found)}
    assert foreign == {r.knob for r in left_alone({}, found)}


@given(quota, st.floats(0, 1e12), st.integers(1000, 1_000_000))
def test_a_fitted_value_is_one_that_the_kernel_takes(actual: float, value: float, period_us: int) -> None:
    reading = KnobReading(TIER, actual, period_us, 1000 / period_us, 1e6, nested=True)
    assert acceptable(reading, numeric(fit(reading, value)))


def test_two_owners_of_one_knob_is_a_bug() -> None:
    with pytest.raises(Conflict, match=r"nodeagent/batch: a and b"):
        one_owner([Setting(TIER, 1.0, "a", ""), Setting(TIER, 1.0, "b", "")])


@given(
    st.floats(0, 100), st.lists(st.tuples(st.floats(0.1, 10), st.one_of(st.just(math.inf), st.floats(0, 50))))
)
def test_max_min_gives_all_and_envies_nobody(total: float, claims: list[tuple[float, float]]) -> None:
    weights, demands = [w for w, _ in claims], [d for _, d in claims]
    shares = max_min(total, weights, demands)
    assert sum(shares) == pytest.approx(min(total, sum(demands)) if claims else 0.0, abs=1e-6)
    assert all(s <= d + 1e-9 for s, d in zip(shares, demands, strict=True))
    for s, w, d in zip(shares, weights, demands, strict=True):
        if s < d - 1e-6:  # whoever wants more has at least everybody else's level
            assert all(s / w >= other / v - 1e-6 for other, v in zip(shares, weights, strict=True))


def test_max_min_by_request_satisfies_the_small_first() -> None:
    assert max_min(4.0, [1, 1, 1], [1.0, 2.0, 4.0]) == pytest.approx([1.0, 1.5, 1.5])
    assert max_min(6.0, [1, 2], [math.inf, math.inf]) == pytest.approx([2.0, 4.0])


@given(st.lists(st.tuples(ratio, ratio), max_size=15))
def test_deciding_twice_is_deciding_once(history: list[tuple[float, float]]) -> None:
    def fold() -> list[Decision]:
        return World().run(*(Load(stall_ratio=s, ls_cores=c) for s, c in history))

    assert fold() == fold()


@given(st.lists(st.tuples(ratio, ratio), max_size=12))
def test_decisions_and_memory_survive_the_codec(history: list[tuple[float, float]]) -> None:
    world = World(numa_nodes=2)
    for s, c in history:
        seen = world.snapshot(Load(stall_ratio=s, ls_cores=c))
        again = msgspec.msgpack.decode(msgspec.msgpack.encode(seen), type=type(seen))
        memory = msgspec.msgpack.decode(msgspec.msgpack.encode(world.memory), type=Memory)
        direct = decide(seen, world.policy, world.memory)
        assert decide(again, world.policy, memory) == direct
        world.memory = direct[1]


@settings(max_examples=60)
@given(st.lists(ratio, max_size=12))
def test_the_past_fades_once_the_windows_have_passed(history: list[float]) -> None:
    def end(prefix: list[float]) -> float:
        world = World(policy=Policy(cpu=CpuPolicy(recover_jitter_s=0.0)))
        world.run(*(Load(stall_ratio=s) for s in prefix), *[Load() for _ in range(40)])
        return world.quota

    assert end(history) == end([])


def test_pressure_halves_at_once_and_calm_lets_it_creep_back() -> None:
    world = World()
    world.run(*[Load(batch_cores=2.0) for _ in range(3)])
    full = world.quota
    world.step(Load(batch_cores=2.0, stall_ratio=0.5))
    assert world.quota <= full / 2
    low, grown = world.quota, []
    for _ in range(30):
        world.step(Load(batch_cores=0.2))
        grown.append(world.quota)
    assert grown[0] == low
    assert grown == sorted(grown)
    assert grown[-1] == full
    assert max(b - a for a, b in pairwise(grown)) <= 0.05 * 8 + 0.05


@given(st.lists(st.tuples(st.one_of(st.none(), ratio), st.one_of(st.none(), ratio)), min_size=1, max_size=20))
def test_blindness_is_not_permission(readings: list[tuple[float | None, float | None]]) -> None:
    world = World()
    last = math.inf
    for stall, cores in readings:
        offered = world.memory.offer.cpu_cores
        decision = world.step(Load(stall_ratio=stall, ls_cores=cores))
        if stall is None or cores is None:
            assert world.quota <= last or math.isinf(last)
            assert decision.capacity.cpu.available <= offered
        last = world.quota


@settings(max_examples=60)
@given(ratio, ratio)
def test_more_stall_never_gives_batch_more(a: float, b: float) -> None:
    def at(stall: float) -> float:
        world = World()
        world.run(*[Load(batch_cores=1.0, stall_ratio=stall) for _ in range(6)])
        return world.quota

    low, high = sorted((a, b))
    assert at(high) <= at(low)


@settings(max_examples=60)
@given(st.lists(st.builds(Load, ls_cores=st.floats(0, 6), batch_cores=ratio, stall_ratio=ratio), max_size=15))
def test_batch_never_falls_below_its_floor_nor_above_the_node(loads: list[Load]) -> None:
    world = World()
    for load in loads:
        decision = world.step(load)
        assert decision.batch_limit_cores is None or 0.1 <= decision.batch_limit_cores <= 8.0
        assert valid(world.kernel.knobs)
    pods = [numeric(r.actual) for k, r in world.kernel.knobs.items() if k.kind is Kind.CPU_QUOTA]
    assert all(actual >= 0.02 for actual in pods)


@settings(max_examples=60)
@given(
    st.lists(
        st.builds(Load, ls_cores=st.one_of(st.none(), st.floats(0, 6)), batch_cores=ratio, steal_cores=ratio),
        max_size=15,
    ),
    st.sampled_from([1, 2, 4]),
)
def test_capacity_never_exceeds_what_online_and_reserve_leave(loads: list[Load], numa_nodes: int) -> None:
    world = World(numa_nodes=numa_nodes)
    last = 0.0
    for load in loads:
        c = world.step(load).capacity
        terms = {t.name: t.value for t in c.cpu.terms}
        left = (terms["total"] - terms["steal"]) * 0.95 - max(terms["system"], 0.0) - terms["online_now"]
        assert 0.0 <= c.cpu.available <= max(0.0, left) + 1e-9
        assert c.cpu.available <= last + 0.01 * 8 + 1e-9, "slow up"
        assert sum(z.cpu.available for z in c.zones) <= c.cpu.available + 1e-9
        assert sum(z.memory.available for z in c.zones) <= c.memory.available + 1e-3
        last = c.cpu.available


def test_an_input_that_stays_unknown_withdraws_the_offer_in_one_step() -> None:
    world = World()
    world.run(*[Load() for _ in range(100)])
    assert world.memory.offer.cpu_cores > 5.0
    gone = world.run(*[Load(ls_cores=None) for _ in range(12)])
    assert gone[0].capacity.cpu.available > 5.0
    assert "s old" in gone[-1].capacity.withdrawn
    assert gone[-1].capacity.cpu.available == 0.0
    assert gone[-1].capacity.confidence == 0.0


def test_steal_time_is_not_available() -> None:
    calm, robbed = World(), World()
    a = calm.run(*[Load() for _ in range(5)])[-1].capacity.cpu.computed
    b = robbed.run(*[Load(steal_cores=2.0) for _ in range(5)])[-1].capacity.cpu.computed
    assert a - b == pytest.approx(2.0 * 0.95, abs=0.01)


def test_lent_core_seconds_are_the_integral_of_what_batch_used() -> None:
    world = World(batch=2)
    lent = world.run(*[Load(batch_cores=0.5) for _ in range(11)])[-1].capacity.lent
    assert lent.used_core_s == pytest.approx(10.0)


def test_a_restart_takes_over_its_own_quota_without_a_jump() -> None:
    world = World()
    world.run(*[Load(batch_cores=1.0, stall_ratio=0.5) for _ in range(4)])
    before = {k: r.actual for k, r in world.kernel.knobs.items()}
    world.memory = Memory()  # killed; the knobs and the ledger stay
    world.step(Load(batch_cores=1.0))
    assert {k: r.actual for k, r in world.kernel.knobs.items()} == before


def _meddle(world: World, value: float) -> None:
    world.kernel.knobs[TIER] = replace(world.kernel.knobs[TIER], actual=value)


def test_a_foreign_write_is_answered_at_once_and_then_with_longer_and_longer_waits() -> None:
    world = World(policy=Policy(drift=DriftPolicy(backoff_s=2.0, backoff_max_s=60.0)))
    world.run(*[Load() for _ in range(3)])
    ours, answered = world.quota, []
    for _ in range(40):
        if world.quota == ours:
            _meddle(world, math.inf)
        world.step(Load())
        answered.append(world.quota == ours)
    assert answered[0]
    assert sum(answered) <= 6
    assert world.memory.drifts[0].count >= 4


def test_a_policy_of_yielding_leaves_a_foreign_value_for_good() -> None:
    world = World(policy=Policy(drift=DriftPolicy(on_drift=OnDrift.YIELD)))
    world.run(*[Load() for _ in range(3)])
    _meddle(world, 5.0)
    decisions = world.run(*[Load() for _ in range(20)])
    assert world.quota == 5.0
    assert decisions[-1].yielded == (TIER,)
    assert decisions[-1].drifts[0].count == 1


@given(st.sets(st.integers(0, 255)).map(CpuSet))
def test_cpu_lists_round_trip(cpus: CpuSet) -> None:
    assert CpuSet.parse(str(cpus)) == cpus


@pytest.mark.parametrize("text", ["x", "3-1", "1-99999999999", "-", "1--2", "٣", "0-70000"])
def test_a_garbled_cpu_list_is_a_value_error_and_never_a_huge_set(text: str) -> None:
    with pytest.raises(ValueError, match=r"CPU number|descending"):
        CpuSet.parse(text)
