"""Weights by class on the real kernel: LS and MID on one CPU that both want whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nodeagent.kernel.cgroup_v1 import CpuV1
from nodeagent.kernel.cgroup_v2 import CpuV2
from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.model.plan import Kind
from tests.live.running import SPIN, cpu_file, executed, running, unique, until, used_s

pytestmark = pytest.mark.live
SAMPLE_CORE_S = 2.0
ON_ONE_CPU = f"exec taskset -c {min(os.sched_getaffinity(0))} sh -c '{SPIN}'"


def weight(path: str) -> object:
    version = find_hierarchies().roots["cpu"].version
    cgroup = (CpuV1 if version == 1 else CpuV2)(str(cpu_file(path)))
    try:
        return cgroup.read(Kind.CPU_WEIGHT).actual
    finally:
        cgroup.close()


def test_ls_gets_four_times_what_mid_gets_where_both_want_the_same_cpu(tmp_path: Path) -> None:
    names = {qos: unique(f"w-{qos}") for qos in ("ls", "mid")}
    paths = {qos: f"nodeagent/{qos}/{name}" for qos, name in names.items()}
    with (
        running(tmp_path) as agent,
        executed(agent.runtime, "mid", names["mid"], ON_ONE_CPU),
        executed(agent.runtime, "ls", names["ls"], ON_ONE_CPU, "--cpus", "2"),
    ):
        until(lambda: weight("nodeagent/ls") == 4.0, "the weight of the class")
        until(lambda: weight(paths["ls"]) == 2.0, "the weight of the pod: its request")
        begin = {qos: used_s(path) for qos, path in paths.items()}

        def used(qos: str) -> float:
            return used_s(paths[qos]) - begin[qos]

        until(lambda: used("ls") + used("mid") >= SAMPLE_CORE_S, "some work of both", 60.0)
        assert 2.5 <= used("ls") / used("mid") <= 6.0
        agent.stop()
        assert weight("nodeagent/ls") == weight(paths["ls"]) == 1.0
