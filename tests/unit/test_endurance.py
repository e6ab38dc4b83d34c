"""What the long benches make of what they have seen: gaps, lives, slopes, lateness; literals and laws."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.endurance_load import SETTLE_S, VARIANTS, turns
from tests.bench.endurance_node import unit_weight_ratio
from tests.bench.endurance_seen import (
    Life,
    Noted,
    births,
    deaths,
    distinct,
    lapses,
    long_enough,
    missing,
    untold,
)
from tests.bench.lateness import Stamp, lateness, phase_s
from tests.bench.soak_seen import fit


def noted(seq: int, pods: str = "", run: str = "a") -> Noted:
    return Noted(run, seq, 100.0 + seq, "timer", frozenset(pods.split()))


def test_a_sequence_that_goes_on_across_segments_and_runs_has_no_gap() -> None:
    assert missing([noted(7), noted(8), noted(9), noted(0, run="b"), noted(1, run="b")]) == 0
    assert missing([]) == 0


def test_ticks_that_are_not_there_or_there_twice_are_counted() -> None:
    assert missing([noted(0), noted(1), noted(4)]) == 2
    assert missing([noted(0), noted(1), noted(1), noted(2)]) == 1


@given(st.sets(st.integers(1, 98)))
def test_all_that_is_taken_out_of_the_middle_is_missed(gone: set[int]) -> None:
    assert missing(noted(seq) for seq in range(100) if seq not in gone) == len(gone)


def test_a_birth_is_noted_by_the_first_tick_with_the_pod_and_a_death_by_the_first_without() -> None:
    ticks = [noted(0), noted(1, "p"), noted(2, "p q"), noted(3, "q"), noted(4)]
    lives = [Life("p", 100.5, 102.75), Life("q", 102.5, 103.5)]
    assert births(lives, ticks).after_s == [0.5, 0.0]  # q was there when tick 2, which had begun, looked
    assert deaths(lives, ticks).after_s == [0.25, 0.5]


def test_what_no_tick_has_and_what_is_there_to_the_end_was_never_noted() -> None:
    ticks = [noted(0), noted(1, "p"), noted(2, "p")]
    lives = [Life("p", 100.5, 101.5), Life("q", 100.2, 101.9)]
    assert births(lives, ticks).never == ["q"]
    assert deaths(lives, ticks).never == ["p", "q"]


def test_a_pod_that_is_missing_in_a_tick_while_it_lives_is_found() -> None:
    assert lapses([noted(0, "p"), noted(1, "p q"), noted(2, "q"), noted(3, "p q"), noted(4, "q")]) == ["p"]
    assert lapses([noted(0, "p"), noted(1, "p"), noted(2, "q"), noted(3)]) == []


def test_only_lives_that_a_tick_must_have_seen_count() -> None:
    assert long_enough([Life("p", 1.0, 2.4), Life("q", 1.0, 2.6)], 1.5) == [Life("q", 1.0, 2.6)]


def test_repeats_of_a_policy_are_one() -> None:
    assert distinct([5.0, 5.0, 4.0, 5.0, 5.0]) == [5.0, 4.0, 5.0]
    assert distinct([]) == []


def test_events_are_told_or_told_to_be_missed_or_neither() -> None:
    assert untold(5, 14, received=10, missed=0) == 0
    assert untold(5, 14, received=7, missed=3) == 0
    assert untold(5, 14, received=7, missed=1) == 2
    assert untold(0, 0, received=0, missed=0) == 0


def test_the_slope_of_a_line_is_found_without_error() -> None:
    found = fit([(x / 10, 3.0 * x / 10 + 7.0) for x in range(50)])
    assert found.slope == pytest.approx(3.0)
    assert found.error == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("points", [[], [(1.0, 2.0)], [(1.0, 2.0), (2.0, 3.0)], [(1.0, 2.0)] * 9])
def test_too_few_points_tell_nothing(points: list[tuple[float, float]]) -> None:
    assert fit(points) == (0.0, math.inf)


def test_the_error_is_as_large_as_slopes_really_scatter() -> None:
    luck = random.Random(7)
    fits = [fit([(x / 100, luck.gauss(0.0, 1.0)) for x in range(100)]) for _ in range(300)]
    scatter = math.sqrt(sum(each.slope**2 for each in fits) / len(fits))
    usual = sum(each.error for each in fits) / len(fits)
    assert scatter == pytest.approx(usual, rel=0.2)


def test_points_that_hang_together_tell_less() -> None:
    luck = random.Random(7)
    apart = [luck.gauss(0.0, 1.0) for _ in range(100)]
    together = [apart[number // 10] for number in range(100)]
    errors = [fit([(x / 100, y) for x, y in enumerate(ys)]).error for ys in (apart, together)]
    assert errors[1] > 2 * errors[0]


@given(st.floats(0.1, 100.0), st.floats(-100.0, 100.0))
def test_the_error_has_the_unit_of_the_slope(scale: float, shift: float) -> None:
    luck = random.Random(3)
    points = [(float(x), luck.gauss(0.0, 1.0)) for x in range(20)]
    one, other = fit(points), fit([(x + shift, y * scale) for x, y in points])
    assert other.slope == pytest.approx(one.slope * scale, abs=1e-6 * scale)
    assert other.error == pytest.approx(one.error * scale, rel=1e-6)


def stamps(*times: float) -> list[Stamp]:
    return [Stamp(at, "timer") for at in times]


def test_lateness_counts_from_the_grid_on_which_most_ticks_are() -> None:
    late = lateness(stamps(10.0, 10.25, 10.5, 10.83, 11.0, 11.25), 0.25)
    assert [round(each.by_s, 6) for each in late] == [0.0, 0.0, 0.08, 0.0, 0.0]
    assert late[2].at == 10.83


def test_a_tick_that_is_later_than_the_next_was_due_is_late_by_all_of_that() -> None:
    late = lateness(stamps(10.0, 10.25, 10.5, 11.13, 11.25, 11.5), 0.25)
    assert [round(each.by_s, 6) for each in late] == [0.0, 0.0, 0.38, 0.0, 0.0]


def test_an_early_tick_is_not_late_and_takes_nothing_from_the_one_that_is_due() -> None:
    early = [*stamps(10.0, 10.25), Stamp(10.4, "psi"), *stamps(10.53, 10.75)]
    assert [(each.at, round(each.by_s, 6)) for each in lateness(early, 0.25)] == [
        (10.25, 0.0),
        (10.53, 0.03),
        (10.75, 0.0),
    ]


def test_what_is_due_while_a_tick_is_at_work_is_missed_and_not_late() -> None:
    busy = [*stamps(10.0, 10.25), Stamp(10.49, "psi"), *stamps(10.75, 11.0)]
    assert [round(each.by_s, 6) for each in lateness(busy, 0.25)] == [0.0, 0.0, 0.0]
    done = [*stamps(10.0, 10.25), Stamp(10.49, "psi"), *stamps(10.53, 10.75)]
    assert [round(each.by_s, 6) for each in lateness(done, 0.25)] == [0.0, 0.03, 0.0]


def test_a_tick_a_little_before_the_crowd_was_on_time_and_so_is_the_next() -> None:
    early = stamps(10.0006, 10.2502, 10.5006, 10.7507, 11.0008)
    assert all(each.by_s < 0.001 for each in lateness(early, 0.25))


def test_no_ticks_are_not_late() -> None:
    assert lateness([], 0.25) == []
    assert lateness([Stamp(1.0, "psi")], 0.25) == []


@given(st.lists(st.integers(0, 240), min_size=5, max_size=60), st.integers(0, 249))
def test_lateness_is_found_to_the_width_of_the_crowd(late_ms: list[int], phase_ms: int) -> None:
    """However late some are, as long as most are hardly late."""
    on_time = [0] * (2 * len(late_ms))
    all_ms = [number * 250 + phase_ms + late for number, late in enumerate([*on_time, *late_ms])]
    found = lateness(stamps(*(each / 1000 for each in all_ms)), 0.25)
    for late, wanted in zip(found, [*on_time, *late_ms][1:], strict=True):
        assert late.by_s * 1000 == pytest.approx(wanted, abs=2.001)


def test_the_grid_is_found_across_its_edge() -> None:
    assert phase_s([10.0, 10.2505, 10.5, 10.75, 11.1], 0.25) % 0.25 == pytest.approx(0.0, abs=1e-9)
    assert phase_s([10.001, 10.2499, 10.4998, 10.7497], 0.25) % 0.25 == pytest.approx(0.2497, abs=1e-6)
    late = lateness(stamps(10.001, 10.2499, 10.4998), 0.25)
    assert [each.by_s for each in late] == pytest.approx([0.0001, 0.0], abs=2e-4)


@pytest.mark.parametrize("seconds", [60.0, 108.0, 1740.0])
def test_each_kind_of_load_has_as_much_time_as_any_other_and_all_end_in_time(seconds: float) -> None:
    made = list(turns(seconds))
    counts = {variant: sum(turn.variant == variant for turn in made) for variant in VARIANTS}
    assert len(set(counts.values())) == 1
    assert sum(turn.seconds for turn in made) < seconds
    assert all(turn.seconds > SETTLE_S for turn in made)


def test_the_weight_that_is_tried_is_that_of_the_installed_unit() -> None:
    assert unit_weight_ratio() == 10.0
