"""Explanations: what is shown can be evaluated, and gives the value that was decided."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.core.decide import decide
from nodeagent.core.diff import diff
from nodeagent.core.explain import Told
from nodeagent.model.decision import Tick
from nodeagent.model.directive import Hold, Lend, Order, Recall
from nodeagent.model.explanation import Explanation, Reason
from nodeagent.model.plan import Outcome
from nodeagent.model.pod import Qos
from nodeagent.model.policy import BurstPolicy, CapacityPolicy, CpuPolicy, DriftPolicy, OnDrift, Policy
from tests.unit import samples
from tests.unit.limited_pods import Limited
from tests.unit.seated_node import ON, Node
from tests.unit.test_directives import BEGIN, Directed
from tests.unit.world import TIER, Load, World

SUMS = re.compile(r"[-+*/(). ,0-9einfmax]+")  # what a law in numbers is made of
RESULT = re.compile(r"(-?[0-9.e+-]+)(?: (cores|GiB|MiB|s))?")
INF = {"min": min, "max": max, "inf": math.inf, "__builtins__": {}}


def checked(found: Explanation) -> int:
    """AssertionError where the arithmetic of a reason does not give its result; how many there were."""
    count = 0
    for each in found.reasons:
        match = RESULT.fullmatch(each.result) or re.fullmatch("(no limit)", each.result)
        if match is None or not each.arithmetic or not SUMS.fullmatch(each.arithmetic):
            continue
        value = eval(each.arithmetic, INF)
        told = math.inf if match[1] == "no limit" else float(match[1])
        assert value == pytest.approx(told, rel=0.001, abs=0.003), f"{each.name}: {each.arithmetic}"
        names = set(re.findall(r"[a-z_]+", each.rule)) - {"min", "max"}
        assert names <= {i.name for i in each.inputs}, f"{each.name}: an input is not told: {each.rule}"
        count += 1
    return count


def steps(world: World, *loads: Load) -> Iterator[tuple[Tick, Told]]:
    """Each tick of the world with its account, as the agent has it."""
    for load in loads:
        seen, before = world.snapshot(load), world.memory
        decision, world.memory = decide(seen, world.policy, before)
        plan = {s.knob: s for s in decision.plan}
        changes = diff(plan, seen.knobs, decision.yielded)
        world.kernel.run(changes)
        tick = Tick(seen, decision, changes, tuple(Outcome(c, c.new) for c in changes))
        yield tick, Told(tick, world.policy, before)


def named(found: Explanation) -> dict[str, Reason]:
    return {each.name: each for each in found.reasons}


ratio = st.floats(0.0, 1.0)
maybe = st.one_of(st.none(), st.floats(0.0, 3.0))
loads = st.builds(
    Load, ls_cores=maybe, batch_cores=maybe, stall_ratio=st.one_of(st.none(), ratio), steal_cores=ratio
)
policies = st.builds(
    Policy,
    capacity=st.builds(
        CapacityPolicy,
        reserved_cpu_cores=st.floats(0.0, 2.0),
        warm_after_s=st.sampled_from([0.0, 3.0, 600.0]),
        raise_ratio_per_s=st.sampled_from([0.01, 0.5, 1.0]),
    ),
    cpu=st.builds(CpuPolicy, recover_jitter_s=st.just(0.0), recover_after_s=st.sampled_from([0.0, 2.0])),
)


@settings(max_examples=150, deadline=None)
@given(policies, st.lists(loads, min_size=1, max_size=10), st.integers(0, 4), st.sampled_from([1, 2]))
def test_the_arithmetic_of_every_reason_gives_its_result(
    policy: Policy, history: list[Load], batch: int, numa_nodes: int
) -> None:
    world = World(policy=policy, batch=batch, numa_nodes=numa_nodes)
    for tick, told in steps(world, *history):
        offered = told.capacity()
        assert checked(offered) >= 2 * (2 + 2 * numa_nodes)
        reasons = named(offered)
        assert reasons["cpu.available"].result == f"{_figure(tick.decision.capacity.cpu.available)} cores"
        if tick.decision.batch_limit_cores is not None:
            assert reasons["batch.limit"].result == f"{_figure(tick.decision.batch_limit_cores)} cores"
            assert reasons["batch.limit"].arithmetic
        for pod in tick.snapshot.pods:
            checked(told.pod(pod.spec.uid))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 8.0), st.floats(0.0, 8.0)), min_size=2, max_size=12))
def test_the_arithmetic_of_a_burst_gives_its_quota(demands: list[tuple[float, float]]) -> None:
    node = Limited([2.0, 1.0], inner=1.0, policy=Policy(burst=BurstPolicy(budget_s=5.0)))
    for demand in demands:
        before, seen = node.memory, node.snapshot(demand, 0.5)
        decision, node.memory = decide(seen, node.policy, before)
        changes = diff({s.knob: s for s in decision.plan}, seen.knobs, decision.yielded)
        node.kernel.run(changes)
        told = Told(Tick(seen, decision, changes), node.policy, before)
        for pod in seen.pods:
            found = told.pod(pod.spec.uid)
            checked(found)
            for setting in decision.plan:
                if setting.knob.target == pod.spec.cgroup:
                    assert str(setting.knob) in named(found)


orders = st.one_of(
    st.builds(Hold, cpu_cores=st.floats(0.0, 10.0), memory_bytes=st.one_of(st.none(), st.integers(0, 2**36))),
    st.just(Lend()),
    st.floats(-2.0, 8.0).map(lambda left_s: Recall(BEGIN + left_s)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(loads, st.lists(orders, max_size=2, unique_by=type)), min_size=1, max_size=10))
def test_what_directives_do_is_in_the_arithmetic(history: list[tuple[Load, list[Order]]]) -> None:
    world = Directed(numa_nodes=2)
    for load, ordered in history:
        world.order(*ordered)
        for tick, told in steps(world, load):
            offered = told.capacity()
            assert checked(offered) >= 12
            reasons = named(offered)
            if tick.decision.batch_limit_cores is not None:
                limit = reasons["batch.limit"]
                assert (
                    limit.result == f"{_figure(tick.decision.batch_limit_cores)} cores" and limit.arithmetic
                )
            for pod in tick.snapshot.pods:
                checked(told.pod(pod.spec.uid))


def test_a_recall_is_told_as_a_line_that_falls() -> None:
    world = Directed()
    list(steps(world, *[Load()] * 3))
    world.order(Recall(world.now + 8.0))
    *_, (_, told) = steps(world, *[Load()] * 3)
    found = named(told.capacity())
    assert found["batch.roof"].rule == "floor + max(0, last - floor) * left_s / span_s"
    assert found["batch.limit"].rule == "roof"
    assert found["cpu.available"].why == "withdrawn: recalled by directive the-recall of uid:0"


def test_a_hold_is_told_in_the_offer_and_in_the_limit() -> None:
    world = Directed()
    world.order(Hold(cpu_cores=1.5))
    *_, (_, told) = steps(world, *[Load()] * 3)
    found = named(told.capacity())
    assert found["cpu.computed"].result == "1.5 cores" and "hold" in found["cpu.computed"].rule
    assert found["batch.roof"].why == "hold at 1.5 cores: directive the-hold of uid:0"


def test_a_batch_pod_s_quota_is_told_from_the_limit_to_what_the_kernel_has() -> None:
    world = World(batch=2)
    *_, (tick, told) = steps(world, *[Load()] * 3, Load(ls_cores=4.0))
    found = named(told.pod("nodeagent/batch/pod1"))
    assert list(found)[:4] == ["batch.ceiling", "batch.limit", "batch.shared", "cpu.quota nodeagent/batch"]
    quota = found["cpu.quota nodeagent/batch/pod1"]
    assert quota.by == "cpu_quota" and quota.read_back
    assert found["cpu.share nodeagent/batch/pod1"].arithmetic.startswith("min(")
    assert found["batch.ceiling"].rule.startswith("max(0, total * ceiling_ratio")
    written = {str(c.knob): told_value(c.new) for c in tick.changes}
    for name, each in found.items():
        if name.startswith("cpu."):
            assert each.written == written.get(name, ""), name
            assert ("before" in {i.name for i in each.inputs}) == (name in written)
    assert written


def test_pressure_is_told_as_a_halving() -> None:
    *_, (_, told) = steps(World(), *[Load()] * 3, Load(stall_ratio=0.9))
    limit = named(told.capacity())["batch.limit"]
    assert "/ 2" in limit.arithmetic and limit.why == "pod0 waits 90% of the time (PSI cpu some)"


def test_a_limited_ls_pod_that_does_not_burst_is_told_why_not() -> None:
    node = Limited([2.0], policy=Policy(burst=BurstPolicy(budget_s=2.0)))
    seen_whys = []
    for demand in [1.0, 1.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0]:
        before, seen = node.memory, node.snapshot([demand], 0.5)
        decision, node.memory = decide(seen, node.policy, before)
        changes = diff({s.knob: s for s in decision.plan}, seen.knobs, decision.yielded)
        node.kernel.run(changes)
        found = named(Told(Tick(seen, decision, changes), node.policy, before).pod("nodeagent/ls/pod0"))
        quota, none = (found.get(f"{kind} nodeagent/ls/pod0") for kind in ("cpu.quota", "burst"))
        bursting = quota is not None and quota.by == "burst"
        assert bursting == (none is None)
        seen_whys.append(none.why if none is not None else f"= {quota.arithmetic if quota else ''}")
    assert seen_whys[1] == "it is not throttled"
    assert any(why.startswith("= 2 + ") for why in seen_whys)
    assert "its budget is used up; what it leaves unused of its limit is saved up" in seen_whys


def test_places_are_told_with_what_was_asked_for() -> None:
    node = Node()
    node.run(3)
    before, seen = node.memory, node._snapshot()
    decision, _ = decide(seen, ON, before)
    told = Told(Tick(seen, decision), ON, before)
    bound, shared, batch = (named(told.pod(pod.spec.uid)) for pod in seen.pods)
    place = bound["placement"]
    assert place.result.startswith("bound: CPUs ") and place.inputs[0].value == "CPUs of its own"
    assert shared["placement"].result.startswith("shared: CPUs ")
    sets = bound["cpuset.cpus nodeagent/ls/pod1"]
    assert sets.result == sets.read_back == f"CPUs {place.result.split()[2].rstrip(',')}"
    assert sets.rule == "bound: whole cores of its own"
    assert "cpuset.cpus nodeagent/batch" in batch and "cpuset.mems nodeagent/batch/pod3" in batch
    computed = named(told.capacity())["cpu.computed"]
    assert "reach" in {i.name for i in computed.inputs} and checked(told.capacity()) > 8


def test_what_somebody_else_wrote_is_told_as_theirs() -> None:
    world = World(policy=Policy(drift=DriftPolicy(on_drift=OnDrift.YIELD)))
    list(steps(world, *[Load()] * 2))
    world.kernel.knobs[TIER] = replace(world.kernel.knobs[TIER], actual=8.0)
    *_, (_, told) = steps(world, Load())
    tier = named(told.pod("nodeagent/batch/pod1"))["cpu.quota nodeagent/batch"]
    assert (tier.written, tier.read_back) == ("", "8 cores")
    assert "nothing is written: somebody else wrote 8 cores, once by now, and drift.on_drift" in tier.why


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"hands_off": True}, "nothing is written because the pod is marked hands_off"),
        (
            {"cgroup": "kubepods/pod0"},
            "nothing is written because its cgroup kubepods/pod0 matches no glob of scope = nodeagent/**",
        ),
        ({}, "nothing is written because its cgroup has no file that may be set: no cpu controller there"),
    ],
)
def test_a_pod_of_which_nothing_is_written_is_told_why(change: dict[str, object], why: str) -> None:
    pod = samples.pod(0, 1000.0, qos=Qos.LS)
    pod = replace(pod, spec=replace(pod.spec, **change))
    seen = samples.snapshot(0, pods=(pod,))
    world = World()
    decision, _ = decide(seen, world.policy, world.memory)
    found = Told(Tick(seen, decision), world.policy, world.memory).pod(pod.spec.uid)
    assert named(found)["pod"].why == why


def test_writes_that_are_only_planned_are_told_so() -> None:
    world = World()
    seen, before = world.snapshot(Load()), world.memory
    decision, _ = decide(seen, world.policy, before)
    changes = diff({s.knob: s for s in decision.plan}, seen.knobs)
    _, memory = decide(seen, world.policy, before)
    seen = world.snapshot(Load())
    decision, _ = decide(seen, world.policy, memory)
    changes = diff({s.knob: s for s in decision.plan}, seen.knobs)
    tier = named(Told(Tick(seen, decision, changes), world.policy, memory).pod("nodeagent/batch/pod1"))[
        str(TIER)
    ]
    assert tier.written == "" and tier.read_back == "no limit"
    assert "planned only" in tier.why


def test_a_withdrawn_offer_says_why() -> None:
    *_, (_, told) = steps(World(), Load(ls_cores=None))
    available = named(told.capacity())["cpu.available"]
    assert available.result == "0 cores" and available.why.startswith("withdrawn: ")


def test_an_unknown_pod_is_a_key_error() -> None:
    *_, (_, told) = steps(World(), Load())
    with pytest.raises(KeyError):
        told.pod("nobody")


def told_value(value: object) -> str:
    assert isinstance(value, float)
    return f"{_figure(value)} cores"


def _figure(value: float) -> str:
    from nodeagent.core.explain.law import figure

    return figure(value)
