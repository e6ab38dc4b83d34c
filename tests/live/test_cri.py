"""A real containerd: pods made by CRI calls are seen with names, classes, containers and processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from nodeagent.model.errors import Failed, Unsupported
from nodeagent.model.kubernetes import KubernetesSettings
from nodeagent.model.pod import Qos
from nodeagent.pods.cri import Runtime as Client
from nodeagent.v1 import nodeagent_pb2 as pb
from nodeagent.v1.nodeagent_pb2_grpc import NodeAgentStub
from tests.live.cri_host import Runtime, containerd, remove_cgroups
from tests.live.running import SLOWNESS, RunningAgent, running, until

pytestmark = pytest.mark.live
TOP = f"na-test-{os.getpid()}-cri"
UID = "6d1f9a52-3b1c-4f0e-9a77-0c1d2e3f4a{:02d}"
SETTINGS = KubernetesSettings(timeout_s=30.0 * SLOWNESS)
NO_KUBELET = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """A path of its own, and short: the address of a unix socket has 107 bytes."""
    try:
        with containerd(tmp_path_factory.mktemp("cri") / "c") as made:
            yield made
    finally:
        remove_cgroups(TOP)


def report(agent: RunningAgent) -> pb.NodeReport:
    with grpc.insecure_channel(f"unix:{agent.runtime}/nodeagent.sock") as channel:
        answer = NodeAgentStub(channel).GetNodeReport(pb.GetNodeReportRequest(), timeout=10 * SLOWNESS)
    found: pb.NodeReport = answer.report
    return found


def by_name(agent: RunningAgent) -> dict[str, pb.Pod]:
    return {pod.name: pod for pod in report(agent).pods if pod.cgroup.startswith(TOP)}


def words(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")


def test_the_agent_sees_the_runtimes_pods_while_the_kubelet_does_not_answer(
    runtime: Runtime, tmp_path: Path
) -> None:
    layout = {
        "web": (f"{TOP}/kubepods/besteffort/pod{UID.format(0)}", {"nodeagent.io/qos": "LS"}),
        "sort": (f"{TOP}/kubepods/burstable/pod{UID.format(1)}", {"koordinator.sh/qosClass": "BE"}),
        "plain": (f"{TOP}/kubepods/burstable/pod{UID.format(2)}", {}),
        "elsewhere": (f"{TOP}/vendor/four", {"nodeagent.io/qos": "batch", "nodeagent.io/priority": "low"}),
    }
    with running(
        tmp_path,
        agent__mode="observe",
        kubernetes__kubelet_url=NO_KUBELET,
        kubernetes__cri_endpoint=f"unix://{runtime.socket}",
        kubernetes__poll_s=0.5,
        kubernetes__timeout_s=30.0,
    ) as agent:
        until(lambda: bool(agent.named("pods.listed")), "the runtime's list")
        assert agent.named("pods.listed")[0]["source"] == "cri"
        assert NO_KUBELET in agent.named("pods.listed")[0]["why"]
        pods = []
        for number, (name, (parent, labels)) in enumerate(layout.items()):
            pods.append(runtime.run_pod(name, UID.format(number), parent, labels))
            pods[-1].start("app", "/bin/sleep", str(100_000 + number))
        names = {f"na-test/{name}" for name in layout}
        until(
            lambda: (
                all(
                    sum(c.HasField("main_pid") for c in pod.containers) == 1
                    for pod in map(by_name(agent).get, names)
                    if pod is not None
                )
                and names <= by_name(agent).keys()
            ),
            "all pods with their processes",
        )
        seen = by_name(agent)
        assert {name: (pod.qos, pod.source) for name, pod in seen.items()} == {
            "na-test/web": (pb.QOS_LS, "kubelet"),
            "na-test/sort": (pb.QOS_BATCH, "kubelet"),
            "na-test/plain": (pb.QOS_MID, "kubelet"),
            "na-test/elsewhere": (pb.QOS_BATCH, "cri"),
        }
        assert seen["na-test/elsewhere"].priority == pb.PRIORITY_LOW
        for number, name in enumerate(layout):
            pod = seen[f"na-test/{name}"]
            assert pod.uid == UID.format(number)
            assert sorted(container.name for container in pod.containers) == ["app", "pause"]
            (app,) = (container for container in pod.containers if container.name == "app")
            assert words(app.main_pid)[:2] == ["/bin/sleep", str(100_000 + number)]
        told = report(agent).pod_list
        assert (told.source, told.state) == ("cri", pb.POD_LIST_STATE_FRESH)
        for made in pods:
            made.remove()
        remove_cgroups(TOP)  # which is the kubelet's part
        until(lambda: not by_name(agent), "they are gone")
    assert not agent.named("knob.written")


@pytest.mark.parametrize("version", ["v1", "v1alpha2"])
def test_both_versions_of_the_interface_tell_the_same(runtime: Runtime, version: str) -> None:
    pod = runtime.run_pod(
        "both", UID.format(9), f"{TOP}/kubepods/pod{UID.format(9)}", {"nodeagent.io/qos": "ls"}
    )
    container = pod.start("app", "/bin/sleep", "100")
    client = Client(str(runtime.socket), SETTINGS, version)
    try:
        (told,) = client.pods()
        assert (told.uid, told.full_name, told.qos) == (UID.format(9), "na-test/both", Qos.LS)
        assert [(each.id, each.name) for each in told.containers] == [(container, "app")]
        assert told.sandboxes == (pod.id,)
        pid = told.containers[0].pid
        assert pid is not None and words(pid)[0] == "/bin/sleep"
        assert client.version == version
        pod.remove()
        until(lambda: client.pods() == (), "no pods")
    finally:
        client.close()


def test_a_runtime_without_cri_says_so(tmp_path: Path) -> None:
    with containerd(tmp_path / "c", cri=False) as bare:
        client = Client(str(bare.socket), SETTINGS)
        with pytest.raises(Unsupported, match="UNIMPLEMENTED") as caught:
            client.pods()
        client.close()
    assert "disabled_plugins" in caught.value.hint


def test_a_runtime_that_is_not_there_or_hangs_is_given_up_in_time(tmp_path: Path) -> None:
    client = Client(str(tmp_path / "none.sock"), KubernetesSettings(timeout_s=1.0))
    begin = time.monotonic()
    with pytest.raises(Failed, match="none"):
        client.pods()
    client.close()
    assert time.monotonic() - begin < 5.0 * SLOWNESS
