"""StatsD: lines, what they come to, and real datagrams on real sockets."""

from __future__ import annotations

import os
import socket
import stat
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.apps.applications import Applications
from nodeagent.apps.statsd import BOUNDS, RATIO, SHORTEST_S, Heard, Sample, parsed
from nodeagent.apps.targets import Target
from nodeagent.apps.window import quantile_s
from nodeagent.model.app import AppRule, AppSettings, Selector
from nodeagent.model.errors import Failed
from nodeagent.model.pod import Member
from nodeagent.model.symptom import AppReading
from tests.live.running import until
from tests.unit.endpoints import app_of, applications, pod

SEARCH, OTHER = pod("search"), pod("other")
TARGET = Target(("u", 1), "pods/search", statsd="search", period_s=5.0)


@pytest.mark.parametrize(
    ("line", "sample"),
    [
        (b"search.latency:12.5|ms", Sample("search.latency", True, 0.0125, 1.0)),
        (b"search.latency:12.5|ms|@0.1|#a:b,c", Sample("search.latency", True, 0.0125, 10.0)),
        (b"search.n:3|c|#a:b|@0.5", Sample("search.n", False, 3.0, 2.0)),
        (b"search.n:1|g", None),
        (b"search.n:-1|c", None),
        (b"search.n:nan|ms", None),
        (b"search.n:inf|ms", None),
        (b"search.n:1e99|c", None),
        (b"search.n:1|c|@0", None),
        (b"search.n:1|c|@2", None),
        (b"search.n:1|c|@x", None),
        (b"search.n|c", None),
        (b":1|c", None),
        (b"a" * 257 + b":1|c", None),
        (b"\xff:1|c", None),
        (b"", None),
    ],
)
def test_timers_and_counters_are_read_and_nothing_else(line: bytes, sample: Sample | None) -> None:
    assert parsed(line) == sample


@given(st.binary(max_size=300))
def test_any_line_is_a_sample_within_bounds_or_none(line: bytes) -> None:
    found = parsed(line)
    assert found is None or (0.0 <= found.value <= 1e9 and 1.0 <= found.weight <= 10_001.0)


@given(st.lists(st.floats(RATIO * SHORTEST_S, 900.0), min_size=30, max_size=200), st.floats(0.05, 0.95))
def test_a_quantile_is_within_a_bucket_of_the_true_one(values: list[float], q: float) -> None:
    heard = Heard(TARGET, 0.0)
    for value in values:
        heard.take(Sample("search.x", True, value, 1.0))
    found = quantile_s(BOUNDS, heard._counts, q)
    rank = q * len(values)
    true = sorted(values)[min(len(values) - 1, max(0, -int(-rank // 1) - 1))]
    assert found is not None
    assert true / RATIO * 0.999 <= found <= true * RATIO * 1.001


def test_with_names_only_these_count_and_without_counters_a_timer_is_a_request() -> None:
    heard = Heard(TARGET, 0.0)
    for _ in range(40):
        heard.take(Sample("search.a.b", True, 0.010, 2.0))
    told = heard.told(5.0)
    assert told is not None
    assert (told.source, told.requests, told.window_requests) == ("statsd", 80, 40)  # 40 were measured
    assert told.latency_s[0][1] == pytest.approx(0.010, rel=0.06)

    named = Heard(
        Target(("u", 1), "p", statsd="search", histogram=Selector("latency"), counter=Selector("ok")), 0.0
    )
    for name, timer in (("latency", True), ("other", True), ("ok", False), ("ko", False)):
        named.take(Sample(f"search.{name}", timer, 7.0, 1.0))
    told = named.told(5.0)
    assert told is not None and (told.requests, told.window_requests) == (7, 1)


def test_a_silent_period_is_no_reading_and_what_was_counted_stays_counted() -> None:
    heard = Heard(TARGET, 0.0)
    heard.take(Sample("search.n", False, 50.0, 1.0))
    first = heard.told(5.0)
    assert first is not None and first.requests == 50
    assert heard.told(10.0) is None
    heard.take(Sample("search.x", True, 0.1, 1.0))
    again = heard.told(15.0)
    assert again is not None and again.requests == 50  # counters were heard: a timer is no request


def test_memory_does_not_grow_with_lines() -> None:
    heard = Heard(TARGET, 0.0)
    for n in range(20_000):
        heard.take(Sample("search.x", True, n / 1000.0, 1.0))
    assert len(heard._counts) == len(BOUNDS)


def reading(running: Applications, member: Member = SEARCH) -> AppReading:
    found = app_of(running, member, time.monotonic())
    return found or AppReading("")


RULE = AppRule("search", statsd="search", slo="p99 <= 20ms", period_s=0.5)


def test_datagrams_on_a_unix_socket_become_readings(tmp_path: Path) -> None:
    path = f"{tmp_path}/run/statsd.sock"
    with (
        applications((SEARCH, OTHER), RULE, statsd_socket=path) as running,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
    ):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o622

        def known() -> bool:
            sender.sendto(b"\n".join([b"search.latency:12|ms"] * 300), path)
            return reading(running).at is not None

        until(known, "a reading")
        found = reading(running)
        assert found.source == "statsd" and found.slo is not None
        assert dict(found.latency_s)[0.99] == pytest.approx(0.012, rel=0.06)
        assert reading(running, OTHER) == AppReading("")
    assert not os.path.exists(path)


def test_datagrams_by_udp_count_for_the_pod_with_that_prefix_and_others_are_dropped() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        port = sender.getsockname()[1]
    with (
        applications((SEARCH,), RULE, statsd_udp=f"127.0.0.1:{port}") as running,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):

        def known() -> bool:
            for line in (b"search.requests:40|c", b"searching.requests:1|c", b"search:1|c", b"nonsense"):
                sender.sendto(line, ("127.0.0.1", port))
            return reading(running).at is not None

        until(known, "a reading")
        assert (reading(running).requests or 0) % 40 == 0
        figures = running.figures()
        assert figures.dropped["unknown"] > 0 and figures.dropped["garbled"] > 0


def test_a_process_of_another_pod_tells_nothing_of_this_one(tmp_path: Path) -> None:
    path, cgroups = f"{tmp_path}/statsd.sock", {os.getpid(): "pods/other/container"}
    with (
        applications((SEARCH, OTHER), RULE, cgroups=cgroups, statsd_socket=path) as running,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
    ):
        until(
            lambda: sender.sendto(b"search.n:1|c", path) > 0 and running.figures().dropped["foreign"] > 3,
            "some",
        )
        assert reading(running).at is None


def test_of_pods_with_one_prefix_the_sender_tells_which(tmp_path: Path) -> None:
    path, cgroups = f"{tmp_path}/statsd.sock", {os.getpid(): "pods/web-2/container"}
    one, two = pod("web-1"), pod("web-2")
    rule = AppRule("web-*", statsd="web", period_s=0.5)
    with (
        applications((one, two), rule, cgroups=cgroups, statsd_socket=path) as running,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
    ):
        until(
            lambda: sender.sendto(b"web.n:1|c", path) > 0 and reading(running, two).at is not None,
            "a reading",
        )
        assert reading(running, one).at is None


def test_more_lines_than_allowed_are_dropped_and_counted(tmp_path: Path) -> None:
    path = f"{tmp_path}/statsd.sock"
    with (
        applications((SEARCH,), RULE, statsd_socket=path, statsd_lines_per_s=100) as running,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
    ):
        begin = time.monotonic()
        for _ in range(200):
            sender.sendto(b"\n".join([b"search.n:1|c"] * 10), path)
        until(lambda: running.figures().dropped["rate"] > 0 and reading(running).at is not None, "drops")
        most = 100 * (2.0 + time.monotonic() - begin)
        assert (reading(running).requests or 0) <= most < 2000 + most


def test_a_socket_that_somebody_hears_on_is_not_taken_and_a_dead_one_is(tmp_path: Path) -> None:
    path = f"{tmp_path}/statsd.sock"
    with applications((), statsd_socket=path), pytest.raises(Failed, match="somebody hears there already"):
        Applications(AppSettings(statsd_socket=path), (), lambda _pid: "")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(path)
    with applications((), statsd_socket=path):
        assert stat.S_ISSOCK(os.stat(path).st_mode)
