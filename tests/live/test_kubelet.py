"""A running agent, real pod cgroups of both drivers, and a kubelet that answers over https, or does not."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.kube_place import KubePlace, kube_place
from tests.live.running import NODEAGENT, TIMEOUT_S, RunningAgent, quota_cores, running, until
from tests.unit.kubelet_samples import STATIC_UID, UID, V1_20, cgroupfs, systemd
from tests.unit.kubelet_server import TOKEN, Certificates, Kubelet, kubelet

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command"),
]
WEB, SPARK, PROXY, REPORT = (UID.format(n) for n in (0, 1, 2, 4))
DRIVERS = pytest.mark.parametrize("path", [cgroupfs, systemd], ids=["cgroupfs", "systemd"])


@pytest.fixture
def place() -> Iterator[KubePlace]:
    with kube_place() as made:
        yield made


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Kubelet]:
    (tmp_path / "token").write_text(TOKEN)
    with kubelet(Certificates(tmp_path).server()) as made:
        made.body = V1_20
        yield made


def settings(server: Kubelet, home: Path, **more: object) -> dict[str, Any]:
    return {
        "kubernetes__kubelet_url": server.url,
        "kubernetes__token_file": home / "token",
        "kubernetes__ca_file": home / "ca.crt",
        "kubernetes__poll_s": 0.3,
        "kubernetes__cri_endpoint": "",
        "http__address": "127.0.0.1:0",
        **more,
    }


def names(agent: RunningAgent) -> set[str]:
    """The pods in /metrics."""
    return set(re.findall(r'^nodeagent_pod_\w+\{pod="([^"]+)"', agent.get("/metrics"), re.MULTILINE))


@DRIVERS
def test_classes_by_label_are_enforced_and_outlive_the_kubelet(
    place: KubePlace, server: Kubelet, tmp_path: Path, path: Callable[..., str]
) -> None:
    spark = place.pod(path(SPARK, "besteffort"))
    place.pod(path(WEB))
    place.pod(path(STATIC_UID, "burstable"))
    proxy = place.pod(path(PROXY, "besteffort"))
    report = place.pod(path(REPORT, "burstable"))
    with running(
        tmp_path, scope=f"{place.name}/**", **settings(server, tmp_path, kubernetes__stale_after_s=6.0)
    ) as agent:
        until(lambda: bool(agent.named("pods.listed")), "the list")
        until(lambda: quota_cores(report) is not None, "Batch by label in the burstable class is bounded")
        until(lambda: quota_cores(spark) is not None, "and by koordinator's label")
        assert quota_cores(proxy) is None, "kube-proxy is best-effort, but the node needs it"
        assert [event["pod"] for event in agent.named("pod.label")] == ["shop/cache-0"]
        server.hang.set()
        for state in ("stale", "expired"):
            until(lambda s=state: bool(agent.named(f"pods.{s}")), state)  # type: ignore[misc]
            assert len(agent.named(f"pods.{state}")) == 1
        new = place.pod(path("0" * 8, "besteffort"))
        until(lambda: any(e["cgroup"] == new for e in agent.named("pod.appeared")), "the new pod")
        (appeared,) = (e for e in agent.named("pod.appeared") if e["cgroup"] == new)
        assert appeared["qos"] == "mid", "nobody says that it is Batch"
        assert quota_cores(new) is None
        assert quota_cores(report) is not None and quota_cores(spark) is not None
        assert 'nodeagent_pod_list_state{state="expired"} 1' in agent.get("/metrics")
        server.hang.clear()
        until(lambda: len(agent.named("pods.listed")) == 2, "the list again")
    assert quota_cores(report) is None, "all is given back"


def test_a_pod_that_comes_has_its_name_before_long_though_lists_are_rare(
    place: KubePlace, server: Kubelet, tmp_path: Path
) -> None:
    with running(tmp_path, **settings(server, tmp_path, kubernetes__poll_s=600.0)) as agent:
        until(lambda: bool(agent.named("pods.listed")), "the list")
        body = json.loads(V1_20)
        new = body["items"][0]
        new["metadata"] |= {"uid": "new-uid", "name": "new"}
        server.body = json.dumps(body).encode()
        place.pod(cgroupfs("new-uid", "burstable"))
        until(lambda: "shop/new" in names(agent), "the new pod by name")
        assert server.asked <= 3


def test_the_token_rotates_and_a_wrong_authority_is_told(server: Kubelet, tmp_path: Path) -> None:
    with running(tmp_path, **settings(server, tmp_path, kubernetes__stale_after_s=600.0)) as agent:
        until(lambda: bool(agent.named("pods.listed")), "the list")
        server.token = "renewed"
        until(lambda: bool(agent.named("pods.stale")), "the old token is refused")
        (tmp_path / "new").write_text("renewed")
        (tmp_path / "new").rename(tmp_path / "token")
        until(lambda: len(agent.named("pods.listed")) == 2, "the new token is taken")
        text = agent.log_path.read_text()
        assert "401" in text and TOKEN not in text and "renewed" not in text
    other = Certificates(tmp_path / "other", "other")
    wrong = settings(server, tmp_path, kubernetes__ca_file=other.ca)
    (tmp_path / "2").mkdir()
    with running(tmp_path / "2", **wrong) as agent:
        until(lambda: any("why" in e for e in agent.named("pods.waiting")), "nobody is trusted")
        why = agent.named("pods.waiting")[-1]["why"]
        assert "not trusted" in why and "kubernetes.ca_file" in why


def test_doctor_and_once_ask_too(place: KubePlace, server: Kubelet, tmp_path: Path) -> None:
    place.pod(cgroupfs(WEB))
    words = [f"--set={key.replace('__', '.')}={value}" for key, value in settings(server, tmp_path).items()]
    words += [f"--set=agent.state_dir={tmp_path}/state", f"--set=agent.run_dir={tmp_path}/run"]

    def output(command: str) -> str:
        done = subprocess.run(
            [*NODEAGENT, command, *words], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        assert done.returncode in (0, 1), done.stderr
        return done.stdout

    assert "shop/web-7c5d9b6f4-x2x9k" in output("once")
    doctor = output("doctor")
    assert "driver cgroupfs" in doctor
    assert f"{server.url} lists 7 pods" in doctor
    assert "shop/cache-0: nodeagent.io/qos = 'urgent'" in doctor
    server.token = "other"
    assert "401 Unauthorized" in output("doctor")
