"""[[apps]], [app_signals] and the annotations of pods: what is taken, and what is refused and why."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from nodeagent.check import as_text, effective
from nodeagent.config import load
from nodeagent.model.app import (
    HISTOGRAM,
    METRICS,
    REQUESTS,
    SLO,
    AppWish,
    Url,
    parse_selector,
    parse_slo,
    parse_url,
)
from nodeagent.model.errors import Misconfigured
from nodeagent.model.kubernetes import KubernetesSettings
from nodeagent.model.symptom import Slo
from nodeagent.pods.kubelet_list import read_pods

GOOD = {"match": '"kubepods/**"', "metrics": '"http://127.0.0.1:9121/metrics"', "latency_histogram": '"w"'}


def written(home: Path, **fields: str) -> str:
    path = home / "nodeagent.toml"
    lines = [f"{key} = {value}" for key, value in {**GOOD, **fields}.items() if value]
    path.write_text("\n".join(["[[apps]]", *lines]))
    return str(path)


@pytest.mark.parametrize(
    ("text", "slo"),
    [
        ("p99 <= 20ms", Slo(0.99, 0.020)),
        ("p50<=1.5s", Slo(0.5, 1.5)),
        (" p999 <= 250us ", Slo(0.999, 0.00025)),
        ("p95 ≤ 3s", Slo(0.95, 3.0)),
    ],
)
def test_slos(text: str, slo: Slo) -> None:
    found = parse_slo(text)
    assert found.quantile == pytest.approx(slo.quantile) and found.bound_s == pytest.approx(slo.bound_s)


@pytest.mark.parametrize(
    "text",
    ["", "p99", "p99 < 20ms", "99 <= 20ms", "p99 <= 20", "p99 <= 20min", "p99 <= -1ms", "p99 <= 0ms",
     "p49 <= 1s", "p9999 <= 1s", "p5 <= 1s", "p100 <= 1s", "p99 <= 2h", "p99 <= 1e3ms", "p99 <= 7200s",
     "p٩٩ <= 1s"],
)  # fmt: skip
def test_what_is_no_slo(text: str) -> None:
    with pytest.raises(ValueError, match="takes"):
        parse_slo(text)


def test_urls_are_literal() -> None:
    assert parse_url("http://:9121/metrics?a=b") == Url("", 9121, "/metrics?a=b")
    assert parse_url("http://127.0.0.1:80") == Url("127.0.0.1", 80, "/")
    assert parse_url("http://[::1]:80/x") == Url("::1", 80, "/x")


@pytest.mark.parametrize(
    "text",
    ["localhost:80", "https://127.0.0.1:1/", "http://127.0.0.1/", "http://localhost:1/", "http://127.1:1/",
     "http://2130706433:1/", "http://a@127.0.0.1:1/", "http://127.0.0.1:0/", "http://127.0.0.1:65536/",
     "http://0.0.0.0:1/", "http://[::]:1/", "http://[::ffff:127.0.0.1]:1/", "http://[fe80::1%eth0]:1/",
     "http://224.0.0.1:1/", "http://127.0.0.1:1/a b", "http://127.0.0.1:1/\r\nX: y", "file:///etc/passwd",
     "http://127.0.0.1:1x/", "http://127.0.0.1:١/"],
)  # fmt: skip
def test_what_is_no_url_of_an_endpoint(text: str) -> None:
    with pytest.raises(ValueError, match="takes"):
        parse_url(text)


@pytest.mark.parametrize(
    "text", ["", "9a", "a b", "a{", "a}", 'a{b="c"', "a{b=c}", 'a{b="c" d="e"}', 'a{1="c"}']
)
def test_what_is_no_selector(text: str) -> None:
    with pytest.raises(ValueError, match="takes"):
        parse_selector(text)


def test_entries_are_taken_and_shown(tmp_path: Path) -> None:
    config = load(written(tmp_path, slo='"p99 <= 20ms"', period_s="2"), env={})
    (rule,) = config.apps
    assert (rule.match, rule.slo, rule.period_s) == ("kubepods/**", "p99 <= 20ms", 2.0)
    text = as_text(effective(config))
    assert "[[apps]]" in text and "[app_signals]" in text
    again = tmp_path / "again.toml"
    again.write_text(text)
    assert load(str(again), env={}).apps == config.apps


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"match": '"/"'}, "apps[0].match has an empty glob"),
        ({"match": ""}, "has no match"),
        ({"metrics": '"http://localhost:1/"'}, "apps[0].metrics takes a literal address"),
        ({"latency_histogram": ""}, "apps[0].metrics needs latency_histogram"),
        ({"latency_histogram": '"a-b"'}, "apps[0].latency_histogram takes NAME"),
        ({"requests_counter": '"a b"'}, "apps[0].requests_counter takes NAME"),
        ({"slo": '"fast"'}, 'apps[0].slo takes "p99 <= 20ms"'),
        ({"period_s": "60"}, "apps[0].period_s takes 0.5 to 15"),
        ({"statsd": '"a..b"'}, "apps[0].statsd takes words"),
        ({"url": '"x"'}, "unknown key"),
    ],
)
def test_what_is_wrong_with_an_entry_names_the_key(tmp_path: Path, fields: dict[str, str], told: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        load(written(tmp_path, **fields), env={})
    assert told in str(caught.value) and "nodeagent.toml" in str(caught.value)


def test_two_entries_with_one_prefix_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "nodeagent.toml"
    path.write_text('[[apps]]\nmatch = "a"\nstatsd = "x"\n[[apps]]\nmatch = "b"\nstatsd = "x"\n')
    with pytest.raises(Misconfigured, match="that of an entry before"):
        load(str(path), env={})


@pytest.mark.parametrize(
    "value", ["0.0.0.0:8125", "localhost:8125", "127.0.0.1", "127.0.0.1:0", "10.0.0.1:1"]
)
def test_statsd_by_udp_is_on_loopback_only(value: str) -> None:
    with pytest.raises(Misconfigured, match=r"app_signals\.statsd_udp takes 127\.0\.0\.1:PORT"):
        load(None, env={}, overrides={"app_signals.statsd_udp": value})


def annotated(*, host_network: bool = False, **annotations: str) -> tuple[AppWish, tuple[str, ...]]:
    keys = {"metrics": METRICS, "histogram": HISTOGRAM, "requests": REQUESTS, "slo": SLO}
    given = {keys[name]: text for name, text in annotations.items()}
    pod = {
        "metadata": {"uid": "u", "name": "n", "namespace": "d", "annotations": given},
        "spec": {"hostNetwork": host_network},
        "status": {"podIP": "10.1.2.3", "podIPs": [{"ip": "10.1.2.3"}, {"ip": "fd00::7"}]},
    }  # fmt: skip
    raw = msgspec.json.encode({"kind": "PodList", "items": [pod]})
    ((told,), unread) = read_pods(raw, KubernetesSettings())
    assert unread == 0
    return told.app, told.wrong


def test_annotations_and_addresses_are_told() -> None:
    app, wrong = annotated(metrics="http://:9121/m", histogram="w", requests='n{a="b"}', slo="p99 <= 20ms")
    assert wrong == ()
    assert msgspec.structs.asdict(app) == {
        "metrics": "http://:9121/m",
        "latency_histogram": "w",
        "requests_counter": 'n{a="b"}',
        "slo": Slo(0.99, 0.02),
        "addresses": ("10.1.2.3", "fd00::7"),
        "host_network": False,
    }


@pytest.mark.parametrize(
    ("annotations", "told"),
    [
        ({"metrics": "http://127.0.0.1:1/", "histogram": "w"}, "loopback, which is the pod's own"),
        ({"metrics": "http://[::1]:1/", "histogram": "w"}, "loopback, which is the pod's own"),
        ({"metrics": "http://10.9.9.9:1/", "histogram": "w"}, "is no address of this pod"),
        ({"metrics": "http://169.254.169.254:80/", "histogram": "w"}, "is no address of this pod"),
        ({"metrics": "http://web:1/", "histogram": "w"}, f"{METRICS} takes a literal address"),
        ({"metrics": "http://:1/"}, f"{METRICS} needs {HISTOGRAM}"),
        ({"slo": "fast"}, f"{SLO} takes"),
        ({"histogram": "a b"}, f"{HISTOGRAM} takes"),
        ({"requests": "a" * 600}, f"{REQUESTS} has more than 512 characters"),
    ],
)
def test_an_annotation_that_is_not_understood_names_its_key(annotations: dict[str, str], told: str) -> None:
    _, wrong = annotated(host_network=False, **annotations)
    assert len(wrong) == 1 and told in wrong[0] and wrong[0].isprintable()


def test_a_pod_on_the_hosts_network_may_name_loopback() -> None:
    app, wrong = annotated(host_network=True, metrics="http://127.0.0.1:1/", histogram="w")
    assert wrong == () and app.metrics == "http://127.0.0.1:1/"
