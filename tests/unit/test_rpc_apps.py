"""PushAppSignals by real clients of a real server: who may tell of whom, and what is taken."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from nodeagent.apps.applications import Applications
from nodeagent.apps.pushed import Pushed
from nodeagent.core.apps import latency_s, slack
from nodeagent.model.app import AppRule, Push
from nodeagent.model.pod import Qos
from nodeagent.model.symptom import Slo
from nodeagent.rpc.caller import Access
from nodeagent.rpc.server import RpcServer
from nodeagent.v1 import apps_pb2 as pb
from nodeagent.v1.apps_pb2_grpc import AppSignalsStub
from tests.unit.endpoints import app_of, applications, pod
from tests.unit.rpc_clients import WAIT_S, code, serving

SEARCH, OTHER, BATCH = pod("search"), pod("other"), pod("batch", qos=Qos.BATCH)
FIVE_S = Duration(seconds=5)
READERS = Access(director_uids=())
QUANTILES = [
    pb.LatencyQuantile(quantile=0.5, latency_s=0.004),
    pb.LatencyQuantile(quantile=0.99, latency_s=0.015),
]


@contextmanager
def pushing(
    home: Path, cgroup: str, *rules: AppRule, access: Access = READERS, **settings: Any
) -> Iterator[tuple[Applications, Any]]:
    """The agent's parts, and a client whose process is in that cgroup."""
    cgroups = {os.getpid(): cgroup}
    with (
        applications((SEARCH, OTHER, BATCH), *rules, cgroups=cgroups, **settings) as running,
        serving(f"unix:{home}/s", pushes=running, access=access) as server,
    ):
        yield running, stub(server)


def stub(server: RpcServer) -> Any:
    return AppSignalsStub(grpc.insecure_channel(server.address))


def ask(**fields: Any) -> pb.PushAppSignalsRequest:
    given: dict[str, Any] = {"window": FIVE_S, "requests": 1000, "quantiles": QUANTILES, **fields}
    return pb.PushAppSignalsRequest(**given)


def test_an_application_tells_of_the_pod_that_its_process_is_in(tmp_path: Path) -> None:
    rule = AppRule("search", slo="p99 <= 20ms")
    with pushing(tmp_path, "pods/search/container/x", rule) as (running, client):
        answer = client.PushAppSignals(ask(slo="p50 <= 1us"), timeout=WAIT_S)
        assert (answer.pod_uid, answer.pod_name) == ("uid-search", "search")
        at = time.monotonic()
        app = app_of(running, SEARCH, at)
        assert app is not None and (app.source, app.requests, app.window_requests) == ("grpc", 1000, 1000)
        assert latency_s(app, at, 0.99) == 0.015 and slack(app, at) == pytest.approx(0.25)
        assert app_of(running, OTHER, at) is None
        assert client.PushAppSignals(ask(pod="search"), timeout=WAIT_S).pod_uid == "uid-search"


@pytest.mark.parametrize(
    ("cgroup", "named", "status", "told"),
    [
        ("pods/search", "other", grpc.StatusCode.PERMISSION_DENIED, "of its own pod alone"),
        ("pods/search", "uid-other", grpc.StatusCode.PERMISSION_DENIED, "of its own pod alone"),
        ("pods/searching", "", grpc.StatusCode.FAILED_PRECONDITION, "in no known pod"),
        ("", "", grpc.StatusCode.FAILED_PRECONDITION, "in no known pod"),
        ("", "search", grpc.StatusCode.PERMISSION_DENIED, "of its own pod alone"),
        ("pods/batch", "", grpc.StatusCode.FAILED_PRECONDITION, "is a Batch pod"),
    ],
)
def test_nobody_tells_of_another_pod(
    tmp_path: Path, cgroup: str, named: str, status: grpc.StatusCode, told: str
) -> None:
    with pushing(tmp_path, cgroup) as (running, client):
        found, why = code(lambda: client.PushAppSignals(ask(pod=named), timeout=WAIT_S))
        assert found is status and told in why
        assert all(app_of(running, each, time.monotonic()) is None for each in (SEARCH, OTHER))


def test_a_director_may_name_any_pod(tmp_path: Path) -> None:
    with pushing(tmp_path, "", access=Access(director_uids=(os.getuid(),))) as (running, client):
        assert client.PushAppSignals(ask(pod="other"), timeout=WAIT_S).pod_uid == "uid-other"
        assert app_of(running, OTHER, time.monotonic()) is not None
        found, why = code(lambda: client.PushAppSignals(ask(pod="nobody"), timeout=WAIT_S))
        assert found is grpc.StatusCode.NOT_FOUND and "no such pod" in why


def test_push_can_be_turned_off(tmp_path: Path) -> None:
    with pushing(tmp_path, "pods/search", push=False) as (_, client):
        found, why = code(lambda: client.PushAppSignals(ask(), timeout=WAIT_S))
        assert found is grpc.StatusCode.FAILED_PRECONDITION and "app_signals.push" in why


def test_an_slo_may_be_pushed_where_nobody_else_promises(tmp_path: Path) -> None:
    with pushing(tmp_path, "pods/search") as (running, client):
        client.PushAppSignals(ask(slo="p99 <= 20ms"), timeout=WAIT_S)
        app = app_of(running, SEARCH, time.monotonic())
        assert app is not None and app.slo == Slo(0.99, 0.02)


def test_who_pushes_too_often_is_told_so(tmp_path: Path) -> None:
    with pushing(tmp_path, "pods/search") as (_, client):
        calls = [client.PushAppSignals.future(ask(), timeout=WAIT_S) for _ in range(50)]
        codes = [call.code() for call in calls]
        assert codes.count(grpc.StatusCode.OK) >= 5
        assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) >= 30


HISTOGRAM = pb.LatencyHistogram(bounds_s=[0.01, 0.02], counts=[100, 100, 0])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"window": None}, "window"),
        ({"window": Duration(seconds=301)}, "window"),
        ({"window": Duration(seconds=-5)}, "window"),
        ({"requests": 1 << 41}, "requests"),
        ({"histogram": HISTOGRAM}, "no quantiles beside"),
        ({"slo": "p99 < 20 apples"}, "slo"),
        ({"quantiles": [pb.LatencyQuantile(quantile=1.0, latency_s=1.0)]}, "quantiles"),
        ({"quantiles": [pb.LatencyQuantile(quantile=0.5, latency_s=float("nan"))]}, "quantiles"),
        ({"quantiles": [pb.LatencyQuantile(quantile=0.5, latency_s=-1.0)]}, "quantiles"),
        ({"quantiles": [QUANTILES[0]] * 2}, "quantiles"),
        ({"quantiles": [QUANTILES[0], pb.LatencyQuantile(quantile=0.9, latency_s=0.001)]}, "quantiles"),
        ({"quantiles": QUANTILES * 9}, "at most 16"),
        ({"quantiles": [], "histogram": pb.LatencyHistogram()}, "histogram"),
        ({"quantiles": [], "histogram": pb.LatencyHistogram(bounds_s=[2, 1], counts=[1, 1, 1])}, "bounds_s"),
        (
            {"quantiles": [], "histogram": pb.LatencyHistogram(bounds_s=[float("inf")], counts=[1, 1])},
            "bounds_s",
        ),
        ({"quantiles": [], "histogram": HISTOGRAM, "requests": 199}, "more than the 199 requests"),
    ],
)
def test_what_is_wrong_is_refused_with_the_field(tmp_path: Path, wrong: dict[str, Any], told: str) -> None:
    with pushing(tmp_path, "pods/search") as (running, client):
        found, why = code(lambda: client.PushAppSignals(ask(**wrong), timeout=WAIT_S))
        assert found is grpc.StatusCode.INVALID_ARGUMENT and told in why
        assert app_of(running, SEARCH, time.monotonic()) is None


def test_a_server_without_applications_does_not_serve_it(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/s") as server, closing(grpc.insecure_channel(server.address)) as channel:
        found, _ = code(lambda: AppSignalsStub(channel).PushAppSignals(ask(), timeout=WAIT_S))
        assert found is grpc.StatusCode.UNIMPLEMENTED


def histogram(requests: int) -> Push:
    return Push(5.0, requests, bounds_s=(0.01, float("inf")), counts=(float(requests), 0.0))


def test_histograms_of_windows_that_follow_each_other_are_added_up() -> None:
    pushed = Pushed()
    slo = Slo(0.99, 0.02)
    seen = [pushed.take(histogram(100), slo, 5.0 * n) for n in range(4)]
    assert [each.window_requests for each in seen] == [100, 200, 300, 300]
    assert [each.requests for each in seen] == [100, 200, 300, 400]
    assert dict(seen[3].latency_s)[0.99] == pytest.approx(0.0099)


def test_requests_of_windows_that_overlap_are_counted_once() -> None:
    pushed = Pushed()
    told = [pushed.take(Push(60.0, 600), None, 100.0 + 5.0 * n) for n in range(5)]
    assert [each.requests for each in told] == [600, 650, 700, 750, 800]
    assert told[0].stale_after_s == 45.0 and told[1].stale_after_s == 15.0


def test_quantiles_of_too_few_requests_are_not_used() -> None:
    told = Pushed().take(Push(5.0, 299, ((0.5, 0.1), (0.99, 0.2))), None, 0.0)
    assert told.latency_s == ((0.5, 0.1),)
