"""A real kubelet and a real containerd: who is here, by the kubelet's word, and by the runtime's after that.

Opt-in, for it takes ten minutes to build a kubelet: make e2e-kubelet
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.v1 import nodeagent_pb2 as pb
from nodeagent.v1.nodeagent_pb2_grpc import NodeAgentStub
from tests.e2e_kubelet.real_kubelet import PORT, RealKubelet, real_kubelet
from tests.live.cri_host import Runtime, containerd, remove_cgroups
from tests.live.running import RunningAgent, running, until
from tests.unit.kubelet_server import TOKEN, Certificates

BINARY = os.environ.get("NODEAGENT_E2E_KUBELET", "")
TOP = f"na-test-{os.getpid()}-e2e"
pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not BINARY, reason="opt-in: make e2e-kubelet builds a kubelet"),
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="the static CPU manager keeps one CPU for itself"),
]


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    _make_top()
    try:
        with containerd(tmp_path / "c") as made:
            yield made
    finally:
        remove_cgroups(TOP)


def _make_top() -> None:
    """Where the kubelet's cgroups go, in every hierarchy."""
    for top in [path for path in Path("/sys/fs/cgroup").iterdir() if path.is_dir() and not path.is_symlink()]:
        (top / TOP).mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (top / name).exists() and (top / TOP / name).exists():
                (top / TOP / name).write_text((top / name).read_text())


def report(agent: RunningAgent) -> pb.NodeReport:
    with grpc.insecure_channel(f"unix:{agent.runtime}/nodeagent.sock") as channel:
        answer = NodeAgentStub(channel).GetNodeReport(pb.GetNodeReportRequest(), timeout=10)
    found: pb.NodeReport = answer.report
    return found


def pods(agent: RunningAgent) -> dict[str, pb.Pod]:
    return {pod.name: pod for pod in report(agent).pods if pod.cgroup.startswith(TOP)}


@pytest.mark.skipif(
    "cpu" not in find_hierarchies("/").roots or find_hierarchies("/").roots["cpu"].version == 2,
    reason="kubelet 1.20 is for cgroup v1",
)
def test_the_agent_knows_the_kubelets_pods_and_keeps_knowing_them(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    certificate = Certificates(tmp_path).server()
    values: dict[str, Any] = {
        "agent__mode": "observe",
        "agent__kubelet_dir": tmp_path / "k" / "root",
        "numa__placement": True,
        "kubernetes__kubelet_url": f"https://127.0.0.1:{PORT}",
        "kubernetes__token_file": tmp_path / "token",
        "kubernetes__ca_file": tmp_path / "ca.crt",
        "kubernetes__cri_endpoint": f"unix://{runtime.socket}",
        "kubernetes__poll_s": 1.0,
    }
    with real_kubelet(BINARY, tmp_path / "k", runtime, TOP, certificate) as kubelet:
        kubelet.pod("web", labels={"nodeagent.io/qos": "LS"}, cpu="1", memory="64Mi")
        kubelet.pod("sort", labels={"nodeagent.io/qos": "BATCH"})
        with running(tmp_path, through=kubelet.words, **values) as agent:
            until(lambda: bool(agent.named("offer.withdrawn")), "the first tick")
            until(
                lambda: {"na-test/web-na-node", "na-test/sort-na-node"} <= pods(agent).keys(),
                "the pods",
                60.0,
            )
            until(lambda: _named(agent, "app"), "their containers", 60.0)
            _as_the_kubelet_says(agent)
            _ended(kubelet, agent)


def _named(agent: RunningAgent, name: str) -> bool:
    return all(name in [c.name for c in pod.containers] for pod in pods(agent).values())


def _as_the_kubelet_says(agent: RunningAgent) -> None:
    seen = pods(agent)
    web, sort = seen["na-test/web-na-node"], seen["na-test/sort-na-node"]
    assert (web.qos, web.cpu_request_cores, web.memory_request_bytes) == (pb.QOS_LS, 1.0, 64 << 20)
    assert len(web.uid) == 32 and web.cgroup == f"{TOP}/kubepods/pod{web.uid}"
    assert sort.qos == pb.QOS_MID, "it is static: no label makes Batch of it"
    assert sort.cgroup == f"{TOP}/kubepods/besteffort/pod{sort.uid}"
    assert [event["pod"] for event in agent.named("pod.label")] == ["na-test/sort-na-node"]
    told = report(agent).pod_list
    assert (told.source, told.state, told.pod_count) == ("kubelet", pb.POD_LIST_STATE_FRESH, 2)
    until(lambda: bool(agent.named("cpus.hands_off")), "the static CPU manager's CPU")
    assert agent.named("cpus.hands_off")[0]["pod"] == web.uid
    assert web.uid in {owned.pod_uid for owned in report(agent).placement.owned}


def _ended(kubelet: RealKubelet, agent: RunningAgent) -> None:
    """The kubelet dies; the runtime tells its pods from then on, and nobody becomes another."""
    before = {name: (pod.qos, pod.cpu_request_cores) for name, pod in pods(agent).items()}
    kubelet.kill()
    until(lambda: report(agent).pod_list.source == "cri", "the runtime's list", 60.0)
    begin = time.monotonic()
    until(
        lambda: all(any(c.HasField("main_pid") for c in pod.containers) for pod in pods(agent).values()),
        "processes",
    )
    assert time.monotonic() - begin < 60.0
    assert {name: (pod.qos, pod.cpu_request_cores) for name, pod in pods(agent).items()} == before
