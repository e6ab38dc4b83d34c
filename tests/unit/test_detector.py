"""The detector on online pods: what it takes for trouble, what not, and when it learns."""

from __future__ import annotations

import copy
import math
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.core.interference.fuse import fused
from nodeagent.core.interference.learn import restored, told
from nodeagent.model.decision import Checkpoint
from nodeagent.model.interference import Gate, State, Verdict
from nodeagent.model.pod import Qos
from nodeagent.model.policy import Policy, PressurePolicy
from nodeagent.model.senses import Feeling, Senses
from nodeagent.model.symptom import Channel, Sign, Slo
from tests.unit.felt import POLICY, WEB, Life, Watched

WARM = 200
law = settings(deadline=None, max_examples=25)


def warmed(*others: Life, web: Life | None = None, policy: Policy = POLICY) -> tuple[Watched, Life]:
    web = Life() if web is None else web
    watched = Watched(web, *others, policy=policy)
    watched.ticks(WARM)
    return watched, web


def gates(verdict: Verdict) -> set[Gate]:
    return {rejection.gate for rejection in verdict.rejections}


def test_a_neighbour_is_blamed_in_the_second_second_or_if_it_is_mild_in_the_third() -> None:
    watched, web = warmed(Life("noisy", Qos.BATCH, cores=0.0))
    calm = web.stall
    web.stall = 0.09  # z is 4
    seen = [watched.tick()[WEB].state for _ in range(3)]
    assert seen == [State.CALM, State.SUSPECT, State.CONFIRMED]
    web.stall = calm
    assert watched.ticks(4)[WEB] == Verdict(WEB, State.CALM)
    web.stall = 0.5
    assert watched.tick()[WEB].state is State.CALM
    verdict = watched.tick()[WEB]
    assert verdict.state is State.CONFIRMED
    assert verdict.channel is Channel.CPU
    (alarm,) = verdict.alarms
    assert alarm.sign == "cpu.stall"
    assert alarm.value == pytest.approx(0.5)
    assert alarm.baseline == pytest.approx(0.01, rel=0.06)
    web.stall = 0.01
    assert watched.ticks(4)[WEB] == Verdict(WEB, State.CALM)


def test_without_pressure_it_is_seen_by_run_delay_within_six_seconds() -> None:
    watched, web = warmed(web=Life(unsupported=("cpu_stall",), run_delay=0.01))
    web.run_delay = 0.6
    found = watched.until_open(WEB)
    assert found is not None and found <= 6


def test_ticks_that_come_early_do_not_alarm_sooner_nor_later() -> None:
    watched, web = warmed()
    web.stall = 0.5
    began = watched.at
    while watched.tick(0.1)[WEB].state is not State.CONFIRMED:
        assert watched.at - began < 5.0
    assert 2.0 <= watched.at - began <= 4.0


def test_a_moment_of_stall_is_not_a_sample() -> None:
    watched, web = warmed()
    for _ in range(20):
        web.stall = 0.25  # for a second it would be bad
        assert watched.tick(0.1)[WEB].state is State.CALM
        web.stall = 0.0
        assert watched.tick(0.9)[WEB].state is State.CALM


@law
@given(
    stall=st.floats(0.0, 1.0),
    cores=st.floats(0.05, 3.0),
    memory=st.floats(0.0, 1.0),
    delay=st.floats(0.0, 3.0),
)
def test_what_is_constant_never_alarms_once_it_is_known(
    stall: float, cores: float, memory: float, delay: float
) -> None:
    policy = replace(POLICY, pressure=PressurePolicy(ls_cpu_stall_ratio=1.0))
    web = Life(
        stall=min(stall, 0.99), cores=cores, memory_stall=min(memory, 0.09), run_delay=min(delay, cores)
    )
    watched, _ = warmed(web=web, policy=policy)
    for _ in range(100):
        assert watched.tick()[WEB].state is State.CALM


@law
@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)), min_size=1, max_size=15))
def test_more_stall_never_lowers_the_evidence(stalls: list[tuple[float, float]]) -> None:
    """From the same state: an open alarm falls faster than one that was never raised."""
    watched, web = warmed()
    for n, (one, other) in enumerate(stalls):
        (better, calm), (worse, hurt) = copy.deepcopy((watched, web)), copy.deepcopy((watched, web))
        calm.stall, hurt.stall = min(one, other), max(one, other)
        assert worse.tick()[WEB].evidence >= better.tick()[WEB].evidence - 1e-12
        watched, web = (worse, hurt) if n % 2 else (better, calm)


@law
@given(st.lists(st.one_of(st.none(), st.floats(0.0, 1.0)), min_size=1, max_size=20))
def test_the_same_readings_give_the_same_verdicts_also_when_taken_from_a_journal(
    stalls: list[float | None],
) -> None:
    one, web = warmed()
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(one.senses), type=Senses)
    assert kept == one.senses
    other = Watched(web, senses=kept)
    other.previous = one.previous
    for stall in stalls:
        web.stall = stall
        verdicts = one.tick()
        assert one.previous is not None
        assert other.see(one.previous) == verdicts
        assert other.senses == one.senses


@law
@given(st.integers(1, 90))
def test_what_is_not_known_neither_calms_nor_is_learned(ticks: int) -> None:
    watched, web = warmed()
    web.stall = 0.5
    bad = watched.ticks(4)[WEB]
    before = watched.senses
    web.stall = None
    for _ in range(ticks):
        verdict = watched.tick()[WEB]
        assert verdict.state in {State.CONFIRMED, State.UNKNOWN}
    assert watched.senses.pods[WEB].feelings == before.pods[WEB].feelings
    assert told(watched.senses)["web"]["cpu.stall@2"] == told(before)["web"]["cpu.stall@2"]
    assert bad.state is State.CONFIRMED


def test_a_pod_whose_wait_cannot_be_seen_is_unknown_and_never_calm() -> None:
    watched, web = warmed()
    web.stall = None
    assert watched.tick()[WEB].state is State.UNKNOWN  # it takes two readings to know what was between them
    web.stall = 0.01
    watched.tick()
    assert watched.tick()[WEB].state is State.CALM


def test_nothing_is_learned_while_something_is_wrong() -> None:
    watched, web = warmed()
    before = told(watched.senses)["web"]["cpu.stall@2"]
    web.stall = 0.5
    watched.ticks(600)
    assert told(watched.senses)["web"]["cpu.stall@2"] == before
    assert watched.tick()[WEB].state is State.CONFIRMED


def test_nothing_is_learned_of_a_frozen_victim() -> None:
    watched, _ = warmed()
    before = told(watched.senses)
    watched.ticks(200, frozen=[WEB])
    assert told(watched.senses) == before
    watched.ticks(60)
    assert told(watched.senses) != before


def test_a_regime_that_nobody_is_suspected_for_is_taken_for_usual_after_an_hour() -> None:
    watched, web = warmed()
    web.stall = 0.5
    assert watched.ticks(3600, frozen=[WEB])[WEB].state is State.CONFIRMED
    assert watched.ticks(60, frozen=[WEB])[WEB].state is State.CONFIRMED  # as long as somebody is suspected
    assert watched.ticks(400)[WEB].state is State.CALM


def test_a_restart_with_a_checkpoint_is_like_no_restart() -> None:
    watched, web = warmed()
    saved = msgspec.msgpack.encode(Checkpoint(baselines=told(watched.senses)))
    fresh = Watched(web, senses=restored(msgspec.msgpack.decode(saved, type=Checkpoint).baselines))
    fresh.at, fresh.seq = watched.at, watched.seq
    fresh.previous = None
    fresh.tick()
    web.stall = 0.5
    assert [fresh.tick()[WEB].state for _ in range(3)] == [State.CALM, State.CONFIRMED, State.CONFIRMED]


def test_a_new_replica_knows_what_is_usual_at_once() -> None:
    watched, _ = warmed(web=Life("web-1"))
    second = Life("web-2", inode=2)
    watched.lives.append(second)
    watched.tick()
    watched.ticks(60)
    second.stall = 0.15  # below the limit that counts without a baseline
    assert watched.ticks(3)[second.uid].state is State.CONFIRMED


def test_while_nothing_is_usual_limits_alone_count() -> None:
    web = Life()
    watched = Watched(web)
    watched.ticks(20)
    web.stall = 0.15
    assert watched.ticks(20)[WEB].state is State.CALM
    web.stall = 0.25
    verdict = watched.ticks(4)[WEB]
    assert verdict.state is State.CONFIRMED
    assert [alarm.baseline for alarm in verdict.alarms] == [None]


def test_memory_that_stops_everything_counts_without_a_baseline() -> None:
    web = Life()
    watched = Watched(web)
    watched.ticks(20)
    web.memory_stall = 0.2
    verdict = watched.ticks(5)[WEB]
    assert (verdict.state, verdict.channel) == (State.CONFIRMED, Channel.MEMORY)


def test_of_two_resources_that_are_short_the_one_that_takes_more_time_is_blamed() -> None:
    for cpu, memory, blamed in ((0.3, 0.6, Channel.MEMORY), (0.6, 0.3, Channel.CPU)):
        watched, web = warmed()
        web.stall, web.memory_stall = cpu, memory
        assert watched.ticks(6)[WEB].channel is blamed


def test_that_evicted_pages_are_read_again_is_memorys_doing_however_long_the_device_takes() -> None:
    def feeling(cusum: float, opened: float | None) -> Feeling:
        return Feeling(0.3, 0.0, 6.0, cusum, 0.0, 0.3, opened, 2)

    waits = {Sign.IO_STALL: feeling(10.5, 0.0), Sign.IO_AWAIT: feeling(9.0, 0.0)}
    for sign, cusum, opened, blamed in (
        (Sign.REFAULTS, 8.0, 0.0, Channel.MEMORY),
        (Sign.REFAULTS, 5.0, None, Channel.IO),
        (Sign.MEMORY_STALL, 8.0, 0.0, Channel.IO),
    ):
        verdict = fused(WEB, {**waits, sign: feeling(cusum, opened)}, {}, 7.0, True)
        assert (verdict.state, verdict.channel) == (State.CONFIRMED, blamed)


def test_a_broken_slo_counts_without_a_baseline() -> None:
    web = Life(latency_s=0.01, slo=Slo(0.99, 0.02))
    watched = Watched(web)
    watched.ticks(20)
    web.latency_s = 0.05
    verdict = watched.ticks(5)[WEB]
    assert (verdict.state, verdict.channel) == (State.CONFIRMED, Channel.APP)


def test_what_its_own_quota_stops_is_not_a_neighbours_fault() -> None:
    watched, web = warmed()
    web.stall, web.throttled = 0.5, 0.5
    seen = [watched.tick()[WEB] for _ in range(30)]
    assert {verdict.state for verdict in seen} == {State.CALM}
    assert gates(seen[-1]) == {Gate.OWN_QUOTA}
    assert "50%" in seen[-1].rejections[0].why


def test_few_throttled_periods_stop_it_where_all_that_waits_waits_at_once() -> None:
    watched, web = warmed()
    web.stall, web.full, web.throttled = 0.5, 0.48, 0.05
    assert gates(watched.ticks(31)[WEB]) == {Gate.OWN_QUOTA}
    other, web = warmed()
    web.stall, web.full, web.throttled = 0.5, 0.2, 0.05
    assert other.ticks(31)[WEB].state is State.CONFIRMED


def test_what_the_hypervisor_takes_is_not_a_neighbours_fault() -> None:
    watched, web = warmed()
    web.stall, watched.steal = 0.5, 0.1
    verdict = watched.ticks(5)[WEB]
    assert (verdict.state, gates(verdict)) == (State.CALM, {Gate.STEAL})


def test_quota_is_asked_before_steal_and_both_before_its_own_load() -> None:
    watched, web = warmed()
    web.stall, web.cores, web.throttled, watched.steal = 0.5, 0.95, 0.3, 0.2
    assert gates(watched.ticks(5)[WEB]) == {Gate.OWN_QUOTA}
    web.throttled = 0.0
    assert gates(watched.ticks(20)[WEB]) == {Gate.STEAL}
    watched.steal = 0.0
    assert gates(watched.ticks(20)[WEB]) == {Gate.OWN_LOAD}


def test_the_cpu_time_that_fetching_pages_takes_is_not_load_of_its_own() -> None:
    watched, web = warmed()
    web.memory_stall, web.cores = 0.3, 0.7
    verdict = watched.ticks(20)[WEB]
    assert (verdict.state, verdict.channel) == (State.CONFIRMED, Channel.MEMORY)
    watched, web = warmed()
    web.memory_stall, web.cores = 0.3, 0.95
    assert gates(watched.ticks(20)[WEB]) == {Gate.OWN_LOAD}


def test_more_load_of_its_own_is_not_a_neighbours_fault_and_becomes_usual() -> None:
    watched, web = warmed(Life("other", Qos.BATCH, cores=0.4))
    web.stall, web.cores = 0.15, 0.95
    seen = [watched.tick()[WEB] for _ in range(300)]
    assert not [v for v in seen[2:] if v.state is not State.CALM]
    assert any(Gate.OWN_LOAD in gates(v) for v in seen)
    assert seen[-1] == Verdict(WEB, State.CALM)
    web.stall, web.cores = 0.01, 0.5
    assert watched.ticks(10)[WEB].state is State.CALM


def test_more_load_of_its_own_does_not_excuse_a_neighbour_whose_load_rose_as_well() -> None:
    noisy = Life("noisy", Qos.BATCH, cores=0.0)
    watched, web = warmed(noisy)
    web.stall, web.cores, noisy.cores = 0.5, 0.95, 3.0
    assert watched.ticks(4)[WEB].state is State.CONFIRMED


def test_a_young_pods_signals_do_not_count_but_for_limits() -> None:
    watched, _ = warmed(web=Life("web-1"))
    second = Life("web-2", inode=2, stall=0.15)
    watched.lives.append(second)
    verdict = watched.ticks(10)[second.uid]
    assert (verdict.state, gates(verdict)) == (State.CALM, {Gate.YOUNG})
    second.stall = 0.5
    assert watched.ticks(3)[second.uid].state is State.CONFIRMED


def test_a_cgroup_made_anew_under_its_name_is_young_again() -> None:
    watched, web = warmed()
    web.inode, web.stall = 7, 0.15
    assert gates(watched.ticks(10)[WEB]) == {Gate.YOUNG}


def test_an_idle_pod_means_nothing_but_one_that_only_waits_is_not_idle() -> None:
    watched, web = warmed(web=Life(cores=0.03, stall=0.0, run_delay=0.001))
    web.cores, web.stall, web.run_delay = 0.001, 0.0, 0.03
    assert gates(watched.ticks(5)[WEB]) == {Gate.IDLE}
    web.cores, web.stall, web.run_delay = 0.001, 0.9, 0.9
    assert watched.ticks(5)[WEB].state is State.CONFIRMED


def test_what_makes_no_difference_is_said_to_be_small() -> None:
    slo = Slo(0.99, 0.1)
    watched, web = warmed(web=Life(latency_s=0.01, slo=slo))
    web.latency_s = 0.03
    verdict = watched.ticks(5)[WEB]
    assert (verdict.state, gates(verdict)) == (State.CALM, {Gate.SMALL})


def test_who_keeps_its_slo_with_room_to_spare_may_suspect_but_not_accuse() -> None:
    watched, web = warmed(web=Life(latency_s=0.005, slo=Slo(0.99, 0.02)))
    web.stall = 0.5
    verdict = watched.ticks(10)[WEB]
    assert (verdict.state, gates(verdict)) == (State.SUSPECT, {Gate.HEALTHY})
    assert [alarm.sign for alarm in verdict.alarms] == ["cpu.stall"]
    web.latency_s = 0.0195
    assert watched.ticks(2)[WEB].state is State.CONFIRMED


def test_an_application_that_falls_silent_is_healthy_no_more() -> None:
    watched, web = warmed(web=Life(latency_s=0.005, slo=Slo(0.99, 0.02)))
    web.stall = 0.5
    assert watched.ticks(5)[WEB].state is State.SUSPECT
    web.latency_s = None
    assert watched.ticks(2)[WEB].state is State.CONFIRMED


def test_an_idle_pod_keeps_its_state_as_it_is() -> None:
    watched, web = warmed()
    web.cores = web.stall = 0.0
    watched.ticks(3)
    before = watched.senses.pods[WEB]
    watched.ticks(50)
    assert watched.senses.pods[WEB] is before


def test_right_skewed_noise_that_clings_to_itself_hardly_ever_alarms() -> None:
    """SYNTHETIC: log-normal stall, median 5 %, each second half of the last; 20 pods for 10,000 s."""
    chance = random.Random(11)
    lives = [Life(f"web{n}x", inode=n, cores=0.5) for n in range(20)]
    watched = Watched(*lives)
    state = [0.0] * 20
    alarms = 0
    was: set[str] = set()
    for second in range(10_000):
        for n, life in enumerate(lives):
            state[n] = 0.5 * state[n] + math.sqrt(0.75) * chance.gauss(0.0, 1.0)
            life.stall = min(0.19, 0.05 * math.exp(0.5 * state[n]))
        now = {uid for uid, v in watched.tick().items() if v.state is State.CONFIRMED}
        alarms += len(now - was) if second > WARM else 0
        was = now
    assert alarms <= 1  # in 2.3 pod-days


def test_the_senses_of_pods_that_ended_are_forgotten_but_not_their_workloads() -> None:
    watched, web = warmed(Life("other", inode=3))
    watched.lives.remove(web)
    watched.ticks(2)
    assert set(watched.senses.pods) == {"nodeagent/ls/other"}
    assert set(watched.senses.pending) <= {"nodeagent/ls/other"}
    assert "web" in watched.senses.workloads


def test_measures_say_what_is_not_supported() -> None:
    watched, _ = warmed(web=Life(unsupported=("cpu_stall", "cpi", "mpki")))
    unsupported = watched.measures[WEB].unsupported
    assert {Sign.CPU_STALL, Sign.CPI, Sign.MPKI, Sign.LATENCY, Sign.CPU_PER_REQUEST} == unsupported


def test_what_is_worse_than_usual_beside_trouble_is_not_learned() -> None:
    watched, web = warmed(other := Life("other"))
    known = watched.senses.workloads["other"].baselines["cpu.stall@2"]
    web.stall = 0.5
    for n in range(120):
        other.stall = 0.01 if n % 2 else 0.035  # z 1.25: too little for an alarm
        watched.tick(frozen={WEB})
    after = watched.senses.workloads["other"].baselines["cpu.stall@2"]
    assert after.samples == known.samples
    web.stall = 0.01
    watched.ticks(120)
    assert watched.senses.workloads["other"].baselines["cpu.stall@2"].samples > known.samples


def test_before_anything_is_known_run_delay_counts_only_if_the_pod_waits_long() -> None:
    def found(cores: float) -> State:
        web = Life(unsupported=("cpu_stall",), cores=cores, run_delay=1.5 * cores)
        watched = Watched(web)
        return watched.ticks(20)[WEB].state

    assert found(0.1) is State.CALM  # waits for 0.15 s of each second
    assert found(0.2) is State.CONFIRMED
