"""Quantiles of histograms and windows of them: laws, and the cases of Prometheus' histogram_quantile()."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.apps.scraped import increase, risen
from nodeagent.apps.window import WINDOW_S, Slice, Window, counts_of, quantile_s, reading
from nodeagent.model.symptom import Slo

INF = math.inf
quantiles = st.floats(0.001, 0.999)
counts = st.integers(0, 10_000).map(float)


@st.composite
def histograms(draw: st.DrawFn) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Bounds, ascending to inf, and counts with at least one request."""
    finite = sorted(draw(st.sets(st.floats(1e-6, 100.0), min_size=1, max_size=12)))
    each = draw(st.lists(counts, min_size=len(finite) + 1, max_size=len(finite) + 1).filter(any))
    return (*finite, INF), tuple(each)


@given(histograms(), quantiles)
def test_a_quantile_lies_in_the_bucket_that_holds_its_rank(
    histogram: tuple[tuple[float, ...], tuple[float, ...]], q: float
) -> None:
    bounds, each = histogram
    found = quantile_s(bounds, each, q)
    assert found is not None
    rank, below = q * sum(each), 0.0
    index = next(n for n in range(len(each)) if sum(each[: n + 1]) >= rank and each[n])
    below = bounds[index - 1] if index else 0.0
    assert below <= found <= min(bounds[index], max(below, bounds[-2]))


@given(histograms(), quantiles, quantiles)
def test_a_higher_quantile_is_never_smaller(
    histogram: tuple[tuple[float, ...], tuple[float, ...]], a: float, b: float
) -> None:
    low, high = quantile_s(*histogram, min(a, b)), quantile_s(*histogram, max(a, b))
    assert low is not None and high is not None
    assert low <= high


@given(histograms(), quantiles, st.integers(2, 50))
def test_only_the_shares_of_the_buckets_count(
    histogram: tuple[tuple[float, ...], tuple[float, ...]], q: float, times: int
) -> None:
    bounds, each = histogram
    more = quantile_s(bounds, [times * count for count in each], q)
    assert more == pytest.approx(quantile_s(bounds, each, q), rel=1e-6)


def test_inside_a_bucket_it_is_linear_and_the_last_one_counts_as_its_lower_bound() -> None:
    bounds = (0.01, 0.02, INF)
    assert quantile_s(bounds, (50, 50, 0), 0.5) == pytest.approx(0.01)
    assert quantile_s(bounds, (50, 50, 0), 0.75) == pytest.approx(0.015)
    assert quantile_s(bounds, (50, 50, 0), 0.25) == pytest.approx(0.005)
    assert quantile_s(bounds, (10, 10, 80), 0.99) == 0.02


def test_without_requests_or_without_a_finite_bound_there_is_no_quantile() -> None:
    assert quantile_s((0.01, INF), (0, 0), 0.5) is None
    assert quantile_s((INF,), (100,), 0.5) is None
    assert quantile_s((), (), 0.5) is None


@given(st.lists(st.floats(0, 1e9), max_size=20))
def test_counts_of_a_scrape_that_is_no_snapshot_are_never_negative(cumulative: list[float]) -> None:
    each = counts_of(cumulative)
    assert all(count >= 0.0 for count in each)
    assert sum(each) == pytest.approx(max(cumulative, default=0.0))


Series = tuple[tuple[str, str], ...]
series: st.SearchStrategy[Series] = st.sampled_from("abc").map(lambda path: (("path", path),))
cumulated = st.lists(counts, min_size=3, max_size=3).map(
    lambda each: dict(zip((0.1, 0.5, INF), (each[0], sum(each[:2]), sum(each)), strict=True))
)
exposed = st.dictionaries(series, cumulated, max_size=3)


@given(exposed, exposed)
def test_no_increase_is_negative_whatever_restarts_comes_or_goes(
    before: dict[Series, dict[float, float]],
    now: dict[Series, dict[float, float]],
) -> None:
    _, each = increase(before, now)
    assert all(count >= 0.0 for count in each)
    totals = {key: value[INF] for key, value in before.items()}
    assert all(count >= 0.0 for count in risen(totals, {key: value[INF] for key, value in now.items()}))


A, B = (("p", "a"),), (("p", "b"),)
Buckets = dict[Series, dict[float, float]]


def test_a_series_that_fell_began_anew_and_the_others_go_on() -> None:
    before: Buckets = {A: {0.1: 90.0, INF: 100.0}, B: {0.1: 1.0, INF: 10.0}}
    now: Buckets = {A: {0.1: 5.0, INF: 7.0}, B: {0.1: 3.0, INF: 20.0}}
    assert increase(before, now) == ((0.1, INF), (5.0 + 2.0, 2.0 + 8.0))


def test_of_series_with_other_buckets_those_count_that_all_have() -> None:
    before: Buckets = {A: {0.1: 0.0, 0.2: 0.0, INF: 0.0}, B: {0.2: 0.0, INF: 0.0}}
    now: Buckets = {A: {0.1: 1.0, 0.2: 2.0, INF: 3.0}, B: {0.2: 4.0, INF: 5.0}}
    assert increase(before, now) == ((0.2, INF), (6.0, 2.0))


def test_a_series_that_is_new_tells_nothing_yet() -> None:
    assert increase({}, {(): {0.1: 1e6, INF: 2e6}}) == ((), ())


def a_slice(since: float, until: float, requests: float) -> Slice:
    return Slice(since, until, requests, requests, (0.1, INF), (requests, 0.0))


def test_a_window_grows_until_it_has_enough_and_never_beyond_its_length() -> None:
    window = Window()
    for n in range(20):
        window.add(a_slice(5.0 * n, 5.0 * n + 5.0, 100.0))
    enough = window.last(300.0)
    assert (enough.since, enough.until, enough.seen) == (85.0, 100.0, 300.0)
    most = window.last(1e9)
    assert most.until - most.since == WINDOW_S and most.seen == 600.0


def test_windows_that_overlap_are_not_added_up() -> None:
    window = Window()
    window.add(a_slice(0.0, 60.0, 500.0))
    window.add(a_slice(5.0, 65.0, 500.0))
    assert window.last(1e9).seen == 500.0


@pytest.mark.parametrize(
    ("each", "known"),
    [
        (29, ()),
        (30, (0.5, 0.9)),
        (60, (0.5, 0.9, 0.95)),
        (299, (0.5, 0.9, 0.95)),
        (300, (0.5, 0.9, 0.95, 0.99)),
    ],
)
def test_of_too_few_requests_a_quantile_is_unknown(each: int, known: tuple[float, ...]) -> None:
    window = Window()
    window.add(a_slice(0.0, 5.0, each))
    slo = Slo(0.99, 0.02)
    told = reading("prometheus", window, requests=each, slo=slo, period_s=5.0, at=5.0)
    assert tuple(q for q, _ in told.latency_s) == known
    assert (told.window_requests, told.stale_after_s, told.slo) == (each, 15.0, slo)
