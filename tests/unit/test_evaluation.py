"""The evaluation's own arithmetic, by literals: what is found, blamed and hurt, and what others would do."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.core.rates import View
from nodeagent.model.pod import PodSpec, Qos
from nodeagent.model.snapshot import CpuTimes, Node, Pod, Reading, Snapshot, Stall
from nodeagent.model.symptom import AppReading
from nodeagent.model.topology import Cpu, Topology
from tests.bench.eval import baselines, day, felt, score
from tests.bench.eval.labels import Health, Labels, Second, Victim, Window
from tests.bench.eval.load import arrivals
from tests.bench.eval.recording import Recording, load, pack
from tests.bench.eval.run import bogo_operations
from tests.bench.eval.scenario import GAP_S, LENGTH_S, SCENARIOS, planned, rates
from tests.bench.eval.score import Alarm, judge
from tests.bench.eval.tools import needed_packages
from tests.bench.eval.watch import rejected

WEB, DB = "nodeagent/ls/web", "nodeagent/ls/db"
SORT, INDEX = "nodeagent/batch/sort", "nodeagent/batch/index"
ATTACK = Window("cpu", 200.0, 220.0, (WEB, DB), SORT, "cpu")


def seconds(slow: range, p95_ms: float) -> tuple[Second, ...]:
    """One a second from 100 to 299; 1 ms, but in `slow`."""
    return tuple(Second(float(at), 100, 0.5, p95_ms if at in slow else 1.0) for at in range(100, 300))


def labels(*windows: Window, hurt: tuple[str, ...] = (WEB, DB)) -> Labels:
    slow = {victim: range(200, 220) if victim in hurt else range(0) for victim in (WEB, DB)}
    return Labels(
        scenario="literal",
        seed=1,
        cpus=2,
        measured_from=100.0,
        ended=300.0,
        victims=(Victim("web", WEB, "nginx"), Victim("db", DB, "redis")),
        batch=(SORT, INDEX),
        windows=windows,
        felt={victim: seconds(slow[victim], 4.0) for victim in (WEB, DB)},
        health=tuple(Health(float(at), 0.05, 0.02, 0.0) for at in range(100, 300)),
        idle_stall_ratio=0.01,
    )


def test_the_first_alarm_of_an_attack_finds_it_and_others_are_merged() -> None:
    found = judge(labels(ATTACK), [Alarm(WEB, 203.0), Alarm(WEB, 210.0), Alarm(DB, 229.9)])
    assert [(hit.event.victim, hit.delay_s) for hit in found.hits] == [(WEB, 3.0), (DB, pytest.approx(29.9))]
    assert (found.misses, found.false) == ((), ())
    assert (score.precision([found]), score.recall([found]), score.f1([found])) == (1.0, 1.0, 1.0)


def test_an_alarm_after_the_grace_or_before_the_attack_is_false_and_the_attack_missed() -> None:
    found = judge(labels(ATTACK), [Alarm(WEB, 199.9), Alarm(WEB, 230.1)])
    assert len(found.false) == 2
    assert [event.victim for event in found.misses] == [WEB, DB]
    assert (score.precision([found]), score.recall([found])) == (0.0, 0.0)


def test_an_alarm_in_a_negative_is_false() -> None:
    own_load = Window("load", 200.0, 220.0, (WEB,))
    found = judge(labels(own_load), [Alarm(WEB, 205.0, (SORT,))])
    assert (len(found.false), found.hits, found.misses) == (1, (), ())
    assert score.false_accusations([found]) == 1.0


def test_what_the_clients_did_not_feel_is_neither_found_nor_missed() -> None:
    found = judge(labels(ATTACK, hurt=(WEB,)), [Alarm(DB, 203.0)])
    assert [event.victim for event in found.misses] == [WEB]
    assert [hit.event.victim for hit in found.unfelt] == [DB]
    assert (found.hits, found.false) == ((), ())


def test_an_alarm_in_calm_that_clients_felt_is_not_false_but_counted_apart() -> None:
    quiet = labels()
    slow = replace(quiet, felt={**quiet.felt, WEB: seconds(range(150, 152), 4.0)})
    found = judge(slow, [Alarm(WEB, 153.0, ("",)), Alarm(WEB, 160.0, ("",)), Alarm(DB, 153.0)])
    assert [(alarm.victim, alarm.at) for alarm in found.unlabelled] == [(WEB, 153.0)]
    assert [(alarm.victim, alarm.at) for alarm in found.false] == [(DB, 153.0), (WEB, 160.0)]
    own_load = replace(slow, windows=(Window("load", 149.0, 152.0, (WEB,)),))
    assert len(judge(own_load, [Alarm(WEB, 153.0)]).false) == 1


def test_an_alarm_in_the_grace_of_one_attack_and_in_the_next_one_is_of_the_next() -> None:
    after = replace(ATTACK, began=226.0, ended=250.0, culprit=INDEX)
    found = judge(labels(ATTACK, after), [Alarm(WEB, 227.0)])
    assert [hit.event.culprit for hit in found.unfelt] == [INDEX]  # its p95 is calm again from 220 on


def test_what_starts_up_is_not_judged() -> None:
    assert judge(labels(), [Alarm(WEB, 99.0), Alarm(WEB, 301.0)]).false == ()


def test_clean_time_is_of_each_victim_without_its_attacks_and_their_grace() -> None:
    assert judge(labels(), []).clean_s == 400.0
    assert judge(labels(ATTACK), []).clean_s == 400.0 - 2 * 30.0
    overlapping = replace(ATTACK, began=225.0, ended=235.0, victims=(WEB,))
    assert judge(labels(ATTACK, overlapping), []).clean_s == 400.0 - 45.0 - 30.0
    one = judge(labels(), [Alarm(WEB, 150.0)])
    assert score.false_per_hour([one]) == pytest.approx(9.0)


def test_accusations_are_weighed_by_name() -> None:
    right = judge(labels(ATTACK), [Alarm(WEB, 203.0, (SORT,), (SORT, INDEX))])
    assert (score.top1([right]), score.false_accusations([right])) == (1.0, 0.0)
    wrong_first = judge(labels(ATTACK), [Alarm(WEB, 203.0, (INDEX, SORT), (INDEX, SORT))])
    assert (score.top1([wrong_first]), score.reciprocal_rank([wrong_first])) == (0.0, 0.5)
    assert score.false_accusations([wrong_first]) == 0.5
    nobody = judge(labels(ATTACK), [Alarm(WEB, 203.0, (), (INDEX,))])
    assert (score.top1([nobody]), score.reciprocal_rank([nobody])) == (0.0, 0.0)
    assert math.isnan(score.false_accusations([nobody]))


def test_delays_have_their_median_and_their_p95() -> None:
    found = judge(labels(ATTACK), [Alarm(WEB, 202.0), Alarm(DB, 208.0)])
    assert (score.delay_s(0.5)([found]), score.delay_s(0.95)([found])) == (5.0, 8.0)
    assert math.isnan(score.delay_s(0.5)([judge(labels(), [])]))


def test_the_interval_is_the_same_in_every_run_and_holds_the_figure() -> None:
    runs = [judge(labels(ATTACK), [Alarm(WEB, 203.0), Alarm(DB, at)]) for at in (203.0, 150.0, 204.0, 160.0)]
    low, high = score.interval(runs, score.recall)
    assert (low, high) == score.interval(runs, score.recall)
    assert low < score.recall(runs) == 0.75 < high
    assert score.interval([judge(labels(ATTACK), [Alarm(WEB, 201.0), Alarm(DB, 201.0)])], score.recall) == (
        1.0,
        1.0,
    )


def test_nothing_seen_is_not_nothing_there() -> None:
    assert score.most_likely(0) == pytest.approx(2.996, abs=1e-3)
    assert score.most_likely(3) == pytest.approx(7.754, abs=1e-3)


def test_a_window_hurts_by_its_median_p95_against_calm() -> None:
    assert felt.hurt_ratio(labels(ATTACK), ATTACK, WEB) == 4.0
    assert felt.hurt_ratio(labels(ATTACK, hurt=()), ATTACK, WEB) == 1.0
    assert felt.hurt_ratio(labels(ATTACK), replace(ATTACK, ended=202.0), WEB) is None


def test_a_quantile_is_a_value_that_was_measured() -> None:
    assert [felt.quantile([1.0, 2.0, 3.0, 4.0], ratio) for ratio in (0.0, 0.5, 0.75, 1.0)] == [
        1.0,
        2.0,
        3.0,
        4.0,
    ]


def test_the_gate_rejects_a_run_beside_others_work() -> None:
    assert rejected(labels(ATTACK)) == ()
    noisy = tuple(replace(each, foreign_cores=0.3) for each in labels().health)
    assert "others' CPU" in rejected(replace(labels(), health=noisy))[0]
    pressed = tuple(replace(each, foreign_stall_ratio=0.06) for each in labels().health)
    assert "off windows 0.060" in rejected(replace(labels(), health=pressed))[0]
    assert "before the run 0.940" in rejected(replace(labels(), idle_stall_ratio=0.94))[0]
    assert rejected(replace(labels(), health=())) == ("no second without a disturbance",)


@given(st.integers(0, 1 << 30), st.sampled_from(SCENARIOS))
def test_a_schedule_keeps_its_gaps_and_lengths_and_the_calm_at_both_ends(seed: int, scenario: object) -> None:
    assert isinstance(scenario, type(SCENARIOS[0]))
    made, at = planned(scenario, seed), scenario.warm_s
    assert made == planned(scenario, seed)
    for each in made:
        assert GAP_S[0] <= each.begin - at <= GAP_S[1]
        assert LENGTH_S[0] - 1e-9 <= each.length <= LENGTH_S[1] + 1e-9
        at = each.begin + each.length
    assert at <= scenario.seconds


def test_a_load_step_is_in_the_load_and_in_no_other_victims() -> None:
    scenario = next(s for s in SCENARIOS if s.name == "negatives")
    plan = next(
        p for p in (planned(scenario, seed) for seed in range(99)) if any(x.kind == "load" for x in p)
    )
    step = next(each for each in plan if each.kind == "load")
    assert (step.begin, 250.0) in rates(100.0, scenario, step.who, plan)
    others = set(scenario.victims) - {step.who}
    own = {each.who for each in plan if each.kind == "load"}
    assert all(
        rates(100.0, scenario, other, plan) == [(0.0, 100.0), (scenario.seconds, 0.0)]
        for other in others - own
    )


def test_arrivals_follow_the_rates_and_are_the_same_again() -> None:
    due = arrivals([(0.0, 100.0), (50.0, 300.0), (100.0, 0.0)], 7)
    assert due == arrivals([(0.0, 100.0), (50.0, 300.0), (100.0, 0.0)], 7) == sorted(due)
    assert (sum(at < 50.0 for at in due), sum(at >= 50.0 for at in due)) == pytest.approx(
        (5000, 15000), rel=0.05
    )


def test_the_work_of_a_stressor_is_read_from_its_report() -> None:
    said = (
        b"stress-ng: metrc: [7] stressor       bogo ops real time  usr time  sys time   bogo ops/s\n"
        b"stress-ng: metrc: [7]                           (secs)    (secs)    (secs)   (real time)\n"
        b"stress-ng: metrc: [7] cpu                4711     10.00      9.99      0.00       471.10\n"
    )
    assert bogo_operations(said) == 4711.0
    assert bogo_operations(b"") is None


def test_the_packages_are_those_that_are_not_here() -> None:
    said = "Reading ...\nInst libjemalloc2 (5.3.0-1)\nInst redis-server (7)\nConf redis-server (7)\n"
    assert needed_packages(said) == ["libjemalloc2", "redis-server"]


def snapshot(
    at: float,
    *,
    cores: float = 0.5,
    stall: float = 0.0,
    sort: float = 0.0,
    index: float = 0.0,
    requests: int = 0,
) -> Snapshot:
    """Counters at a time since 100, as if all had been so since then."""
    since_us = int((at - 100.0) * 1e6)

    def pod(cgroup: str, qos: Qos, used: float, waited: float = 0.0) -> Pod:
        spec = PodSpec(uid=cgroup, name=cgroup, cgroup=cgroup, inode=1, qos=qos, source="exec")
        reading = Reading(cpu_us=int(used * since_us), cpu_stall=Stall(int(waited * since_us)))
        return Pod(spec, reading, app=AppReading("statsd", at, requests=requests) if requests else None)

    busy = int((cores + sort + index) * since_us / 2)
    return Snapshot(
        seq=int(at),
        at=at,
        unix=1.8e9 + at,
        boot_id="b",
        topology=Topology((Cpu(0, 0, 0, 0, 0), Cpu(1, 1, 0, 0, 0))),
        node=Node(cpus=tuple(CpuTimes(cpu, busy, 0, 0, 0, 0, 0, 0, 0) for cpu in (0, 1))),
        pods=(pod(WEB, Qos.LS, cores, stall), pod(SORT, Qos.BATCH, sort), pod(INDEX, Qos.BATCH, index)),
    )


def course(calm: int, bad: int, **values: float) -> list[View]:
    """So many calm seconds, then bad ones in which the culprit SORT and what it does add up anew."""
    first = [snapshot(100.0 + at, index=0.4) for at in range(calm)]
    last = first[-1]
    rest = []
    for at in range(1, bad + 1):
        more = snapshot(100.0 + at, **values)  # type: ignore[arg-type]
        pods = tuple(_added(old, new) for old, new in zip(last.pods, more.pods, strict=True))
        cpus = tuple(
            replace(old, user_us=old.user_us + new.user_us)
            for old, new in zip(last.node.cpus or (), more.node.cpus or (), strict=True)
        )
        rest.append(replace(more, at=last.at + at, seq=last.seq + at, pods=pods, node=Node(cpus=cpus)))
    return baselines.views([*first, *rest])


def _added(old: Pod, new: Pod) -> Pod:
    stalls = (old.reading.cpu_stall, new.reading.cpu_stall)
    assert stalls[0] is not None and stalls[1] is not None
    used = (old.reading.cpu_us or 0) + (new.reading.cpu_us or 0)
    return replace(new, reading=Reading(cpu_us=used, cpu_stall=Stall(stalls[0].some_us + stalls[1].some_us)))


ONE = replace(labels(replace(ATTACK, began=199.0)), victims=(Victim("web", WEB, "nginx"),))


def test_psi_alarms_when_its_ten_second_mean_passes_five_percent_and_names_nobody() -> None:
    (alarm,) = baselines.psi(ONE, course(100, 30, stall=0.2, sort=0.3))
    # 20 (1 - e^(-t/10)) >= 5 from t = 2.9 s on
    assert (alarm.victim, alarm.at, alarm.accused) == (WEB, 202.0, ())
    assert baselines.psi(ONE, course(100, 30, stall=0.04, sort=0.3)) == []


def test_max_cpu_accuses_who_is_busiest_guilty_or_not() -> None:
    (alarm,) = baselines.max_cpu(ONE, course(100, 30, stall=0.2, sort=0.3, index=0.6))
    assert alarm.accused == (INDEX,)
    assert alarm.ranking == (INDEX, SORT)


def test_koordlet_alarms_at_65_percent_of_the_node_and_blames_all_of_batch() -> None:
    assert baselines.koordlet(ONE, course(100, 30, sort=0.3, index=0.4)) == []
    (alarm,) = baselines.koordlet(ONE, course(100, 30, sort=0.5, index=0.4))
    assert (alarm.at, set(alarm.accused)) == (200.0, {SORT, INDEX})


def test_oomd_says_nothing_of_cpu() -> None:
    assert baselines.oomd(ONE, course(100, 60, stall=0.9, sort=1.0)) == []


def test_cpi2_needs_three_outliers_of_ten_seconds_each() -> None:
    (alarm,) = baselines.cpi2(ONE, course(101, 60, stall=0.9, sort=0.9))
    assert 220.0 <= alarm.at <= 232.0
    assert alarm.ranking[0] == SORT


def test_the_score_of_cpi2_cannot_reach_its_threshold_below_a_slowdown_of_154_percent() -> None:
    in_phase = [(1.0, 0.0)] * 30 + [(1.3, 1.0)] * 30
    assert baselines.antagonist_score(in_phase, 1.0) == pytest.approx(1 - 1 / 1.3)
    assert baselines.antagonist_score([(1.0, 0.0)] * 30 + [(1.55, 1.0)] * 30, 1.0) > baselines.CPI_SCORE
    assert baselines.antagonist_score([(0.5, 1.0)] * 5, 1.0) == -0.5
    assert baselines.antagonist_score([(2.0, 0.0)], 1.0) == 0.0


def test_what_stands_for_cpi_is_cpu_per_request_where_the_application_tells() -> None:
    (*_, last) = course(3, 1, cores=0.5, stall=0.25)
    pod = last.pods[0]
    assert baselines.stand_in(pod, 1.0, None) == pytest.approx(1.5)
    assert baselines.stand_in(pod, 1.0, 100) == pytest.approx(0.005)
    assert baselines.stand_in(pod, 1.0, 0) is None
    assert baselines.stand_in(pod, None, None) is None


def test_a_calm_goes_on_where_it_ended() -> None:
    calm = [snapshot(100.0 + at, stall=0.1, sort=0.3) for at in range(11)]
    long = list(day.looped(calm, 1000.0))
    assert [one.seq for one in long] == list(range(100, 100 + len(long)))
    assert long[-1].at - long[0].at == 1000.0
    for one in baselines.views(long)[1:]:
        assert one.dt_s == 1.0
        assert one.pods[1].cores == pytest.approx(0.3)
        assert one.pods[0].stall_ratio == pytest.approx(0.1)
    assert long[500].pods[0].spec == calm[0].pods[0].spec


def test_a_packed_run_is_what_was_packed_without_others_pods(tmp_path: Path) -> None:
    seen = [snapshot(100.0 + at, sort=0.1) for at in range(5)]
    other = PodSpec(uid="x", name="x", cgroup="kubepods/x", inode=2, qos=Qos.MID, source="kubelet")
    mixed = [replace(one, pods=(*one.pods, Pod(other, Reading()))) for one in seen]
    pack(Recording("1-literal", labels(ATTACK), tuple(mixed)), tmp_path / "1-literal.run.xz")
    (read,) = load(tmp_path)
    assert read.name == "1-literal"
    assert read.labels == labels(ATTACK)
    assert read.snapshots == tuple(replace(one, boot_id="recorded") for one in seen)
