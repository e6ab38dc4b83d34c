"""How the list of Kubernetes' pods is told: events once per change, metrics, node report, doctor, check."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from nodeagent.config import Config, load
from nodeagent.doctor import Status, examine
from nodeagent.doctor.kubernetes import KUBERNETES
from nodeagent.model.decision import Tick
from nodeagent.model.errors import Misconfigured
from nodeagent.model.kubernetes import ListState, PodList
from nodeagent.report.events import events
from nodeagent.report.node import node_text
from nodeagent.rpc.convert import report_message
from nodeagent.v1 import nodeagent_pb2 as pb
from tests.unit import samples
from tests.unit.kubelet_samples import V1_20
from tests.unit.kubelet_server import kubelet

FRESH = PodList("kubelet", ListState.FRESH, 995.0, 7)
STALE = replace(FRESH, state=ListState.STALE, error="no answer")


def tick(pod_list: PodList | None, at: float = 1000.0) -> Tick:
    made = samples.tick(1)
    return replace(made, snapshot=replace(made.snapshot, at=at, pod_list=pod_list))


def told(before: PodList | None, now: PodList | None) -> list[tuple[str, str]]:
    found = events(tick(before), tick(now))
    return [(e.level, e.name) for e in found if e.name.startswith(("pods.", "pod.label"))]


def test_each_change_of_the_list_is_told_once_with_what_it_means() -> None:
    assert told(None, FRESH) == [("info", "pods.listed")]
    assert told(FRESH, replace(FRESH, at=999.0, pods=8)) == []
    assert told(FRESH, STALE) == [("warning", "pods.stale")]
    assert told(STALE, replace(STALE, error="another reason")) == []
    assert told(STALE, replace(STALE, state=ListState.EXPIRED)) == [("warning", "pods.expired")]
    assert told(STALE, FRESH) == [("info", "pods.listed")]
    assert told(FRESH, replace(FRESH, source="cri", error="no kubelet")) == [("warning", "pods.listed")]
    assert told(None, PodList("paths", ListState.NEVER, error="x")) == [("warning", "pods.never")]
    waiting = PodList("paths", ListState.WAITING)
    assert told(waiting, replace(waiting, error="refused")) == [("warning", "pods.waiting")]
    assert told(None, None) == []
    (stale,) = (e for e in events(tick(FRESH), tick(STALE)) if e.name == "pods.stale")
    assert stale.keys == {
        "source": "kubelet", "age_s": 5.0, "why": "no answer", "so": "the last list holds for now",
    }  # fmt: skip


def test_a_label_that_is_not_understood_is_told_once() -> None:
    wrong = replace(FRESH, wrong=(("ns/a", "nodeagent.io/qos = 'x': takes ls, mid, batch"),))
    assert told(FRESH, wrong) == [("warning", "pod.label")]
    assert told(wrong, wrong) == []


def test_a_pod_that_is_called_or_classed_otherwise_than_before_is_told() -> None:
    before = samples.tick(1)
    pod = before.snapshot.pods[0]
    named = replace(pod, spec=replace(pod.spec, name="shop/web"))
    after = replace(before, snapshot=replace(before.snapshot, pods=(named, *before.snapshot.pods[1:])))
    (known,) = (e for e in events(before, after) if e.name == "pod.known")
    assert (known.keys["pod"], known.keys["was"]) == ("shop/web", pod.spec.name)
    assert not [e for e in events(after, after) if e.name == "pod.known"]


def test_metrics_have_the_age_and_the_state_and_nothing_where_nobody_is_asked() -> None:
    text = node_text(tick(STALE))
    assert 'nodeagent_pod_list_age_seconds{source="kubelet"} 5' in text
    assert 'nodeagent_pod_list_state{state="stale"} 1' in text
    assert 'nodeagent_pod_list_state{state="fresh"} 0' in text
    assert "pod_list" not in node_text(tick(None))


@pytest.mark.parametrize("state", list(ListState))
def test_the_node_report_has_source_state_and_age(state: ListState) -> None:
    message = report_message(tick(replace(STALE, state=state)), "node")
    assert message.pod_list == pb.PodList(
        source="kubelet",
        state=f"POD_LIST_STATE_{state.name}",
        age_s=5.0,
        pod_count=7,
        error="no answer",
    )
    assert not report_message(tick(None), "node").HasField("pod_list")


def configured(tmp_path: Path, **keys: str) -> Config:
    values = {"token_file": str(tmp_path / "none"), "cri_endpoint": "", **keys}
    overrides = {f"kubernetes.{key}": value for key, value in values.items()}
    return load(None, env={}, overrides={"agent.kubelet_dir": "", **overrides})


def found(config: Config) -> list[tuple[Status, str, str]]:
    return [(f.status, f.found, f.fix) for f in examine(config, KUBERNETES) if f.name == "kubelet pods"]


def test_doctor_says_who_was_asked_and_what_of_the_labels_is_wrong(tmp_path: Path) -> None:
    ((status, what, _),) = found(configured(tmp_path))
    assert status is Status.INFO and "not asked" in what
    with kubelet() as server:
        server.body = V1_20
        ((status, what, fix),) = found(configured(tmp_path, kubelet_url=server.url))
        assert (status, f"{server.url} lists 7 pods" in what) == (Status.WARN, True)
        assert fix.startswith("shop/cache-0: nodeagent.io/qos")
        server.status = 403
        ((status, what, fix),) = found(configured(tmp_path, kubelet_url=server.url))
        assert status is Status.WARN and "nodes/proxy" in what and "no pod of Kubernetes is Batch" in fix


def test_doctor_warns_of_what_is_not_verified(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    insecure = configured(
        tmp_path,
        kubelet_url="https://127.0.0.1:1",
        token_file=str(tmp_path / "token"),
        insecure_skip_verify="true",
    )
    assert any("not verified" in what for _, what, _ in found(insecure))
    far = configured(tmp_path, kubelet_url="http://192.0.2.1:1", timeout_s="0.1")
    assert any("plain HTTP" in what for _, what, _ in found(far))


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("kubelet_url", "10.0.0.1:10250", "takes https://HOST:PORT"),
        ("kubelet_url", "https://h:1/pods", "takes https://HOST:PORT"),
        ("kubelet_url", "https://user:pw@h:1", "takes https://HOST:PORT"),
        ("kubelet_url", "https://h:99999", "takes https://HOST:PORT"),
        ("kubelet_url", "ftp://h", "takes https://HOST:PORT"),
        ("token_file", "token", "absolute path"),
        ("ca_file", "ca.crt", "absolute path"),
        ("cri_endpoint", "tcp://1.2.3.4:1", "takes unix:///path"),
        ("cri_endpoint", "unix:///" + "x" * 120, "107 bytes"),
        ("stale_after_s", "1", "shorter than kubernetes.poll_s"),
        ("poll_s", "0", "0.2 to 600"),
        ("qos_label", "", "1 to 317 characters"),
        ("enabled", "yes", "auto | on | off"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(tmp_path: Path, key: str, value: str, line: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        configured(tmp_path, **{key: value})
    assert line in str(caught.value)
    assert f"kubernetes.{key}" in str(caught.value)


def test_a_long_poll_alone_is_no_mistake(tmp_path: Path) -> None:
    assert configured(tmp_path, poll_s="600").settings.kubernetes.stale_after_s == 600.0
