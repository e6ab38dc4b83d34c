"""CPUs of others on a real node: the kubelet's, real-time pods', left alone by the agent; and requests."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.pod import OWN_TIER
from tests.live.running import (
    NODEAGENT,
    TIMEOUT_S,
    RunningAgent,
    cpu_file,
    executed,
    running,
    unique,
    until,
)

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one CPU cannot be shared out"),
]


def _file(path: str, name: str) -> Path:
    return Path(find_hierarchies("/").roots["cpuset"].root, path, name)


def _cpus(path: str) -> CpuSet:
    effective = _file(path, "cpuset.cpus.effective")
    return CpuSet.parse((effective if effective.exists() else _file(path, "cpuset.cpus")).read_text())


LAST = max(_cpus(""))
OTHERS = CpuSet(_cpus("") - {LAST})


def _state(directory: Path, entries: dict[str, dict[str, str]]) -> None:
    """As the kubelet writes it: a new file in place of the old one."""
    directory.mkdir(exist_ok=True)
    text = json.dumps(
        {"policyName": "static", "defaultCpuSet": str(OTHERS), "entries": entries, "checksum": 1}
    )
    (directory / "new").write_text(text)
    (directory / "new").rename(directory / "cpu_manager_state")


def _own_set(cgroup: str) -> None:
    """Put the pod on the last CPU, as an operator does."""
    _file(cgroup, "cpuset.cpus").write_text(str(LAST))


def test_cpus_that_the_kubelet_gives_away_leave_batch_and_come_back(tmp_path: Path) -> None:
    name, kubelet = unique("hog"), tmp_path / "kubelet"
    _state(kubelet, {})
    with (
        running(tmp_path, numa__placement=True, numa__move_after_s=0, agent__kubelet_dir=kubelet) as agent,
        executed(agent.runtime, "batch", name, "sleep 60"),
    ):
        until(lambda: bool(agent.named("pod.appeared")), "the pod")
        _state(kubelet, {"guaranteed": {"app": str(LAST)}})
        until(lambda: bool(agent.named("cpus.hands_off")), "the kubelet's CPU is seen")
        until(lambda: _cpus(f"{OWN_TIER}/{name}") <= OTHERS, "Batch leaves it")
        assert agent.named("cpus.hands_off")[0]["pod"] == "guaranteed"
        (kubelet / "cpu_manager_state").write_text("garbage")
        until(lambda: bool(agent.named("owners.unknown")), "the warning")
        assert _cpus(f"{OWN_TIER}/{name}") <= OTHERS, "what cannot be read is as it was"
        _state(kubelet, {})
        until(lambda: bool(agent.named("cpus.returned")), "the CPU comes back")


@pytest.mark.parametrize("how", ["real-time", "hands off"])
def test_a_pod_on_a_cpu_of_its_own_is_left_alone_with_it(tmp_path: Path, how: str) -> None:
    if how == "real-time" and cpu_file("cpu.rt_runtime_us").exists():
        pytest.skip("v1 with CONFIG_RT_GROUP_SCHED: no real-time task in a cgroup without a share of its own")
    name, hog, bound = unique("own"), unique("hog"), unique("bound")
    command = "exec chrt -f 1 sleep 60" if how == "real-time" else "exec sleep 60"
    options = () if how == "real-time" else ("--hands-off",)
    own = f"nodeagent/ls/{name}"
    with executed(tmp_path / "run", "ls", name, command, *options) as pod:
        if how == "real-time":
            listing = Path(f"/proc/{pod.pid}/task/{pod.pid}/children")
            until(
                lambda: [_policy(pid) for pid in listing.read_text().split()] == [os.SCHED_FIFO], "real time"
            )
        _own_set(own)
        with (
            running(tmp_path, numa__placement=True, numa__move_after_s=0) as agent,
            executed(agent.runtime, "batch", hog, "sleep 60"),
            executed(agent.runtime, "ls", bound, "sleep 60", "--numa", "bind", "--cpus", "1"),
        ):
            until(lambda: _cpus(f"{OWN_TIER}/{hog}") <= OTHERS, "Batch leaves its CPU")
            until(lambda: bool(agent.named("pod.bound") or agent.named("pod.unplaced")), "an answer")
            assert LAST not in _cpus(f"nodeagent/ls/{bound}") or not agent.named("pod.bound")
            assert _cpus(own) == CpuSet({LAST})
            written = {event["knob"] for event in agent.named("knob.written")}
            assert not any(knob.endswith(own) for knob in written)
        assert _cpus(own) == CpuSet({LAST})


def _policy(pid: str) -> int:
    try:
        return os.sched_getscheduler(int(pid))
    except ProcessLookupError:
        return -1


@contextlib.contextmanager
def _partition(name: str) -> Iterator[None]:
    """A cpuset partition of the last CPU, beside the agent's cgroups."""
    cpuset = find_hierarchies("/").roots["cpuset"]
    if cpuset.version == 1:
        pytest.skip("cgroup v1 has no cpuset partitions")
    Path(cpuset.root, "cgroup.subtree_control").write_text("+cpuset")
    Path(cpuset.root, name).mkdir()
    try:
        _own_set(name)
        _file(name, "cpuset.cpus.partition").write_text("root")
        assert _file(name, "cpuset.cpus.partition").read_text().strip() == "root"
        yield
    finally:
        _file(name, "cpuset.cpus.partition").write_text("member")
        Path(cpuset.root, name).rmdir()


def test_the_cpus_of_a_partition_are_in_no_pool(tmp_path: Path) -> None:
    name, bound = unique("partition"), unique("bound")
    with (
        running(tmp_path, numa__placement=True) as agent,
        executed(agent.runtime, "ls", bound, "sleep 600", "--numa", "bind", "--cpus", "1"),
    ):
        until(lambda: bool(agent.named("pod.bound")), "the pod's own CPU")
        with _partition(name):
            until(lambda: bool(agent.named("cpus.hands_off")), "the partition is seen")
            assert CpuSet.parse(agent.named("cpus.hands_off")[0]["cpus"]) == CpuSet({LAST})
            until(lambda: LAST not in _cpus(f"nodeagent/ls/{bound}"), "the pod leaves it")
        until(lambda: bool(agent.named("cpus.returned")), "the CPU comes back")


def _defragment(agent: RunningAgent, *options: str) -> subprocess.CompletedProcess[str]:
    words = [*NODEAGENT, "defragment", "--set", f"agent.run_dir={agent.runtime}", "-o", "json", *options]
    return subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def test_the_running_agent_defragments_when_root_asks(tmp_path: Path) -> None:
    name = unique("bound")
    with (
        running(tmp_path, numa__placement=True) as agent,
        executed(agent.runtime, "ls", name, "sleep 60", "--numa", "bind", "--cpus", "1"),
    ):
        until(lambda: bool(agent.named("pod.bound")), "the pod's own CPU")
        for options, dry_run in ((("--dry-run",), True), ((), False)):
            done = _defragment(agent, *options)
            assert done.returncode == 0, done.stderr
            told = json.loads(done.stdout)
            assert (told["dry_run"], told["bound"], told["moves"], told["written"]) == (
                dry_run, 1, [], not dry_run,
            )  # fmt: skip
        agent.stop()
        gone = _defragment(agent)
    assert gone.returncode == 1
    assert "no agent answers" in gone.stderr


def _node_of(cpus: CpuSet) -> list[str]:
    nodes = sorted(Path("/sys/devices/system/node").glob("node[0-9]*"))
    return [node.name for node in nodes if cpus & CpuSet.parse((node / "cpulist").read_text())]


@pytest.mark.skipif(
    len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) != 2 or os.cpu_count() != 8,
    reason="needs two NUMA nodes of four CPUs",
)
def test_pods_that_are_scattered_are_moved_together_when_root_asks(tmp_path: Path) -> None:
    """Two pods of 2 CPUs fill a node, a third is on the other; one of the two leaves; 3 CPUs are on both."""

    def bound(agent: RunningAgent, name: str, cpus: int) -> contextlib.AbstractContextManager[object]:
        return executed(agent.runtime, "ls", name, "sleep 9999", "--numa", "bind", "--cpus", str(cpus))

    first, leaves, third, wide = (unique(name) for name in ("a", "b", "c", "d"))
    paths = {name: f"nodeagent/ls/{name}" for name in (first, leaves, third, wide)}
    with running(tmp_path, numa__placement=True) as agent, bound(agent, first, 2):
        until(lambda: len(_cpus(paths[first])) == 2, "the first pod's CPUs")
        with bound(agent, leaves, 2):
            until(lambda: len(_cpus(paths[leaves])) == 2, "the second pod's CPUs")
            third_pod = bound(agent, third, 2)
            third_pod.__enter__()
            until(lambda: len(_cpus(paths[third])) == 2, "the third pod's CPUs")
        with contextlib.ExitStack() as stack:
            stack.push(third_pod)
            assert _node_of(_cpus(paths[first])) != _node_of(_cpus(paths[third]))
            stack.enter_context(bound(agent, wide, 3))
            until(lambda: len(_cpus(paths[wide])) == 3, "the wide pod's CPUs")
            assert len(_node_of(_cpus(paths[wide]))) == 2
            dry = json.loads(_defragment(agent, "--dry-run").stdout)
            assert dry["moves"] and len(_node_of(_cpus(paths[wide]))) == 2, "told, not done"
            done = json.loads(_defragment(agent).stdout)
            assert done["written"] and not done["errors"]
            assert done["moves"] == dry["moves"]
            for name in (first, third, wide):
                assert len(_node_of(_cpus(paths[name]))) == 1
            told = {move[1]: move[3] for move in done["moves"]}
            assert all(_cpus(paths[name]) == CpuSet.parse(cpus) for name, cpus in told.items())
            again = json.loads(_defragment(agent).stdout)
            assert again["moves"] == []


def test_an_agent_that_places_no_pods_refuses_to_defragment(tmp_path: Path) -> None:
    with running(tmp_path) as agent:
        done = _defragment(agent)
    assert done.returncode == 1
    assert "numa.placement" in done.stderr
