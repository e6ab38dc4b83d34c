"""The SYNTHETIC tide, and the peers' published formulas with numbers worked out by hand from their rules."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from nodeagent.simulate import table
from nodeagent.simulate.fluid import Lender, Share
from tests.bench.tide import katalyst, koordlet, volcano
from tests.bench.tide.generated import Tide, rows, trace
from tests.bench.tide.inputs import Every, Window
from tests.bench.tide.katalyst import Katalyst
from tests.bench.tide.koordlet import Koordinator
from tests.bench.tide.volcano import Volcano

HOUR = Tide(hours=1.0)


def fed(lender: Lender, *steps: tuple[float | None, float], span_s: float = 1.0) -> list[tuple[float, float]]:
    """(limit, offer) after each step of (online, Batch) cores."""
    lender.start(0.0)
    found = []
    for n, (online, batch) in enumerate(steps, 1):
        known = None if online is None else batch
        terms = lender.after(Share(n * span_s, span_s, (online,), (online,), known))
        found.append((terms.limit_cores, terms.offered_cores))
    return found


def test_the_same_tide_is_the_same_trace_and_is_labelled() -> None:
    assert list(trace(HOUR).pods[0].cores) == list(trace(HOUR).pods[0].cores)
    assert list(trace(HOUR).pods[0].cores) != list(trace(replace(HOUR, seed=8)).pods[0].cores)
    assert all(note.startswith("SYNTHETIC") for note in trace(HOUR).notes)


def test_the_tide_has_its_peak_and_its_trough_where_it_is_told_to() -> None:
    calm = trace(Tide(every_s=60.0, noise=0.0, crowds=0.0))
    (pod,) = calm.pods
    level = dict(zip(pod.times, pod.cores, strict=True))
    assert level[20 * 3600.0] == max(pod.cores) == pytest.approx(0.55 * 32)
    assert level[8 * 3600.0] == min(pod.cores) == pytest.approx(0.15 * 32)
    assert level[2 * 3600.0] == pytest.approx(0.35 * 32)


def test_noise_has_its_spread_and_lasts() -> None:
    flat = Tide(hours=24.0, low=0.5, high=0.5, crowds=0.0)
    values = list(trace(flat).pods[0].cores)
    assert statistics.pstdev(values) == pytest.approx(0.03 * 32, rel=0.2)
    mean = statistics.fmean(values)
    late = [(a - mean) * (b - mean) for a, b in zip(values, values[120:], strict=False)]
    assert statistics.fmean(late) / statistics.pvariance(values) == pytest.approx(0.37, abs=0.12)  # 1/e


def test_a_flash_crowd_is_there_within_its_rise_and_fades_in_its_own_time() -> None:
    lone = Tide(hours=2.0, low=0.2, high=0.2, noise=0.0, crowds=12.0, seed=3)
    values = list(trace(lone).pods[0].cores)
    steepest = max(range(1, len(values)), key=lambda n: values[n] - values[n - 1])
    top = max(values[steepest : steepest + 5])
    assert top - values[steepest - 2] > 0.2 * 0.3 * 32
    assert values[steepest + 5] - values[steepest + 245] == pytest.approx(
        (top - 0.2 * 32) * (1 - 0.3679), rel=0.1
    )


def test_the_tide_goes_through_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tide.csv"
    path.write_text("".join(f"{row}\n" for row in rows(trace(HOUR))))
    read = table.read(str(path))
    assert read.notes == (HOUR.note[:200],)
    assert list(read.pods[0].cores) == pytest.approx(list(trace(HOUR).pods[0].cores), abs=1e-4)


def test_a_period_is_kept_whatever_the_step() -> None:
    def dues(step_s: int, period_s: float) -> list[int]:
        every = Every(period_s)
        every.due(0)
        return [at for at in range(step_s, 31, step_s) if every.due(at)]

    assert dues(1, 5.0) == [5, 10, 15, 20, 25, 30]
    assert dues(10, 5.0) == [10, 20, 30]
    assert dues(3, 5.0) == [6, 12, 15, 21, 27, 30]


def test_a_window_forgets_and_weighs_by_time() -> None:
    window = Window(10.0)
    assert window.mean is None
    window.add(1.0, 4.0, 1.0)
    window.add(4.0, 8.0, 3.0)
    assert window.mean == pytest.approx(7.0)
    window.add(12.0, 0.0, 1.0)
    assert window.mean == pytest.approx(6.0)


@pytest.mark.parametrize(
    ("cap", "percent", "not_be", "node", "pods", "reserved", "target"),
    [
        (32000, 65, 10000, 10000, 10000, 0, 10800),  # 20.8 - 10
        (32000, 65, 10000, 13000, 12000, 0, 9800),  # one core of system
        (32000, 65, 10000, 13000, 12000, 2000, 8800),  # two reserved are more
        (32000, 65, 25000, 25000, 25000, 0, -4200),
    ],
)
def test_koordlets_suppress_target(  # one number per term
    cap: int, percent: int, not_be: int, node: int, pods: int, reserved: int, target: int
) -> None:
    assert koordlet.suppress_milli(cap, percent, not_be, node, pods, reserved) == target


@pytest.mark.parametrize(
    ("target", "held", "quota"),
    [
        (10800, -1, 1_080_000),  # from unlimited at once
        (10800, 1_060_000, 1_060_000),  # less than 1 % of 32 cores (32,000 us)
        (10800, 1_040_000, 1_080_000),
        (10800, 500_000, 820_000),  # 10 % of 32 cores (320,000 us) up
        (5000, 1_080_000, 500_000),  # at once down
        (-4200, 1_080_000, 2000),  # never below
        (10, 10_000, 2000),  # the least one is written also for a small change
    ],
)
def test_koordlets_quota(target: int, held: int, quota: int) -> None:
    assert koordlet.next_quota_us(target, held, 32) == quota


def test_koordinators_batch_cpu() -> None:
    assert koordlet.batch_milli(32000, 60, 0, 0, 10000) == 9200  # 32 - 12.8 - 10
    assert koordlet.batch_milli(32000, 60, 1000, 2000, 10000) == 7200
    assert koordlet.batch_milli(32000, 60, 0, 0, 25000) == 0
    assert koordlet.batch_milli(10000, 110, 0, 0, 5000) == 6000  # the margin may be negative
    assert not koordlet.published(10_900, 10_000, 60.0)
    assert koordlet.published(11_100, 10_000, 60.0)
    assert koordlet.published(10_000, 10_000, 301.0)


def test_koordlet_limits_each_second_and_koordinator_offers_each_minute() -> None:
    found = fed(Koordinator(32), *[(10.0, 0.0)] * 60, *[(20.0, 10.8)] * 60)
    assert found[0] == pytest.approx((10.8, 0.0))
    assert found[59] == pytest.approx((10.8, 9.2))
    assert found[60][0] == pytest.approx(0.8)  # 20.8 - 20, at once
    assert found[118][1] == pytest.approx(9.2)  # told once a minute
    assert found[119][1] == pytest.approx(19.2 - 15.0)  # the mean of five minutes
    regrown = fed(Koordinator(32), (20.0, 0.0), *[(10.0, 1.0)] * 4)
    assert [limit for limit, _ in regrown] == pytest.approx([0.8, 4.0, 7.2, 10.4, 10.8])


def test_koordlet_does_nothing_without_metrics_and_its_offer_ends_after_fifteen_minutes() -> None:
    found = fed(Koordinator(32), *[(10.0, 0.0)] * 2, *[(None, 0.0)] * 20, span_s=60.0)
    assert [limit for limit, _ in found] == pytest.approx([10.8] * 22)
    assert found[15][1] == pytest.approx(9.2)
    assert found[-1][1] == 0.0


def test_katalysts_dynamic_quota_and_supply() -> None:
    assert katalyst.dynamic_quota(32, 0.6, 18.0, 8.0, 4.0) == pytest.approx(9.2)  # 19.2 - 18 + 8
    assert katalyst.dynamic_quota(32, 0.6, 30.0, 4.0, 4.0) == 4.0
    assert katalyst.supply(32, 18.0, 8.0, 9.2) == pytest.approx(9.2)
    assert katalyst.supply(32, 18.0, 8.0, float("inf")) == pytest.approx(22.0)
    assert katalyst.supply(32, 40.0, 1.0, float("inf")) == 1.0


@pytest.mark.parametrize(
    ("last", "supplied", "used", "most", "headroom"),
    [
        (10.0, 10.0, 3.0, 0.0, 12.0),  # + 10 * (.6 - .3) = 13, at most 1.2 times the supply
        (10.0, 20.0, 8.0, 0.0, 20.0),  # + 20 * .2 = 14, at least the supply
        (22.0, 20.0, 16.0, 0.0, 22.0),  # util .8 is above the target, and nothing shrinks it
        (22.0, 20.0, 18.0, 0.8, 20.0),  # + 20 * (.8 - .9) = 20
        (10.0, 0.0, 0.0, 0.0, 0.0),
        (40.0, 40.0, 0.0, 0.0, 32.0),  # the CPUs of the node
    ],
)
def test_katalysts_util_based_headroom(
    last: float, supplied: float, used: float, most: float, headroom: float
) -> None:
    assert katalyst.util_headroom(last, supplied, used, 0.6, most, 1.2, 32.0) == pytest.approx(headroom)


def test_katalysts_report_goes_four_cores_at_a_time_both_ways_and_never_below_four() -> None:
    assert katalyst.reported(None, 20.0) == 20.0
    assert katalyst.reported(20.0, 20.2) == 20.0
    assert katalyst.reported(20.0, 30.0) == 24.0
    assert katalyst.reported(20.0, 0.0) == 16.0
    assert katalyst.reported(6.0, 0.0) == 4.0


def test_katalyst_reports_after_two_minutes_and_takes_minutes_to_withdraw() -> None:
    found = fed(Katalyst(32, util=False), *[(4.0, 0.0)] * 24, *[(18.0, 0.0)] * 24, span_s=5.0)
    assert found[0] == pytest.approx((15.2, 0.0))
    assert [offer for _, offer in found[22:24]] == [0.0, 15.0]
    assert found[24][0] == 4.0  # reserved, though only 1.2 would be left
    assert [found[n][1] for n in (29, 35, 41, 47)] == pytest.approx([12.25, 9.5, 6.75, 4.0])


def test_katalyst_keeps_all_it_had_while_it_sees_nothing() -> None:
    found = fed(Katalyst(32, util=True), *[(4.0, 0.0)] * 24, *[(None, 0.0)] * 24, span_s=5.0)
    assert set(found[23:]) == {found[23]}
    assert found[23][1] > 0.0


def test_volcanos_throttle() -> None:
    assert volcano.throttled(32.0, 10.0, None) == pytest.approx(15.6)
    assert volcano.throttled(32.0, 10.0, 15.5) == 15.5  # within 1 %
    assert volcano.throttled(32.0, 10.0, 4.0) == pytest.approx(7.2)  # 10 % of the node up
    assert volcano.throttled(32.0, 24.0, 15.6) == pytest.approx(1.6)
    assert volcano.throttled(32.0, 30.0, 15.6) == 0.01


def test_volcanos_oversubscription() -> None:
    assert volcano.oversold(32.0, 4.0, 20.0) == pytest.approx(4.8)
    assert volcano.oversold(32.0, 4.0, 30.0) == 0.0
    assert volcano.weighted([1.0, 2.0, 4.0]) == pytest.approx((1 + 4 + 16) / 7)
    assert volcano.patched(11.1, 10.0, 10.0)
    assert not volcano.patched(10.9, 10.0, 10.0)
    assert volcano.patched(10.0, 10.0, 60.0)


def test_volcano_looks_every_ten_seconds_and_counts_batchs_own_use_against_its_offer() -> None:
    found = fed(Volcano(32), *[(10.0, 0.0)] * 20, *[(10.0, 10.0)] * 10)
    assert found[8] == (float("inf"), 0.0)
    assert found[9] == pytest.approx((15.6, 0.6 * 22))
    assert found[-1][1] == pytest.approx((1 * 13.2 + 2 * 13.2 + 4 * 7.2) / 7)
