"""Pods on their NUMA nodes: near their NIC, and on machines of any shape."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.model.cpuset import CpuSet
from nodeagent.model.pod import OWN_TIER
from tests.live.running import RunningAgent, executed, held_set, running, unique, until
from tests.vm.inside.guest import NODES, ONLY_HERE, apart, online, output, settled

pytestmark = ONLY_HERE
NICS = Path("/sys/class/net")


@contextlib.contextmanager
def bound(agent: RunningAgent, name: str, command: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    with executed(agent.runtime, "ls", unique(name), command, "--numa", "bind", *options) as pod:
        yield pod


def ls(name: str) -> str:
    return f"nodeagent/ls/{unique(name)}"


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[RunningAgent]:
    with running(
        tmp_path, http__address="127.0.0.1:0", numa__placement=True, numa__move_after_s=3600
    ) as agent:
        yield agent


def test_as_many_bound_pods_as_there_are_cores_but_one_have_one_each(agent: RunningAgent) -> None:
    cores = output("lscpu", "-p=CORE").splitlines()
    names = [f"one{number}" for number in range(len({line for line in cores if line.isdigit()}) - 1)]
    batch = f"{OWN_TIER}/{unique('batch')}"
    with contextlib.ExitStack() as pods:
        pods.enter_context(executed(agent.runtime, "batch", unique("batch"), "sleep 3600"))
        for name in names:
            pods.enter_context(bound(agent, name, "sleep 3600", "--cpus", "1"))
        paths = [ls(name) for name in names]
        until(lambda: all(held_set(path) < online() for path in paths), "every pod is bound")
        settled(agent)
        apart(paths, [batch, OWN_TIER])
        with_memory = CpuSet.parse((NODES / "has_memory").read_text())
        assert all(held_set(path, "mems") and held_set(path, "mems") <= with_memory for path in paths)
        assert not agent.named("pod.unplaced") + agent.named("knob.refused")
        agent.stop()
        assert not agent.named("giveback.left") + agent.named("giveback.refused")
        assert {held_set(path) for path in (*paths, batch)} == {online()}


@pytest.mark.parametrize("nic", ["nic0", "nic1"])
def test_a_pod_that_names_a_nic_is_on_its_numa_node(agent: RunningAgent, nic: str) -> None:
    device = (NICS / nic / "device").resolve()
    node = next(
        (int(f.read_text()) for f in (device / "numa_node", device.parent / "numa_node") if f.exists()), -1
    )
    if node < 0:
        pytest.skip(f"there is no {nic} with a NUMA node of its own")
    with bound(agent, nic, "sleep 3600", "--cpus", "1", "--near", nic):
        until(lambda: held_set(ls(nic)) < online(), "own cores")
        assert held_set(ls(nic)) <= CpuSet.parse((NODES / f"node{node}/cpulist").read_text())
        until(lambda: held_set(ls(nic), "mems") == CpuSet({node}), "its memory, once the pages are there")
