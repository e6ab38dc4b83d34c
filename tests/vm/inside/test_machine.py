"""A machine with several NUMA nodes, whose CPUs come and go while the agent runs."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.pod import OWN_TIER
from tests.live.running import NODEAGENT, SPIN, RunningAgent, executed, quota_cores, running, unique, until
from tests.vm.inside.guest import ONLY_HERE, output

pytestmark = ONLY_HERE
CPUS = os.cpu_count() or 1
NODES = Path("/sys/devices/system/node")
LAST = Path(f"/sys/devices/system/cpu/cpu{CPUS - 1}/online")


def once() -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(output(*NODEAGENT, "once", "-o", "json"))
    return answer


def test_doctor_finds_nothing_to_warn_of() -> None:
    found = json.loads(output(*NODEAGENT, "doctor", "-o", "json"))
    assert [entry for entry in found if entry["status"] in ("warn", "fail")] == []


def test_every_numa_node_is_seen_with_its_cpus_memory_and_distances() -> None:
    seen = once()["snapshot"]["topology"]["nodes"]
    online = CpuSet.parse((NODES / "online").read_text())
    assert [node[0] for node in seen] == sorted(online)
    for number, cpus, memory_bytes, distances in seen:
        assert cpus == sorted(CpuSet.parse((NODES / f"node{number}/cpulist").read_text()))
        assert distances == [int(word) for word in (NODES / f"node{number}/distance").read_text().split()]
        kib = re.search(r"MemTotal:\s+(\d+) kB", (NODES / f"node{number}/meminfo").read_text())
        assert kib is not None and memory_bytes == int(kib[1]) * 1024


def test_the_offer_per_numa_node_adds_up_to_no_more_than_that_of_the_node() -> None:
    answer = once()
    capacity = answer["decision"]["capacity"]
    zones = capacity["zones"]
    assert [zone["numa_node"] for zone in zones] == [
        node[0] for node in answer["snapshot"]["topology"]["nodes"]
    ]
    for resource in ("cpu", "memory"):
        for step in ("available", "computed"):
            parts = [zone[resource][step] for zone in zones]
            assert all(part >= 0 for part in parts)
            assert 0 < sum(parts) <= capacity[resource][step] * 1.000001


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[RunningAgent]:
    with running(tmp_path, http__address="127.0.0.1:0", capacity__raise_ratio_per_s=1.0) as agent:
        yield agent


@pytest.fixture
def last_cpu() -> Iterator[Path]:
    """The file that takes the last CPU away; it is back afterwards."""
    if not LAST.exists():
        pytest.skip("this CPU cannot be taken away")
    yield LAST
    LAST.write_text("1")


def told(agent: RunningAgent, metric: str) -> float:
    """A metric without labels, or with exactly these; 0 while there is none."""
    page = agent.get("/metrics")
    found = re.search(rf"^{re.escape(metric)} (\S+)$", page, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_a_cpu_that_goes_is_no_longer_offered_and_comes_back_with_it(
    agent: RunningAgent, last_cpu: Path
) -> None:
    total = 'nodeagent_offline_cpu_term_cores{term="total"}'
    for online, count in ((1, CPUS), (0, CPUS - 1), (1, CPUS)):
        last_cpu.write_text(str(online))
        until(lambda count=count: told(agent, total) == count, f"{count} CPUs")  # type: ignore[misc]
        assert 0.0 <= told(agent, "nodeagent_offline_available_cores") < count
    assert agent.named("tick.skipped") == []


def test_cpus_that_come_and_go_under_batch_leave_its_quota_within_what_is_online(
    agent: RunningAgent, last_cpu: Path
) -> None:
    name = unique("unplugged")
    hogs = " & ".join([f"sh -c '{SPIN}'"] * CPUS) + " & wait"
    with executed(agent.runtime, "batch", name, hogs):
        until(lambda: (quota_cores(OWN_TIER) or 0.0) > 0.0, "a quota on the tier")
        for online in "0101":
            last_cpu.write_text(online)
            count = CPUS if online == "1" else CPUS - 1
            until(lambda count=count: (quota_cores(OWN_TIER) or 99.0) <= count, "it fits")  # type: ignore[misc]
        assert agent.process.poll() is None
    assert agent.stop() == 0


def test_pressure_of_a_latency_sensitive_pod_starts_a_tick_long_before_it_is_due(tmp_path: Path) -> None:
    if find_hierarchies().roots["cpu"].version != 2:
        pytest.skip("pods have no pressure of their own on cgroup v1")
    hogs = " & ".join([f"sh -c '{SPIN}'"] * 2 * CPUS) + " & wait"
    with running(tmp_path, http__address="127.0.0.1:0", agent__tick_s=60, agent__fast_lane_s=0) as agent:
        with executed(agent.runtime, "ls", unique("pressed"), hogs):
            until(lambda: 'ticks_total{woken_by="psi"} 0' not in agent.get("/metrics"), "PSI wakes it", 2.5)
        assert agent.stop() == 0


def test_the_program_that_runs_is_the_wheel_that_was_installed() -> None:
    where = output(sys.executable, "-c", "import nodeagent; print(nodeagent.__file__)")
    assert "dist-packages" in where
