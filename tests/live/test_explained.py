"""What a running agent says of itself is what the kernel has: explanations, pods and events of real pods."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.live.running import (
    NODEAGENT,
    SLOWNESS,
    SPIN,
    RunningAgent,
    executed,
    quota_cores,
    running,
    unique,
    until,
)

pytestmark = pytest.mark.live


def asked(agent: RunningAgent, *words: str) -> subprocess.CompletedProcess[str]:
    address = f"unix:{agent.runtime}/nodeagent.sock"
    command = [*NODEAGENT, words[0], "--address", address, *words[1:]]
    return subprocess.run(command, capture_output=True, text=True, timeout=60 * SLOWNESS, check=False)


def reasons(agent: RunningAgent, *subject: str) -> dict[str, dict[str, Any]]:
    """By name; none while the pod is not known."""
    done = asked(agent, "explain", "-o", "json", *subject)
    return {r["name"]: r for r in json.loads(done.stdout)["reasons"]} if done.returncode == 0 else {}


def test_a_batch_pod_s_quota_is_explained_down_to_what_the_kernel_has(tmp_path: Path) -> None:
    name = unique("told")
    with running(tmp_path) as agent, executed(agent.runtime, "batch", name, SPIN):
        knob = f"cpu.quota nodeagent/batch/{name}"

        def agrees() -> bool:
            told = reasons(agent, name).get(knob, {}).get("read_back", "")
            held = quota_cores(f"nodeagent/batch/{name}")
            return told.endswith(" cores") and held == pytest.approx(float(told.split()[0]), abs=0.001)

        until(agrees, "the quota that is read back is the kernel's")
        found = reasons(agent, name)
        assert {"batch.ceiling", "batch.limit", "cpu.quota nodeagent/batch", knob} <= found.keys()
        limit = found["batch.limit"]
        value = eval(limit["arithmetic"], {"min": min, "max": max, "__builtins__": {}})
        assert value == pytest.approx(float(limit["result"].split()[0]), abs=0.003)
        offered = reasons(agent)
        assert {"cpu.computed", "cpu.available", "memory.available", "confidence"} <= offered.keys()


def test_a_pod_s_life_is_among_the_events_in_its_order(tmp_path: Path) -> None:
    name = unique("told")
    with running(tmp_path) as agent:
        with executed(agent.runtime, "mid", name, "sleep 60", "--hands-off"):
            until(lambda: bool(reasons(agent, name)), "the pod is known")
            why = reasons(agent, name)["pod"]["why"]
            assert why == "nothing is written because the pod is marked hands_off"
        lives: list[dict[str, Any]] = []

        def ended() -> bool:
            done = asked(agent, "events", "-o", "json", "--topic", "pod")
            events = [json.loads(line) for line in done.stdout.splitlines()]
            lives[:] = [event for event in events if event["keys"].get("pod") == name]
            return len(lives) == 2

        until(ended, "both events of the pod")
    assert [event["name"] for event in lives] == ["pod.appeared", "pod.vanished"]
    assert lives[0]["number"] < lives[1]["number"]
    logged = [event["event"] for event in agent.events() if event.get("pod") == name]
    assert logged == ["pod.appeared", "pod.vanished"]


def test_an_observing_agent_says_that_it_only_plans(tmp_path: Path) -> None:
    name = unique("told")
    with (
        running(tmp_path, agent__mode="observe") as agent,
        executed(agent.runtime, "batch", name, SPIN),
    ):
        knob = f"cpu.quota nodeagent/batch/{name}"
        until(lambda: knob in reasons(agent, name), "a quota is planned")
        quota = reasons(agent, name)[knob]
        assert quota["written"] == "" and quota["read_back"] == "no limit"
        assert "nothing is written: planned only" in quota["why"]
