"""What an application's words are worth: latency, slack, requests and CPU time per request."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.core.apps import (
    cpu_per_request_s,
    fresh,
    latency_s,
    requests_per_s,
    served,
    slack,
)
from nodeagent.model.senses import Served
from nodeagent.model.symptom import AppReading, Slo

GOOD = AppReading(
    "prometheus",
    at=100.0,
    requests=5000,
    window_s=5.0,
    window_requests=400,
    latency_s=((0.5, 0.004), (0.99, 0.015)),
    slo=Slo(0.99, 0.020),
)


def test_fresh_and_of_enough_requests_it_is_known() -> None:
    assert latency_s(GOOD, 101.0, 0.99) == 0.015
    assert slack(GOOD, 101.0) == pytest.approx(0.25)
    assert slack(replace(GOOD, latency_s=((0.99, 0.030),)), 101.0) == pytest.approx(-0.5)


@pytest.mark.parametrize(
    ("app", "at"),
    [
        (GOOD, 115.1),
        (replace(GOOD, at=None), 101.0),
        (replace(GOOD, window_requests=299), 101.0),
        (replace(GOOD, latency_s=((0.5, 0.004),)), 101.0),
        (replace(GOOD, latency_s=((0.99, math.nan),)), 101.0),
        (replace(GOOD, latency_s=((0.99, -1.0),)), 101.0),
        (None, 101.0),
    ],
    ids=["stale", "never", "too few", "not told", "not a number", "negative", "nobody"],
)
def test_what_is_not_known_is_never_healthy(app: AppReading | None, at: float) -> None:
    assert latency_s(app, at, 0.99) is None
    assert slack(app, at) is None


@given(st.floats(0.0, 1e6), st.floats(0.0, 100.0))
def test_age_alone_never_makes_anything_known(at: float, more: float) -> None:
    if not fresh(GOOD, at):
        assert not fresh(GOOD, max(at, 100.0) + more) or at < 100.0


def test_without_an_slo_there_is_no_slack() -> None:
    assert slack(replace(GOOD, slo=None), 101.0) is None


def test_requests_a_second_are_between_two_readings_of_one_source() -> None:
    later = replace(GOOD, at=105.0, requests=5500)
    assert requests_per_s(GOOD, later, 106.0) == 100.0
    assert requests_per_s(GOOD, GOOD, 106.0) is None
    assert requests_per_s(GOOD, replace(later, requests=10), 106.0) is None
    assert requests_per_s(GOOD, replace(later, source="grpc"), 106.0) is None
    assert requests_per_s(GOOD, later, 121.0) is None
    assert requests_per_s(None, later, 106.0) is None


def test_cpu_time_is_that_of_the_moment_of_the_count() -> None:
    found = served(GOOD, (99.5, 1_000_000), (100.5, 3_000_000))
    assert found == Served("prometheus", 100.0, 5000, 2_000_000.0)
    assert served(GOOD, (100.0, 1_000_000), (101.0, 3_000_000)) is None  # counted in the tick before
    assert served(GOOD, (99.5, None), (100.5, 3_000_000)) is None
    assert served(GOOD, (99.5, 3_000_000), (100.5, 1_000_000)) is None
    assert served(replace(GOOD, requests=None), (99.5, 1), (100.5, 2)) is None


def test_cpu_per_request_is_known_for_enough_requests_only() -> None:
    before = Served("grpc", 100.0, 1000, 5e6)
    assert cpu_per_request_s(before, Served("grpc", 105.0, 1500, 6e6)) == pytest.approx(0.002)
    assert cpu_per_request_s(before, Served("grpc", 105.0, 1029, 6e6)) is None
    assert cpu_per_request_s(before, Served("grpc", 105.0, 500, 6e6)) is None
    assert cpu_per_request_s(before, Served("statsd", 105.0, 1500, 6e6)) is None
    assert cpu_per_request_s(before, Served("grpc", 105.0, 1500, 4e6)) is None
    assert cpu_per_request_s(before, before) is None
