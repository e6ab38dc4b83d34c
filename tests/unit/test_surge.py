"""The fast lane's mind: who waited in the last moment, and whether a tick comes early for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.core import rise, surge, waits
from nodeagent.core.decide import decide
from nodeagent.core.limit import HALVE_GAP_S
from nodeagent.core.surge import Look, Trail, began, lately, noted, share
from nodeagent.core.usage import NODE
from nodeagent.model.decision import BatchLimit, Decision, KnownUse, Memory, Wait
from nodeagent.model.pod import Qos
from nodeagent.model.policy import Policy, PressurePolicy
from nodeagent.model.snapshot import Pod, Stall, Stalled
from tests.unit import samples

POLICY = Policy()
UID = "nodeagent/ls/pod0"
HURT = Stalled(UID, 0.2, 0.1)
us = st.integers(0, 300_000)
steps = st.lists(st.tuples(st.floats(0.02, 0.5), us, us), min_size=1, max_size=8)


def trail(*looks: tuple[float, int]) -> Trail:
    """Looks at (seconds, us waited)."""
    made: Trail = ()
    for at, waited_us in looks:
        made = noted(made, Look(at, waited_us))
    return made


def walked(moves: list[tuple[float, int, int]]) -> tuple[list[Look], Trail]:
    """Looks at a pod and above it: after each pause the pod has waited some us, and others some."""
    at, mine, all_us = 100.0, 0, 0
    looks, above = [Look(at, 0)], trail((at, 0))
    for pause_s, wanted, others in moves:
        at, pause_us = at + pause_s, int(pause_s * 1e6)
        own = min(wanted, pause_us)
        mine += own
        all_us += min(pause_us, own + others)
        looks.append(Look(at, mine, all_us))
        above = noted(above, Look(at, all_us))
    return looks, above


def test_a_surge_counts_over_the_moment_however_calm_the_second_before_was() -> None:
    calm_then_not = trail((1.0, 0), (1.7, 0), (1.8, 0), (1.9, 100_000))
    assert lately(calm_then_not) == pytest.approx((0.2, 0.1))
    assert share(*lately(calm_then_not) or (1.0, 0.0)) == pytest.approx(0.4)


def test_a_tenth_of_a_second_is_no_moment_on_its_own() -> None:
    assert share(0.1, 0.05) == share(waits.SPAN_S, 0.05) == pytest.approx(0.2)


def test_who_was_not_looked_at_before_the_moment_waited_no_longer_than_all_above_it() -> None:
    above = trail((1.0, 0), (1.7, 30_000), (1.8, 30_000), (1.9, 120_000))
    pod = (Look(1.0, 0, 0), Look(1.9, 100_000, 120_000))
    assert lately(pod, began(above)) == pytest.approx((0.2, 0.07)), "30 ms may have been before"


def test_one_look_tells_nothing() -> None:
    assert lately(()) is None
    assert lately((Look(1.0, 5),)) is None


def test_time_that_its_own_quota_took_is_not_held_against_batch() -> None:
    stopped = (Look(1.0, 0, 0, 0), Look(1.1, 90_000, 0, 80_000))
    assert lately(stopped) == pytest.approx((0.1, 0.01))


def test_a_container_that_is_gone_with_its_throttling_makes_no_surge() -> None:
    restarted = (Look(1.0, 0, 0, 9_000_000), Look(1.1, 1_000, 0, 0))
    assert lately(restarted) == pytest.approx((0.1, 0.001))


@given(steps, us)
def test_more_waiting_is_never_less_of_a_surge(moves: list[tuple[float, int, int]], more: int) -> None:
    looks, above = walked(moves)
    made: Trail = ()
    for look in looks:
        made = noted(made, look)
    last = made[-1]
    found = lately(made, began(above))
    longer = lately((*made[:-1], last._replace(waited_us=last.waited_us + more)), began(above))
    assert found is not None and longer is not None
    assert share(*longer) >= share(*found)
    for usual in (None, Wait(1.0, 0.1, "")):
        grave = surge.grave(Stalled(UID, *found), usual, 0.2)
        assert surge.grave(Stalled(UID, *longer), usual, 0.2) >= grave


@given(steps, st.data())
def test_what_was_not_looked_at_never_makes_a_surge_where_looking_would_have_shown_none(
    moves: list[tuple[float, int, int]], data: st.DataObject
) -> None:
    looks, above = walked(moves)
    start = next(at for at, *_ in above if looks[-1].at - at <= waits.SPAN_S or at == above[-2].at)
    true_us = looks[-1].waited_us - next(look for look in looks if look.at >= start).waited_us
    made: Trail = ()
    for look in [looks[0], *(x for x in looks[1:-1] if data.draw(st.booleans())), looks[-1]]:
        made = noted(made, look)
    found = lately(made, began(above))
    assert found is not None
    if made[-2].at <= start:
        assert found[1] <= true_us / 1e6 + 1e-9


@given(steps)
def test_nobody_below_waits_longer_than_the_gate_says(moves: list[tuple[float, int, int]]) -> None:
    looks, above = walked(moves)
    made: Trail = ()
    for look in looks:
        made = noted(made, look)
    pod, gate = lately(made, began(above)), lately(above)
    assert pod is not None and gate is not None
    assert pod[1] <= gate[1] + 1e-9


def test_a_trail_stays_short() -> None:
    made: Trail = ()
    for number in range(1000):
        made = noted(made, Look(number / 10, number))
    assert len(made) <= 4


def _seen(at: float, waited_us: int) -> tuple[Pod, ...]:
    pod = samples.pod(0, at, qos=Qos.LS, containers=0)
    return (replace(pod, reading=replace(pod.reading, cpu_stall=Stall(waited_us))),)


def _early(
    *stalled: Stalled, waited_us: int = 100_000, outside_cores: float | None = None
) -> tuple[Decision, Memory]:
    """A calm second, and 0.9 s later a tick before its time."""
    memory = Memory()
    for seq, (at, waited) in enumerate([(1000.0, 0), (1001.0, 0)]):
        _, memory = decide(samples.snapshot(seq, at, pods=_seen(at, waited)), POLICY, memory)
    at = 1001.9
    early = replace(
        samples.snapshot(2, at, pods=_seen(at, waited_us)),
        stalled=stalled,
        outside_cores=outside_cores,
        woken_by="pressure",
    )
    return decide(early, POLICY, memory)


def test_an_early_tick_cuts_batch_for_a_surge_that_is_thin_over_the_whole_second() -> None:
    thin, _ = _early()
    cut, memory = _early(HURT)
    assert thin.signals == ()
    assert [signal.subject for signal in cut.signals] == [UID]
    assert thin.batch_limit_cores is not None and cut.batch_limit_cores is not None
    assert cut.batch_limit_cores <= thin.batch_limit_cores / 2
    assert memory.waits[UID].source == "PSI cpu some"


def test_a_surge_of_a_pod_that_the_tick_cannot_see_is_no_pressure() -> None:
    decision, _ = _early(Stalled("nodeagent/ls/gone", 0.2, 0.2))
    assert decision.signals == ()


def test_what_is_usual_for_a_pod_is_no_surge_but_what_comes_on_top_is() -> None:
    usual = Wait(1.0, 0.15, "PSI cpu some")
    assert not surge.grave(Stalled(UID, 0.25, 0.08), usual, 0.2)
    assert surge.grave(Stalled(UID, 0.25, 0.10), usual, 0.2)
    hurt = Wait(1.0, 0.9, "PSI cpu some")
    assert surge.grave(Stalled(UID, 0.25, 0.25), hurt, 0.2), "standing still is a surge whatever was before"


def _remembered(cores: float | None, hurt_at: float | None = None) -> Memory:
    seen = samples.snapshot(0, 1000.0, pods=_seen(1000.0, 0))
    return Memory(previous=seen, batch=BatchLimit(cores, hurt_at))


def test_only_a_limit_above_the_floor_can_be_cut() -> None:
    assert surge.to_lose(_remembered(1.0), POLICY)
    assert not surge.to_lose(_remembered(POLICY.cpu.floor_cores), POLICY)
    assert not surge.to_lose(_remembered(None), POLICY)
    assert not surge.to_lose(Memory(), POLICY)


def test_nobody_is_woken_while_the_last_cut_has_not_shown() -> None:
    memory = _remembered(1.0, hurt_at=1000.0)
    assert surge.just_cut(1000.0 + HALVE_GAP_S / 2, memory)
    assert not surge.just_cut(1000.0 + HALVE_GAP_S * 1.01, memory)
    assert not surge.just_cut(1000.0, _remembered(1.0))


def test_half_of_a_surge_is_worth_a_look_and_no_tick() -> None:
    begun = Stalled(UID, 0.2, 0.03)
    assert not surge.worth_a_tick([begun], _remembered(1.0), (), POLICY)
    assert surge.worth_a_tick([begun], _remembered(1.0), (), POLICY, surge.HINT)
    assert not rise.worth_a_tick(0.5 + 1.0 + 1.1, _used(6.5))
    assert rise.worth_a_tick(0.5 + 1.0 + 1.1, _used(6.5), surge.HINT)


def test_nobody_is_woken_for_a_victim_for_whose_sake_one_antagonist_is_held() -> None:
    assert not surge.worth_a_tick([HURT], _remembered(1.0), (UID,), POLICY)


def test_who_is_not_known_to_wait_wakes_nobody() -> None:
    assert not surge.worth_a_tick([], _remembered(1.0), (), POLICY)


def test_the_policys_share_is_the_threshold() -> None:
    patient = Policy(pressure=PressurePolicy(ls_cpu_stall_ratio=0.5))
    assert not surge.worth_a_tick([HURT], _remembered(1.0), (), patient)


def _spent(*looks: tuple[float, int]) -> float | None:
    return rise.outside_cores(trail(*looks))


def test_what_is_used_outside_batch_is_told_of_the_last_moment() -> None:
    assert _spent((1.0, 0), (1.9, 90_000), (2.0, 290_000), (2.11, 510_000)) == pytest.approx(2.0)
    assert _spent((1.0, 0), (1.9, 90_000), (2.0, 290_000), (2.05, 390_000)) == pytest.approx(2.0)
    assert _spent((2.0, 0), (2.05, 50_000)) == pytest.approx(0.5), "over a moment at least"
    assert _spent((1.0, 0)) is None


def _used(limit: float) -> Memory:
    known = {NODE: KnownUse(cpu_cores=0.5)}
    seen = samples.snapshot(0, 1000.0, pods=_seen(1000.0, 0))
    return Memory(previous=seen, batch=BatchLimit(limit), known=known, online_cores=((1000.0, 1.0),))


def test_use_wakes_only_where_it_has_risen_by_a_quarter_of_the_node_and_no_longer_fits_beside_batch() -> None:
    assert rise.worth_a_tick(0.5 + 1.0 + 2.1, _used(6.0))  # of 8 cores
    assert not rise.worth_a_tick(0.5 + 1.0 + 1.9, _used(6.0)), "a moment varies more than a second"
    assert not rise.worth_a_tick(0.5 + 1.0 + 2.1, _used(4.0)), "there is room for both"
    assert not rise.worth_a_tick(None, _used(6.0))
    assert not rise.worth_a_tick(8.0, Memory())


@given(st.floats(0, 16), st.floats(0, 16), st.floats(0, 8))
def test_what_is_seen_outside_batch_never_makes_online_use_less(
    outside: float, most: float, system: float
) -> None:
    known = rise.most_cores(((1.0, most),), outside, system, 8)
    assert known is not None and known >= most
    assert rise.most_cores(((1.0, most),), None, system, 8) == most
    assert rise.most_cores((), outside, system, 8) is None


def test_an_early_tick_takes_from_batch_what_online_work_has_begun_to_use() -> None:
    calm, _ = _early(waited_us=0)
    risen, memory = _early(waited_us=0, outside_cores=6.0)
    assert calm.batch_limit_cores is not None and risen.batch_limit_cores is not None
    assert risen.batch_limit_cores <= calm.batch_limit_cores - 2.0
    assert max(cores for _, cores in memory.online_cores) < 2.0, "who it was, the next tick will know"
