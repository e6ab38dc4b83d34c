"""Prometheus' text format: what is read is what prometheus_client wrote, and nothing else is believed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from nodeagent.apps.exposition import MAX_LINE_BYTES, MAX_LINES, Exposed, Exposition, Labels
from nodeagent.apps.scraped import unit_s
from nodeagent.model.app import parse_selector
from nodeagent.model.errors import Garbled

INF = math.inf


def read(text: bytes, histogram: str = "", counter: str = "", piece: int = 1 << 16) -> Exposed:
    found = Exposition(
        parse_selector(histogram) if histogram else None, parse_selector(counter) if counter else None
    )
    for at in range(0, len(text), piece):
        found.feed(text[at : at + piece])
    return found.end()


@given(
    st.dictionaries(
        st.text(max_size=8), st.lists(st.floats(0.0, 20.0), min_size=1, max_size=5), min_size=1, max_size=4
    ),
    st.integers(1, 200),
)
def test_it_reads_what_prometheus_own_parser_reads(observed: dict[str, list[float]], piece: int) -> None:
    registry = CollectorRegistry()
    histogram = Histogram("work_seconds", "with\nhelp", ["path"], registry=registry)
    counter = Counter("requests", "requests", ["path"], registry=registry)
    for path, values in observed.items():
        for value in values:
            histogram.labels(path).observe(value)
            counter.labels(path).inc()
    text = generate_latest(registry)
    buckets: dict[tuple[tuple[str, str], ...], dict[float, float]] = {}
    counts: dict[tuple[tuple[str, str], ...], float] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = dict(sample.labels)
            if sample.name == "work_seconds_bucket":
                bound = float(labels.pop("le"))
                buckets.setdefault(tuple(labels.items()), {})[bound] = sample.value
            elif sample.name == "requests_total":
                counts[tuple(labels.items())] = sample.value
    found = read(text, "work_seconds", "requests", piece)
    assert (found.buckets, found.counts) == (buckets, counts)


def test_openmetrics_with_exemplars_and_timestamps_is_read_too() -> None:
    registry = CollectorRegistry()
    histogram = Histogram("work_seconds", "help", registry=registry, buckets=(0.1, 1.0))
    histogram.observe(0.05, exemplar={"trace_id": 'a}"b'})
    text: bytes = openmetrics(registry)  # type: ignore[no-untyped-call]
    found = read(text, "work_seconds")
    assert found.buckets == {(): {0.1: 1.0, 1.0: 1.0, INF: 1.0}}
    timed = b'w_bucket{le="1"} 3 1700000000000\nw_bucket{le="+Inf",} 4 1700000000.5 # {a="b"} 0.5 17\r\n'
    assert read(timed, "w").buckets == {(): {1.0: 3.0, INF: 4.0}}


def test_only_series_with_the_labels_asked_for_count() -> None:
    text = (
        b'w_bucket{path="/a",le="1"} 1\nw_bucket{path="/a",le="+Inf"} 2\n'
        b'w_bucket{path="/b",le="1"} 10\nw_bucket{path="/b",le="+Inf"} 20\n'
        b'n{path="/a",code="200"} 5\nn{path="/a",code="500"} 6\nn{path="/b"} 7\nnn{path="/a"} 8\n'
    )
    found = read(text, 'w{path="/a"}', 'n{path="/a"}')
    assert found.buckets == {(("path", "/a"),): {1.0: 1.0, INF: 2.0}}
    assert sorted(found.counts.values()) == [5.0, 6.0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "no series of w_bucket"),
        (b"<html>w_bucket</html>\n", "no series of w_bucket"),
        (b'w_bucket{le="1"} 3\n', "+Inf"),
        (b"w_bucket 3\n", "no sample"),
        (b'w_bucket{le="x"} 3\n', "no sample"),
        (b'w_bucket{le="nan"} 3\n', "no sample"),
        (b'w_bucket{le="1"} -3\n', "no sample"),
        (b'w_bucket{le="1"} NaN\n', "no sample"),
        (b'w_bucket{le="1"} +Inf\n', "no sample"),
        (b'w_bucket{le="1"\n', "no sample"),
        (b'w_bucket{le="1}" 3\n', "no sample"),
        (b'w_bucket{le="1",le="2"} 3\n', "no sample"),
        (b'w_bucket{le="1"} \xff\n', "no sample"),
        (b'w_bucket{le="1",a="\xff"} 3\n', "no sample"),
        (b"x" * (MAX_LINE_BYTES + 2), "a line of more than"),
        (b'w_bucket{le="1"} 3\n' * (MAX_LINES + 1), "more than 20000 lines"),
    ],
)
def test_what_is_not_a_histogram_is_refused(text: bytes, told: str) -> None:
    with pytest.raises(Garbled, match=told.replace("+", r"\+")):
        read(text, "w")


@given(st.binary(max_size=300))
def test_nothing_but_garbled_is_raised_whatever_comes(noise: bytes) -> None:
    for text in (noise, b'w_bucket{le="1"' + noise + b"\n", b"w_bucket " + noise):
        try:
            found = read(text, "w", "n", piece=7)
        except Garbled:
            continue
        assert found.buckets and found.counts


def test_a_hostile_line_costs_no_more_than_its_length() -> None:
    lines = (
        b'w_bucket{a="' + b"\\\\" * 30_000,
        b"w_bucket{" + b"a" * 60_000,
        b"w_bucket{" + b'a="b",' * 9_000,
    )
    for line in lines:
        with pytest.raises(Garbled):
            read(line + b"\n", "w")


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("a_seconds", 1.0),
        ("a_duration", 1.0),
        ("a_milliseconds", 1e-3),
        ("a_ms_bucket", 1e-3),
        ("a_us", 1e-6),
    ],
)
def test_the_unit_is_told_by_the_end_of_the_name(name: str, unit: float) -> None:
    assert unit_s(name) == unit


def test_labels_of_the_last_answer_are_remembered_and_older_ones_forgotten() -> None:
    labels, selector = Labels(), parse_selector("w")
    for path in ("a", "a", "b", "c"):
        answer = Exposition(selector, None, labels)
        answer.feed(f'w_bucket{{path="{path}",le="1"}} 3\nw_bucket{{path="{path}",le="+Inf"}} 4\n'.encode())
        assert answer.end().buckets == {(("path", path),): {1.0: 3.0, INF: 4.0}}
    assert len(labels._old) == len(labels._new) == 2
