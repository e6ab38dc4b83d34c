"""Placement by the whole agent on real cpusets: own cores for a bound pod, the rest for Batch, given back."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from nodeagent.model.cpuset import CpuSet
from nodeagent.model.pod import OWN_TIER
from tests.live.running import executed, held_set, running, unique, until

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one CPU cannot be shared out"),
]


def test_a_bound_pod_gets_cores_that_batch_leaves_and_everything_is_given_back(tmp_path: Path) -> None:
    bound, batch = unique("bound"), unique("hog")
    every = held_set("")
    with (
        running(tmp_path, numa__placement=True) as agent,
        executed(agent.runtime, "batch", batch, "sleep 3600"),
        executed(agent.runtime, "ls", bound, "sleep 3600", "--numa", "bind", "--cpus", "1") as pod,
    ):
        own, others = f"nodeagent/ls/{bound}", f"{OWN_TIER}/{batch}"
        until(lambda: not held_set(own) & held_set(others), "own cores")
        assert held_set(own) and held_set(others) and held_set(OWN_TIER) >= held_set(others)
        child = int(Path(f"/proc/{pod.pid}/task/{pod.pid}/children").read_text().split()[0])
        assert CpuSet(os.sched_getaffinity(child)) == held_set(own)
        time.sleep(1.0)
        agent.stop()
        assert agent.named("giveback.done")[0]["left"] == 0
        assert held_set(own) == held_set(others) == held_set(OWN_TIER) == every


def test_a_pod_that_asks_for_more_than_there_is_runs_in_the_pool_and_the_reason_is_told(
    tmp_path: Path,
) -> None:
    name = unique("huge")
    with (
        running(tmp_path, numa__placement=True) as agent,
        executed(agent.runtime, "ls", name, "sleep 3600", "--numa", "bind", "--cpus", "4096"),
    ):
        until(lambda: bool(agent.named("pod.unplaced")), "the event")
        assert agent.named("pod.unplaced")[0]["why"]
        assert held_set(f"nodeagent/ls/{name}") == held_set("")
