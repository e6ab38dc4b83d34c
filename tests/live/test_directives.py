"""Directives and a real agent: what they do to the kernel's values, and that a lease outlives a killed agent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from nodeagent.model.pod import OWN_TIER
from tests.live.running import (
    NODEAGENT,
    SLOWNESS,
    SPIN,
    RunningAgent,
    cpu_file,
    executed,
    quota_cores,
    running,
    unique,
    until,
)

pytestmark = pytest.mark.live
CPUS = os.cpu_count() or 1
FLOOR = 0.1


def direct(agent: RunningAgent, *words: str) -> dict[str, Any]:
    """`nodeagent direct`, which the agent must have taken."""
    where = ["--set", f"grpc.address=unix:{agent.runtime}/nodeagent.sock", "-o", "json"]
    command = [*NODEAGENT, "direct", *words, *where]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60 * SLOWNESS)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def known(agent: RunningAgent) -> dict[str, str]:
    """State by id."""
    return {s["directive"]["id"]: s["state"] for s in direct(agent, "list")}  # type: ignore[index]


def tier_quota() -> float:
    """What Batch as a whole may use by the kernel's word, in cores; inf without a limit."""
    found = quota_cores(OWN_TIER)
    return float("inf") if found is None else found


def lease(seconds: float) -> str:
    return f"{seconds * SLOWNESS:g}s"


def test_to_observe_gives_the_quota_back_until_the_lease_is_over(tmp_path: Path) -> None:
    name = unique("observed")
    with running(tmp_path) as agent, executed(agent.runtime, "batch", name, "sleep 120"):
        until(lambda: quota_cores(f"{OWN_TIER}/{name}") is not None, "a quota on the pod")
        idle = cpu_file(f"{OWN_TIER}/cpu.idle")
        direct(agent, "observe", "--for", lease(4.0), "--id", "o", "--reason", "a test")
        until(lambda: quota_cores(OWN_TIER) is None, "the tier's quota is given back")
        assert quota_cores(f"{OWN_TIER}/{name}") is None
        assert not idle.exists() or idle.read_text() == "0\n"
        (taken,) = agent.named("directive.taken")
        assert (taken["id"], taken["kind"], taken["reason"]) == ("o", "observe", "a test")
        assert taken["issuer"]
        assert [e["mode"] for e in agent.named("mode.changed")] == ["observe"]
        assert known(agent) == {"o": "in force"}
        until(lambda: quota_cores(f"{OWN_TIER}/{name}") is not None, "after the lease it is set again")
        assert not idle.exists() or idle.read_text() == "1\n"
        until(lambda: bool(agent.named("directive.expired")), "the end is told")
        assert [e["mode"] for e in agent.named("mode.changed")] == ["observe", "enforce"]
        assert known(agent) == {"o": "expired"}
        assert agent.stop() == 0
        assert quota_cores(OWN_TIER) is None


def test_to_enforce_ends_to_observe_before_its_time(tmp_path: Path) -> None:
    name = unique("ended")
    with running(tmp_path) as agent, executed(agent.runtime, "batch", name, "sleep 120"):
        until(lambda: quota_cores(OWN_TIER) is not None, "a quota on the tier")
        direct(agent, "observe", "--for", "1h", "--id", "o")
        until(lambda: quota_cores(OWN_TIER) is None, "the tier's quota is given back")
        direct(agent, "enforce", "--for", "1h", "--id", "e")
        until(lambda: quota_cores(OWN_TIER) is not None, "it is set again")
        assert known(agent) == {"o": "replaced", "e": "in force"}


def test_a_hold_lowers_the_real_quota_long_before_the_next_tick(tmp_path: Path) -> None:
    name = unique("held")
    hog = executed(tmp_path / "run", "batch", name, SPIN)
    with running(tmp_path, cpu__recover_ratio_per_s=1.0) as agent, hog:
        until(lambda: 0.6 < tier_quota() <= CPUS, "a quota on the tier")
        direct(agent, "hold", "--cpu", "0.5", "--for", "1h", "--id", "h")
        until(lambda: tier_quota() <= 0.5, "the hold")
        assert (quota_cores(f"{OWN_TIER}/{name}") or 9.0) <= 0.5
        (held,) = [e for e in agent.named("batch.limit") if "hold at 0.5 cores" in e["why"]]
        assert "directive h of " in held["why"]
        until(lambda: bool(agent.named("knob.written")), "the log of it")
        direct(agent, "end", "h")
        until(lambda: tier_quota() > 0.6, "Batch grows back")


def test_a_directive_does_not_wait_for_a_slow_tick(tmp_path: Path) -> None:
    with running(tmp_path, agent__tick_s=60.0) as agent, executed(agent.runtime, "batch", unique("s"), SPIN):
        until(lambda: tier_quota() <= CPUS, "a quota on the tier: the pod has woken the agent")
        begin = time.monotonic()
        direct(agent, "hold", "--cpu", "0.3", "--for", "1h")
        until(lambda: tier_quota() <= 0.3, "the hold")
        assert time.monotonic() - begin < 10.0 * SLOWNESS


def test_a_recall_brings_batch_evenly_to_its_floor_by_the_deadline(tmp_path: Path) -> None:
    hog = executed(tmp_path / "run", "batch", unique("recalled"), SPIN)
    with running(tmp_path, cpu__recover_ratio_per_s=1.0) as agent, hog:
        until(lambda: 1.0 < tier_quota() <= CPUS, "a quota on the tier")
        begin, before = time.monotonic(), tier_quota()
        direct(agent, "recall", "--by", lease(5.0), "--for", "1h", "--id", "r")
        seen = []
        while tier_quota() > FLOOR:
            assert time.monotonic() - begin < 12.0 * SLOWNESS
            seen.append(tier_quota())
            time.sleep(0.05)
        assert seen == sorted(seen, reverse=True)
        assert any(0.3 * before < quota < 0.7 * before for quota in seen), "not in one step"
        assert time.monotonic() - begin > 3.0 * SLOWNESS, "not long before the deadline"
        assert [e["why"] for e in agent.named("offer.withdrawn")][-1].startswith("recalled by directive r")


def test_a_lease_goes_on_after_the_agent_was_killed(tmp_path: Path) -> None:
    name = unique("killed")
    with executed(tmp_path / "run", "batch", name, "sleep 120"):
        first = RunningAgent(tmp_path).ready()
        try:
            until(lambda: quota_cores(OWN_TIER) is not None, "a quota on the tier")
            begin = time.monotonic()
            direct(first, "observe", "--for", lease(12.0), "--id", "o")
            until(lambda: quota_cores(OWN_TIER) is None, "the tier's quota is given back")
        finally:
            first.stop(signal.SIGKILL)
        with running(tmp_path) as second:
            until(lambda: bool(second.named("pod.appeared")), "a tick")
            (resumed,) = second.named("directive.resumed")
            assert resumed["id"] == "o" and resumed["lasts_s"] <= 12.0 * SLOWNESS - 0.1
            assert quota_cores(OWN_TIER) is None
            assert known(second) == {"o": "in force"}
            until(lambda: quota_cores(OWN_TIER) is not None, "after the lease it is set again", 40.0)
            assert time.monotonic() - begin >= 12.0 * SLOWNESS - 0.5
            assert direct(second, "observe", "--for", lease(12.0), "--id", "o")["already_taken"]
            time.sleep(0.6)  # two ticks
            assert quota_cores(OWN_TIER) is not None, "sent again it changes nothing"
