"""Bursts of LS pods with a quota: who gets how much more, for how long, and who never does."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.core.decide import decide
from nodeagent.core.diff import diff
from nodeagent.model.decision import Memory
from nodeagent.model.plan import Kind, Knob
from nodeagent.model.pod import Qos
from nodeagent.model.policy import BurstPolicy, Policy
from tests.unit.limited_pods import APP, UNKNOWN, Limited

CALM = 0.2
demand = st.floats(0.0, 8.0)
maybe_demand = st.one_of(demand, st.just(UNKNOWN))
quotas = st.lists(st.integers(10, 400).map(lambda n: n / 100), min_size=1, max_size=4)
EPSILON = 1e-4  # counters are in us


def _policy(**values: float) -> Policy:
    return Policy(burst=BurstPolicy(**values))


def test_a_throttled_pod_gets_what_it_was_held_back_from_and_gives_it_back_when_calm() -> None:
    node = Limited([1.0])
    node.step([CALM])
    node.step([1.7])
    assert node.extra(0) == pytest.approx(0.7, abs=0.01)
    for _ in range(6):
        node.step([CALM])
    assert node.extra(0) == 0.0
    assert not node.kernel.knobs[Knob(Kind.CPU_QUOTA, node.paths[0])].held


def test_the_quota_stays_up_between_two_bursts_of_load() -> None:
    node = Limited([1.0], _policy(hold_s=5.0))
    node.step([CALM])
    seen = []
    for tick in range(30):
        node.step([1.5 if tick % 4 == 0 else CALM])
        seen.append(node.extra(0))
    assert min(seen) == max(seen) > 0.0


def test_nobody_gets_more_than_the_most_of_the_policy() -> None:
    node = Limited([1.0, 2.0], _policy(max_ratio=3.0))
    for _ in range(5):
        node.step([9.0, 9.0])
    assert node.extra(0) <= 2.0
    assert node.extra(1) <= 4.0


def test_a_budget_that_is_used_up_ends_the_burst_and_what_is_left_unused_earns_the_next_one() -> None:
    node = Limited([1.0], _policy(budget_s=5.0, hold_s=0.0))
    node.step([CALM])
    quotas = []
    for _ in range(12):
        node.step([2.0])
        quotas.append(node.extra(0))
    assert max(quotas) == pytest.approx(1.0)
    assert quotas[-1] == 0.0, "5 core-seconds are gone"
    for _ in range(4):
        node.step([0.0])
    node.step([2.0])
    assert node.extra(0) > 0.0


def test_throttled_pods_share_the_room_by_need_and_none_is_reset_for_another() -> None:
    node = Limited([2.0, 2.0, 2.0], _policy(room_ratio=1.0), cores=10)
    node.step([CALM] * 3)
    *_, decision = (node.step([2.2, 4.0, 4.0], web=1.0) for _ in range(4))
    small, *large = (node.extra(n) for n in range(3))
    assert small == pytest.approx(0.4, abs=0.25), "who needs little gets it whole"
    assert large[0] == pytest.approx(large[1], abs=0.02)
    assert 0.8 < large[0] < 1.2, "2.5 cores of room"
    assert "shares the room" in node.settings(decision, Kind.CPU_QUOTA)[node.paths[1]].why


def test_without_room_nobody_bursts_and_the_batch_limit_does_not_count_as_room_taken() -> None:
    full = Limited([1.0], cores=8)
    for _ in range(4):
        full.step([1.8], web=7.0)
    assert full.extra(0) == 0.0
    idle = Limited([1.0], cores=8)
    for _ in range(4):
        idle.step([1.8], web=1.0)
    assert idle.extra(0) > 0.0


def test_a_burst_shrinks_at_once_when_online_work_takes_the_room() -> None:
    node = Limited([2.0], _policy(room_ratio=1.0), cores=8)
    for _ in range(4):
        node.step([3.9], web=1.0)
    before = node.extra(0)
    node.step([3.9], web=5.0)
    assert 0.0 < node.extra(0) < before


def test_a_container_with_a_quota_of_its_own_bursts_with_its_pod() -> None:
    node = Limited([2.0], inner=1.0)
    app = f"{node.paths[0]}/{APP}"
    node.step([CALM])
    decision = node.step([1.6])
    assert node.quota(app) == pytest.approx(1.6, abs=0.01)
    assert node.extra(0) == pytest.approx(0.6, abs=0.01)
    assert "with its pod" in node.settings(decision, Kind.CPU_QUOTA)[app].why
    for _ in range(8):
        node.step([CALM])
    assert (node.quota(app), node.quota(node.paths[0])) == (1.0, 2.0)


def test_every_limited_ls_cgroup_gets_the_kernels_burst_as_far_as_its_own_quota() -> None:
    node = Limited([2.0, math.inf], inner=1.0, policy=_policy(kernel_ratio=0.5))
    bursts = node.settings(node.step([CALM, CALM]), Kind.CPU_BURST)
    assert {path: s.value for path, s in bursts.items()} == {
        node.paths[0]: 1.0,
        f"{node.paths[0]}/{APP}": 0.5,
    }
    off = Limited([2.0], policy=_policy(kernel_ratio=0.0))
    assert not off.settings(off.step([CALM]), Kind.CPU_BURST)


def test_a_larger_burst_of_the_operators_is_not_made_smaller() -> None:
    node = Limited([2.0], policy=_policy(kernel_ratio=0.25))
    knob = Knob(Kind.CPU_BURST, node.paths[0])
    node.kernel.knobs[knob] = replace(node.kernel.knobs[knob], actual=1.5)
    node.step([CALM])
    assert node.kernel.knobs[knob].actual == 1.5


@pytest.mark.parametrize("qos", [Qos.MID, Qos.BATCH])
def test_no_other_class_ever_bursts_even_where_its_knobs_are_read(qos: Qos) -> None:
    node = Limited([1.0], qos=qos)
    for _ in range(5):
        decision = node.step([3.0])
        assert all(s.value == 0.0 for s in node.settings(decision, Kind.CPU_BURST).values())
        assert node.extra(0) <= 0.0
        assert all(s.by != "burst" or s.knob.kind is Kind.CPU_BURST for s in decision.plan)


def test_a_burst_that_somebody_gave_to_batch_does_not_hold_its_quota_up_and_comes_back() -> None:
    node = Limited([4.0], qos=Qos.BATCH, cores=4)
    knob = Knob(Kind.CPU_BURST, node.paths[0])
    node.kernel.knobs[knob] = replace(node.kernel.knobs[knob], actual=4.0)
    node.kernel.tie(knob.target)
    for _ in range(4):
        node.step([4.0], web=3.5)
    assert node.kernel.knobs[knob].actual == 0.0
    assert node.quota(node.paths[0]) < 1.0
    node.kernel.run(diff({}, node.kernel.knobs.values()))
    assert (node.kernel.knobs[knob].actual, node.quota(node.paths[0])) == (4.0, 4.0)


def test_a_pod_outside_the_scope_is_left_alone() -> None:
    node = Limited([1.0], replace(Policy(), scope=("nodeagent/batch/**",)))
    for _ in range(4):
        assert all(s.by != "burst" for s in node.step([3.0]).plan)


def test_a_quota_that_somebody_else_has_changed_meanwhile_is_theirs() -> None:
    node = Limited([1.0])
    knob = Knob(Kind.CPU_QUOTA, node.paths[0])
    node.step([CALM])
    node.step([2.0])
    assert node.kernel.knobs[knob].held
    node.kernel.knobs[knob] = replace(node.kernel.knobs[knob], actual=4.0)
    node.kernel.tie(knob.target)
    decision = node.step([5.0])
    assert knob.target not in node.settings(decision, Kind.CPU_QUOTA)
    assert node.quota(node.paths[0]) == 4.0
    assert not diff({s.knob: s for s in decision.plan}, node.kernel.knobs.values())


def test_meddling_with_the_quota_earns_no_new_budget() -> None:
    node = Limited([1.0], _policy(budget_s=5.0))
    knob = Knob(Kind.CPU_QUOTA, node.paths[0])
    node.step([CALM])
    for tick in range(30):
        node.step([2.0])
        if tick % 3 == 0 and node.extra(0) > 0.0:  # as systemd's daemon-reload does
            node.kernel.knobs[knob] = replace(node.kernel.knobs[knob], actual=1.0)
            node.kernel.tie(knob.target)
    used = node.used_us[0] / 1e6
    assert used <= 30 + CALM + 5.0 + EPSILON * 30
    assert node.extra(0) == 0.0


def test_a_restart_goes_on_with_what_the_last_run_wrote() -> None:
    node = Limited([1.0])
    for _ in range(3):
        node.step([1.8])
    before = node.extra(0)
    node.memory = Memory()
    node.step([1.8])
    assert node.extra(0) == before > 0.0


@settings(max_examples=60, deadline=None)
@given(quotas, st.lists(st.tuples(demand, st.floats(0.0, 20.0)), max_size=25), st.floats(0.0, 8.0))
def test_over_time_no_pod_uses_more_than_its_quota_and_one_budget(
    own: list[float], history: list[tuple[float, float]], budget_s: float
) -> None:
    node = Limited(own, _policy(budget_s=budget_s))
    first = [0] * len(own)
    for tick, (wanted, web) in enumerate(history):
        node.step([wanted] * len(own), web)
        if tick == 0:
            first = list(node.used_us)
        for n, cores in enumerate(own):
            used = (node.used_us[n] - first[n]) / 1e6
            assert used <= cores * (tick + budget_s) + EPSILON * (tick + 1)


@settings(max_examples=60, deadline=None)
@given(quotas, st.lists(st.tuples(maybe_demand, st.floats(0.0, 20.0)), max_size=20))
def test_all_bursts_together_fit_in_the_room_and_each_within_its_most(
    own: list[float], history: list[tuple[float, float]]
) -> None:
    node = Limited(own)
    last, blind = 0.0, False
    for wanted, web in history:
        node.step([wanted] * len(own), web)
        blind, was_blind = wanted == UNKNOWN, blind
        extras = [node.extra(n) for n in range(len(own))]
        assert all(-EPSILON <= e <= c + EPSILON for e, c in zip(extras, own, strict=True))
        base = sum(min(wanted, c) for c in own) if wanted != UNKNOWN else 0.0
        room = 0.5 * max(0.0, 16 * 0.95 - web - base)
        assert sum(extras) <= max(room, last if blind or was_blind else 0.0) + EPSILON * 16
        last = sum(extras)


@settings(max_examples=60, deadline=None)
@given(quotas, st.lists(st.tuples(maybe_demand, maybe_demand), max_size=20))
def test_blindness_never_raises_a_quota(own: list[float], history: list[tuple[float, float]]) -> None:
    node = Limited(own)
    for _ in range(2):  # a rate takes two readings
        node.step([CALM] * len(own))
    seen = True
    for wanted, other in history:
        before = [node.extra(n) for n in range(len(own))]
        node.step([wanted, *[other] * (len(own) - 1)])
        seen, had_seen = wanted != UNKNOWN, seen
        if not (seen and had_seen):
            assert all(node.extra(n) <= before[n] for n in range(len(own))), "online use is not known"


@settings(max_examples=40, deadline=None)
@given(quotas, st.lists(st.lists(maybe_demand, min_size=4, max_size=4), max_size=15))
def test_stopping_restores_every_quota_and_burst(own: list[float], history: list[list[float]]) -> None:
    node = Limited(own, inner=min(0.1, own[0]))
    before = {k: r.actual for k, r in node.kernel.knobs.items()}
    for demands in history:
        node.step(demands[: len(own)])
    node.kernel.run(diff({}, node.kernel.knobs.values()))
    assert {k: r.actual for k, r in node.kernel.knobs.items()} == before


@settings(max_examples=30, deadline=None)
@given(quotas, st.lists(st.tuples(maybe_demand, st.floats(0.0, 20.0)), max_size=15))
def test_bursts_can_be_replayed_from_what_was_recorded(
    own: list[float], history: list[tuple[float, float]]
) -> None:
    node = Limited(own, inner=0.05)
    for wanted, web in history:
        seen = node.snapshot([wanted] * len(own), web)
        again = msgspec.msgpack.decode(msgspec.msgpack.encode(seen), type=type(seen))
        memory = msgspec.msgpack.decode(msgspec.msgpack.encode(node.memory), type=Memory)
        direct = decide(seen, node.policy, node.memory)
        assert decide(again, node.policy, memory) == direct
        node.memory = direct[1]
        node.kernel.run(diff({s.knob: s for s in direct[0].plan}, node.kernel.knobs.values()))
