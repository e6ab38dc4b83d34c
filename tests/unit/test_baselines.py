"""What is usual: quantiles that fade, load bins, and what of it survives."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.core.interference.baseline import GROWTH, fold, load_bin, spread_out, usuals
from nodeagent.core.interference.signs import RULES
from nodeagent.model.interference_policy import InterferencePolicy
from nodeagent.model.senses import Baseline, Usual, Workload
from nodeagent.model.symptom import Sign

POLICY = InterferencePolicy()
DAY_S = 86_400.0
UNIX = 1.79e9


def learned(values: Sequence[float], sign: Sign = Sign.CPU_STALL, unix: float = UNIX) -> Baseline:
    found = Baseline()
    for n in range(0, len(values), 30):
        found = fold(found, values[n : n + 30], sign, unix + n, POLICY.half_life_s)
    return found


def usual_of(baselines: dict[str, Baseline], load: int = 1, sign: Sign = Sign.CPU_STALL) -> Usual | None:
    return usuals(Workload(baselines), load, POLICY).get(sign)


@given(st.lists(st.floats(0.0, 1e5), min_size=1, max_size=120), st.sampled_from(sorted(RULES)))
def test_quantiles_are_at_most_a_bucket_above_the_samples(values: list[float], sign: Sign) -> None:
    found, rank = learned(values, sign), sorted(values)
    first = RULES[sign].floor * 0.1
    for ratio, quantile in ((0.5, found.q50), (0.95, found.q95), (0.99, found.q99)):
        exact = rank[max(0, math.ceil(ratio * len(rank) * (1 - 1e-9)) - 1)]
        most = max(exact, first) * GROWTH * (1 + 1e-9)
        if exact <= first * (1 + 1e-9):
            assert quantile == 0.0
        else:
            assert exact * (1 - 1e-9) <= quantile <= most


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=60), st.randoms())
def test_the_order_of_samples_does_not_matter_to_the_quantiles(
    values: list[float], chance: random.Random
) -> None:
    mixed = list(values)
    chance.shuffle(mixed)
    one, other = learned(values[:30]), learned(values[:30][::-1])
    assert (one.q50, one.q95, one.q99) == (other.q50, other.q95, other.q99)
    assert sum(learned(mixed).weights) == pytest.approx(sum(learned(values).weights))


@given(st.floats(0.001, 0.5), st.floats(1.5, 100.0))
def test_what_is_usual_scales_with_the_samples_above_the_floor(base: float, factor: float) -> None:
    rnd = random.Random(1)
    values = [20.0 + base * math.exp(rnd.gauss(0.0, 1.0)) for _ in range(300)]
    one = usual_of({"memory.refaults@1": learned(values, Sign.REFAULTS)}, sign=Sign.REFAULTS)
    more = [value * factor for value in values]
    other = usual_of({"memory.refaults@1": learned(more, Sign.REFAULTS)}, sign=Sign.REFAULTS)
    assert one is not None and other is not None
    assert other.median == pytest.approx(one.median * factor, rel=0.11)


def test_the_past_fades_by_half_in_each_half_life() -> None:
    old = learned([0.5] * 300)
    day = fold(old, [0.01] * 150, Sign.CPU_STALL, UNIX + 300 + POLICY.half_life_s, POLICY.half_life_s)
    low, high = 0.01 * GROWTH, 0.5
    assert day.q50 <= low or day.q50 >= high
    more = fold(day, [0.01] * 30, Sign.CPU_STALL, UNIX + 300 + POLICY.half_life_s, POLICY.half_life_s)
    assert more.q50 <= low


def test_what_is_older_than_a_week_of_half_lives_is_forgotten() -> None:
    old = learned([0.5] * 300)
    new = fold(old, [0.01] * 30, Sign.CPU_STALL, UNIX + 10 * DAY_S, POLICY.half_life_s)
    assert new.samples == 30
    assert new.q99 < 0.02


@pytest.mark.parametrize("jump_s", [-10 * DAY_S, -60.0, 3 * DAY_S])
def test_a_clock_that_is_set_leaves_what_was_learned_as_it_was(jump_s: float) -> None:
    old = learned([0.1] * 300)
    new = fold(old, [0.1] * 30, Sign.CPU_STALL, UNIX + jump_s, POLICY.half_life_s)
    assert (new.q50, new.q95, new.samples) == (old.q50, old.q95, 330)
    later = fold(new, [0.1] * 30, Sign.CPU_STALL, UNIX + jump_s + 30, POLICY.half_life_s)
    assert all(math.isfinite(w) and w >= 0.0 for w in later.weights)


def test_a_cold_load_bin_is_compared_with_the_nearest_warm_one() -> None:
    low, high = learned([0.02] * 120), learned([0.2] * 120)
    there = {"cpu.stall@0": low, "cpu.stall@4": high, "cpu.stall@1": learned([0.9] * 30)}
    one, three, far = usual_of(there, 1), usual_of(there, 3), usual_of(there, 9)
    assert one is not None and three is not None and far is not None
    assert one.median < 0.03
    assert three.median == far.median > 0.19
    assert usual_of(there, 2) == three  # as near to both: the one of more load


def test_load_bins_that_are_all_cold_are_warm_together() -> None:
    there = {f"cpu.stall@{n}": learned([0.1] * 40) for n in range(3)}
    assert usual_of(there) is not None
    del there["cpu.stall@2"]
    assert usual_of(there) is None


def test_spread_is_never_below_the_floor_nor_below_a_twentieth_of_the_median() -> None:
    quiet = usual_of({"cpu.stall@1": learned([0.0] * 200)})
    loud = usual_of({"cpu.stall@1": learned([0.8] * 200)})
    assert quiet == Usual(0.0, 0.02, 0.02)
    assert loud is not None and loud.spread == pytest.approx(0.05 * loud.median)
    assert spread_out(quiet, 0.1, 1.0) == Usual(0.0, 0.1, 0.1)
    assert spread_out(quiet, 0.001, 1.0) is quiet


def test_samples_that_come_in_clumps_spread_wider() -> None:
    rnd = random.Random(7)
    alone = [rnd.choice((0.02, 0.10)) for _ in range(3000)]
    clumps = [value for value in alone[::10] for _ in range(10)]
    one, other = learned(alone), learned(clumps)
    assert one.clumped == pytest.approx(1.0, abs=0.2)
    assert other.clumped > 5.0


@pytest.mark.parametrize(
    ("cores", "request_cores", "found"),
    [
        (0.0, 1.0, 0), (0.19, 1.0, 0), (0.2, 1.0, 1), (0.79, 1.0, 3), (0.8, 1.0, 4), (1.9, 1.0, 4),
        (2.0, 1.0, 5), (0.0, None, 100), (0.124, None, 100), (0.125, None, 101), (0.25, None, 102),
        (8.0, None, 107), (1e9, None, 124),
    ],
)  # fmt: skip
def test_load_bins_are_fifths_of_the_request_or_doublings(
    cores: float, request_cores: float | None, found: int
) -> None:
    assert load_bin(cores, request_cores) == found


@given(st.floats(0.0, 1e6), st.floats(0.0, 1e6), st.sampled_from([None, 0.1, 1.0, 64.0]))
def test_more_use_is_never_in_a_lower_load_bin(one: float, other: float, request: float | None) -> None:
    low, high = sorted((one, other))
    assert load_bin(low, request) <= load_bin(high, request)
