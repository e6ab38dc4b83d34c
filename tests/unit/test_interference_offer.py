"""Confirmed interference shrinks the offer in the same tick, never enlarges it, and says so in figures."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.core import capacity
from nodeagent.core.decide import Thought, think
from nodeagent.core.explain import offer
from nodeagent.core.explain.ground import Ground
from nodeagent.model.capacity import Capacity
from nodeagent.model.decision import Memory, Tick
from nodeagent.model.directive import Hold
from nodeagent.model.explanation import Explanation
from nodeagent.model.interference import Episode, Interference, State
from nodeagent.model.interference_policy import InterferencePolicy
from nodeagent.model.policy import CapacityPolicy, Policy
from nodeagent.model.snapshot import Snapshot
from tests.unit import samples
from tests.unit.interference_samples import at, episode
from tests.unit.metric_pages import page, values
from tests.unit.test_directives import Directed
from tests.unit.test_explain import checked, loads, named
from tests.unit.world import Load, World

HURT = episode(1, state=State.CONFIRMED)


def disturbed(*episodes: Episode) -> Interference:
    return Interference(episodes=episodes)


def hurt(seen: Snapshot, policy: Policy, before: Memory) -> tuple[Thought, Thought]:
    """The tick as it is while nobody is disturbed, and while HURT is open."""
    thought = think(seen, policy, before)

    def while_open(found: Interference) -> Thought:
        shrink = capacity.shrink(found, policy.interference)
        bounds = capacity.Bounds(thought.batch, thought.within, thought.orders, shrink)
        offered = capacity.assess(thought.sight.view, thought.use, thought.formula, before, bounds)
        return replace(thought, offered=offered, interference=found)

    return while_open(disturbed()), while_open(disturbed(HURT))


def offers(found: Capacity) -> list[float]:
    zones = [amount for z in found.zones for amount in (z.cpu.available, z.cpu.computed)]
    return [found.cpu.available, found.cpu.computed, *zones]


def explained(seen: Snapshot, policy: Policy, before: Memory, thought: Thought) -> Explanation:
    decided = replace(samples.decision(seen), capacity=thought.offered.capacity)
    ground = Ground(Tick(seen, decided), policy, before, thought)
    return Explanation(seen.seq, seen.unix, "offer", tuple(offer.reasons(ground)))


policies = st.builds(
    Policy,
    capacity=st.builds(
        CapacityPolicy,
        reserved_cpu_cores=st.floats(0.0, 2.0),
        warm_after_s=st.sampled_from([0.0, 600.0]),
        raise_ratio_per_s=st.sampled_from([0.01, 1.0]),
    ),
    interference=st.builds(InterferencePolicy, offer_ratio=st.floats(0.0, 1.0)),
)
holds = st.one_of(st.none(), st.floats(0.0, 10.0).map(Hold))


@settings(max_examples=120, deadline=None)
@given(policies, st.lists(loads, min_size=1, max_size=8), st.sampled_from([1, 2]), holds)
def test_it_is_never_more_than_without_and_the_arithmetic_gives_it(
    policy: Policy, history: list[Load], numa_nodes: int, hold: Hold | None
) -> None:
    world = Directed(policy=policy, numa_nodes=numa_nodes)
    world.run(*history[:-1])
    if hold is not None:
        world.order(hold)
    seen, before = world.snapshot(history[-1]), world.memory
    calm, shrunk = hurt(seen, policy, before)
    without, found = calm.offered.capacity, shrunk.offered.capacity
    ratio = policy.interference.offer_ratio
    for less, more in zip(offers(found), offers(without), strict=True):
        assert less <= more + 1e-9
    assert found.cpu.computed <= without.cpu.computed
    if hold is None:
        assert found.cpu.computed == pytest.approx(without.cpu.computed * ratio)
    assert sum(z.cpu.available for z in found.zones) <= found.cpu.available + 1e-9
    assert found.memory == without.memory
    told = explained(seen, policy, before, shrunk)
    assert checked(told) >= 2 * (2 + 2 * numa_nodes)
    assert "interference_ratio" in named(told)["cpu.computed"].rule
    assert "interference_ratio" in named(told)["zone.0.cpu.computed"].rule


def test_the_offer_falls_in_the_tick_that_confirms_it_and_rises_slowly_afterwards() -> None:
    world = World(policy=Policy(capacity=CapacityPolicy(raise_ratio_per_s=0.01)))
    world.run(*[Load()] * 60)
    seen, before = world.snapshot(Load()), world.memory
    calm, shrunk = hurt(seen, world.policy, before)
    was, now = (t.offered.capacity.cpu.available for t in (calm, shrunk))
    assert was < calm.offered.capacity.cpu.computed - 1.0, "it is still on its way up"
    assert now == pytest.approx(was / 2)
    told = named(explained(seen, world.policy, before, shrunk))["cpu.available"]
    assert told.why == "shrunk: online work is disturbed" and "calm_offer" in told.rule
    world.memory = replace(before, previous=seen, offer=shrunk.offered.offer)
    (after,) = world.run(Load())
    assert after.capacity.cpu.available == pytest.approx(now + 0.08)


def test_the_victim_is_named_in_the_reason_and_a_crowd_is_counted() -> None:
    policy = InterferencePolicy(offer_ratio=0.25)
    crowd = [replace(HURT, id=str(n), victim_name=f"web-{n}") for n in range(5)]
    one, many = (capacity.shrink(disturbed(*e), policy) for e in ([HURT], crowd))
    assert one is not None and many is not None and one.value == 0.25
    assert one.source == "policy: interference.offer_ratio, while search-7 is disturbed"
    assert "while web-0, web-1, web-2 +2 is disturbed" in many.source


def test_what_is_only_suspected_or_over_or_calm_again_shrinks_nothing() -> None:
    over = [
        replace(HURT, state=State.SUSPECT),
        replace(HURT, state=State.CALM),
        replace(HURT, cleared_unix=at(3)),
    ]
    assert capacity.shrink(disturbed(*over), InterferencePolicy()) is None
    assert capacity.shrink(Interference(), InterferencePolicy()) is None


def test_the_metrics_show_the_share_that_is_left() -> None:
    world = World()
    world.run(*[Load()] * 3)
    seen, before = world.snapshot(Load()), world.memory
    for thought, left in zip(hurt(seen, world.policy, before), (1.0, 0.5), strict=True):
        decided = replace(samples.decision(seen), capacity=thought.offered.capacity)
        text = page(Tick(seen, decided))
        assert values(text, "nodeagent_offline_interference_ratio") == {"": left}
        assert "term=interference_ratio" not in values(text, "nodeagent_offline_cpu_term_cores")
