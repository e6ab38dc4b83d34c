"""The co-location experiment's arithmetic: koordlet's rule by its published numbers, work, EMU, intervals."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.bench.colocate import figures, report
from tests.bench.colocate.figures import Repeats, measured
from tests.bench.colocate.jobs import counters, frames, megabytes
from tests.bench.colocate.koordlet import LEAST_QUOTA_US, NO_QUOTA_US, next_quota_us, suppressed_milli
from tests.bench.colocate.runs import (
    ALONE,
    BATCH_ALONE,
    EQUAL,
    IDLE,
    KOORDLET,
    NODEAGENT,
    STATIC,
    VARIANTS,
    Experiment,
    Felt,
    Job,
    Machine,
    Run,
)
from tests.bench.colocate.sample import Sample, line, reaction
from tests.bench.colocate.tide import SURGE_FACTOR, TROUGH_RATIO, Shape, level, rates
from tests.bench.colocate.variants import weights

ROOT = Path(__file__).parents[2]
CORES = 2


@pytest.mark.parametrize(
    ("online", "pods", "node", "more", "target"),
    [
        (300.0, 700.0, 900.0, {}, 800.0),  # 1300 - 300 - 200 of the system
        (300.0, 700.0, 600.0, {}, 1000.0),  # the system is never less than nothing
        (300.0, 700.0, 900.0, {"reserved_milli": 250.0}, 750.0),  # nor than what is reserved
        (1500.0, 1600.0, 1700.0, {}, -300.0),
        (1500.0, 1600.0, 1700.0, {"least_percent": 10.0}, 200.0),
        (300.0, 700.0, 900.0, {"threshold_percent": 80.0}, 1100.0),
    ],
)
def test_koordlet_leaves_batch_the_threshold_less_online_and_system_use(
    online: float, pods: float, node: float, more: dict[str, float], target: float
) -> None:
    assert suppressed_milli(1000.0 * CORES, online, pods, node, **more) == pytest.approx(target)


@pytest.mark.parametrize(
    ("target", "current", "quota"),
    [
        (800.0, NO_QUOTA_US, 80_000),
        (800.0, 150_000, 80_000),  # down at once
        (800.0, 10_000, 30_000),  # up by a tenth of the node at most
        (800.0, 60_000, 80_000),  # exactly that step
        (800.0, 78_001, None),  # less than a hundredth of the node is not worth a write
        (800.0, 78_000, 80_000),
        (-300.0, 40_000, LEAST_QUOTA_US),
        (-300.0, LEAST_QUOTA_US, LEAST_QUOTA_US),  # the least one is always written
    ],
)
def test_koordlets_quota_by_the_published_vectors(target: float, current: int, quota: int | None) -> None:
    assert next_quota_us(target, current, CORES) == quota


@given(st.floats(-4000.0, 4000.0), st.integers(LEAST_QUOTA_US, 400_000), st.integers(1, 256))
def test_koordlets_quota_rises_by_steps_and_is_never_below_its_least(
    target: float, current: int, cores: int
) -> None:
    quota = next_quota_us(target, current, cores)
    assert quota is None or LEAST_QUOTA_US <= quota <= current + cores * 10_000


def _run(
    variant: str,
    number: int = 0,
    *,
    p99_ms: float | None = 2.0,
    frames: float = 0.0,
    batch_s: float = 0.0,
    rejected: tuple[str, ...] = (),
) -> Run:
    """Ten seconds of two CPUs: 1000 answers at 3 s of CPU, 1 s of clients."""
    online = variant != BATCH_ALONE
    return Run(
        variant=variant,
        round=number,
        seconds=10.0,
        cpus=2,
        busy_s=4.5 + batch_s if online else batch_s,
        idle_s=15.5 - batch_s if online else 20.0 - batch_s,
        steal_s=0.0,
        client_s=1.0 if online else 0.0,
        control_s=0.0,
        online={"redis": Felt(1000, 1000, 0.5, p99_ms, 4.0, 3.0)} if online else {},
        batch={"transcode": Job(frames, "frames", batch_s)} if variant != ALONE else {},
        surges=(),
        line=(),
        foreign=(0.0,),
        rejected=rejected,
    )


def test_work_is_counted_in_the_cpu_time_that_it_takes_alone() -> None:
    alone, beside = (
        _run(BATCH_ALONE, frames=2000.0, batch_s=20.0),
        _run(NODEAGENT, frames=1200.0, batch_s=15.0),
    )
    assert figures.work_core_s(alone, alone) == pytest.approx(20.0), "alone it is the whole node's time"
    assert figures.work_core_s(beside, alone) == pytest.approx(12.0), "its 15 s were worth no more"
    assert figures.left_core_s(beside) == pytest.approx(16.0), "20 s less online's 3 and its clients' 1"
    assert figures.utilisation_ratio(beside) == pytest.approx(19.5 / 20.0)


def test_jobs_add_up_whatever_their_units() -> None:
    alone = _run(BATCH_ALONE)
    two = {"transcode": Job(2000.0, "frames", 12.0), "compress": Job(8e6, "bytes", 8.0)}
    half = {"transcode": Job(1000.0, "frames", 7.0), "compress": Job(4e6, "bytes", 5.0)}
    alone = _with_jobs(alone, two)
    assert figures.work_core_s(alone, alone) == pytest.approx(20.0)
    assert figures.work_core_s(_with_jobs(_run(STATIC), half), alone) == pytest.approx(10.0)


def test_effective_utilisation_is_the_sum_of_both_works_over_their_peaks() -> None:
    online, batch = _run(ALONE), _run(BATCH_ALONE, frames=2000.0, batch_s=20.0)
    both = _run(NODEAGENT, frames=1200.0, batch_s=15.0)
    assert figures.online_ratio(online, online) == pytest.approx(3.0 / 20.0)
    assert figures.emu(online, online, batch) == pytest.approx(0.15)
    assert figures.emu(batch, online, batch) == pytest.approx(1.0)
    assert figures.emu(both, online, batch) == pytest.approx(0.15 + 0.6)


def test_ratios_are_of_runs_of_one_round_and_of_valid_ones() -> None:
    runs = [_run(ALONE, n, p99_ms=1.0 + n) for n in range(3)]
    runs += [
        _run(NODEAGENT, n, p99_ms=1.1 * (1.0 + n), rejected=("busy",) if n == 1 else ()) for n in range(3)
    ]
    ratio = Repeats(runs).ratio(NODEAGENT, ALONE, report.p99_of("redis"))
    assert ratio.repeats == 2 and ratio.value == pytest.approx(1.1)
    assert Repeats(runs, rejected_too=True).ratio(NODEAGENT, ALONE, report.p99_of("redis")).repeats == 3
    assert Repeats(runs).ratio(KOORDLET, ALONE, report.p99_of("redis")).value is None


def test_a_run_is_compared_with_the_solo_run_of_its_round_or_the_nearest() -> None:
    runs = [_run(BATCH_ALONE, n, frames=1000.0 * (n + 1), batch_s=20.0) for n in (0, 3)]
    repeats = Repeats([*runs, _run(EQUAL, 1), _run(EQUAL, 2)])
    assert repeats.solo(BATCH_ALONE, 1) == runs[0] and repeats.solo(BATCH_ALONE, 2) == runs[1]


def test_the_interval_holds_the_median_and_what_was_never_answered_is_the_worst() -> None:
    told = measured([1.0, 2.0, 3.0, 4.0, 5.0])
    assert told.value == 3.0 and told.low is not None and told.high is not None
    assert 1.0 <= told.low < 3.0 < told.high <= 5.0
    assert measured([1.0, 2.0, None]).value == 2.0 and measured([1.0, None, None]).value is None
    assert measured([]).repeats == 0
    assert measured([4.0]) == figures.Measured(4.0, 4.0, 4.0, 1)


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=9))
def test_an_interval_is_within_what_was_measured_and_the_same_each_time(values: list[float]) -> None:
    told = measured(values)
    assert told == measured(values)
    assert told.low is not None and told.value is not None and told.high is not None
    assert min(values) <= told.low <= told.value <= told.high <= max(values)


def test_a_target_that_was_never_reached_is_missed_and_one_without_a_run_is_not_known() -> None:
    assert report.Target("p99", measured([None]), most=1.1).held is False
    assert report.Target("p99", measured([]), most=1.1).held is None
    assert report.Target("p99", measured([1.05]), most=1.1).held is True
    assert report.Target("work", measured([0.5]), least=0.9).held is False
    assert report.Target("work", measured([0.5])).held is None


def test_the_table_names_every_variant_figure_target_and_rejected_run() -> None:
    runs = [_run(name, frames=1000.0, batch_s=10.0) for name in VARIANTS]
    runs.append(_run(STATIC, 1, rejected=("others' CPU",)))
    machine = Machine("6.1", "a CPU", 2, True, "v2", 4.0)
    experiment = Experiment(
        machine=machine,
        seed=1,
        shape=Shape(1.0, 10.0),
        crest_per_s={"redis": 100.0},
        agent={},
        absent=("ffmpeg",),
        runs=tuple(runs),
    )
    told = report.evaluate(experiment)
    text = report.as_text(told)
    assert all(name in text for name in (*VARIANTS, "redis p99, ms", "EMU", "MISSED", "ok", "ffmpeg"))
    assert "static weights, round 1: others' CPU" in text
    assert {t.name: t.held for t in told.targets}["redis p99: nodeagent / alone"] is True


def test_the_readme_shows_what_was_recorded() -> None:
    recorded = ROOT / "tests/recorded/colocate/hybrid.json"
    experiment = msgspec.json.decode(recorded.read_bytes(), type=Experiment)
    told = report.evaluate(experiment)
    assert (told.rounds, told.rejected) == (5, ())
    assert report.as_markdown(told) in (ROOT / "README.md").read_text()


def test_the_tide_goes_from_trough_to_crest_and_back_and_surges_come_on_top() -> None:
    shape = Shape(5.0, 40.0, (0.2,))
    assert level(0.0, shape) == level(4.9, shape) == TROUGH_RATIO
    assert level(25.0, shape) == pytest.approx(1.0)
    assert shape.surges_at_s == (13.0,)
    assert level(13.0, shape) == pytest.approx(SURGE_FACTOR * level(13.0, Shape(5.0, 40.0, ())))
    assert Shape(5.0, 40.0, (0.99,)).surges_at_s == (), "it would not end within the window"
    steps = rates(100.0, shape)
    assert steps[0] == (0.0, 25.0) and steps[-1][1] == 0.0 and steps[-1][0] > shape.lasts_s
    assert [at for at, _ in steps] == sorted(at for at, _ in steps)


def _samples(batch: float, after: float, falls_at: float, quota_at: float = math.inf) -> list[Sample]:
    """Twenty seconds, a hundred samples each, of Batch's cores before and after it falls."""
    made, used = [], 0.0
    for n in range(2000):
        at = n / 100.0
        made.append(Sample(at, 0.0, used, 1.5 if at < quota_at else 1.0))
        used += (batch if at < falls_at else after) / 100.0
    return made


def test_a_surge_pushes_batch_back_when_its_use_falls() -> None:
    told = reaction(_samples(1.5, 0.5, 10.30, quota_at=10.5), 10.0, 4.0, 2)
    assert told.used_s == pytest.approx(0.3, abs=0.011)
    assert told.quota_s == pytest.approx(0.5)


def test_what_does_not_give_way_to_a_surge_is_never_pushed_back() -> None:
    told = reaction(_samples(1.5, 1.45, 10.3), 10.0, 4.0, 2)
    assert told.used_s is None and told.quota_s is None


def test_the_line_of_a_window_is_what_was_used_in_each_slice() -> None:
    told = list(line(_samples(1.5, 0.5, 10.0), 8.0, 12.0))
    assert 14 <= len(told) <= 16
    assert told[0].batch == pytest.approx(1.5) and told[-1].batch == pytest.approx(0.5)


def test_the_count_of_a_job_is_the_last_that_it_told(tmp_path: Path) -> None:
    (tmp_path / "progress").write_text("frame=12\nfps=1\nprogress=continue\nframe=340\nfps=2\nprogr")
    assert frames(tmp_path / "progress") == 340.0
    (tmp_path / "counters").write_bytes((7).to_bytes(8, "little") + (5).to_bytes(8, "little") + b"\0\0")
    assert counters(tmp_path / "counters") == 12.0
    assert megabytes(tmp_path / "counters") == pytest.approx(12e-6)
    assert frames(tmp_path / "none") == counters(tmp_path / "none") == 0.0


def test_weights_are_equal_by_pod_or_those_of_kubernetes() -> None:
    assert weights(EQUAL, 2, 3) == (2048, 3072)
    assert weights(STATIC, 2, 3) == weights(IDLE, 2, 3) == weights(KOORDLET, 2, 3) == (2048, 2)
    assert weights(NODEAGENT, 2, 3) is None


def _with_jobs(run: Run, jobs: dict[str, Job]) -> Run:
    return replace(run, batch=jobs)
