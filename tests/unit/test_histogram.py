"""The decaying histogram under clocks that are set."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from nodeagent.core.formula import past_peak
from nodeagent.core.histogram import CPU, observe, percentile
from nodeagent.model.decision import Histogram
from nodeagent.model.policy import CapacityPolicy

DAY_S = 86_400.0
NOW = 1.79e9


def _seen(histogram: Histogram, samples: Iterable[tuple[float, float]]) -> Histogram:
    for unix, cores in samples:
        histogram = observe(histogram, unix, cores, CPU, seconds=10.0, half_life_s=43_200.0, window_s=60.0)
    return histogram


def _p95(histogram: Histogram) -> float:
    found = percentile(histogram, 0.95, CPU)
    assert found is not None
    return found


@pytest.mark.parametrize("ahead_s", [3600.0, 10 * DAY_S, 70 * 365 * DAY_S])
def test_the_past_fades_also_after_the_clock_was_set_back(ahead_s: float) -> None:
    busy = _seen(Histogram(), ((NOW + ahead_s + 10.0 * n, 6.0) for n in range(100)))
    quiet = _seen(busy, ((NOW + 10.0 * n, 1.0) for n in range(10_000)))
    assert _p95(quiet) == pytest.approx(1.0, rel=0.05)


def test_a_clock_that_is_set_back_a_little_changes_next_to_nothing() -> None:
    straight = _seen(Histogram(), ((NOW + 10.0 * n, 1.0 + n % 5) for n in range(2000)))
    stepped = _seen(Histogram(), ((NOW + 10.0 * n - 5.0 * (n // 100), 1.0 + n % 5) for n in range(2000)))
    assert _p95(stepped) == _p95(straight)


def test_a_clock_set_back_keeps_what_was_learnt() -> None:
    busy = _seen(Histogram(), ((NOW + DAY_S + 10.0 * n, 6.0) for n in range(1000)))
    assert _p95(_seen(busy, [(NOW, 1.0)])) == pytest.approx(6.0, rel=0.05)


def test_a_peak_of_a_moment_ago_counts_also_when_the_percentile_is_warm_and_lower() -> None:
    """Else the offer would rise and be withdrawn with each wiggle of a rising tide."""
    calm = _seen(Histogram(), ((NOW + 10.0 * n, 1.0) for n in range(1000)))
    wiggle = _seen(calm, [(NOW + 10_000.0, 4.0), (NOW + 10_010.0, 1.0)])
    policy = CapacityPolicy()
    assert past_peak(calm, 0.95, CPU, policy)[0] == pytest.approx(1.0, rel=0.05)
    assert past_peak(wiggle, 0.95, CPU, policy) == (4.0, "maximum of 60 s")
    later = _seen(wiggle, ((NOW + 10_020.0 + 10.0 * n, 1.0) for n in range(8)))
    assert past_peak(later, 0.95, CPU, policy)[0] == pytest.approx(1.0, rel=0.05)
