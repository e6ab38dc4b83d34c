"""Directives and a real agent: what they do to the kernel's values; a lease outlives a killed agent."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from nodeagent.model.pod import OWN_TIER
from nodeagent.v1.collector_pb2 import ReportResponse
from nodeagent.v1.directive_pb2 import Directive as Message
from nodeagent.v1.directive_pb2 import HoldCapacity
from tests.live.nic_agent import BATCH, shaping
from tests.live.nic_lab import classes, lab
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
from tests.unit.collectors import collecting

pytestmark = pytest.mark.live
CPUS = os.cpu_count() or 1
FLOOR = 0.1
IDLE = f"sleep {120 * SLOWNESS:g}"
# In an emulated machine the tests run in a unit, which is an online pod, and need much of a CPU.
NEARLY_ALL = CPUS * (0.9 if SLOWNESS == 1 else 0.4)


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


@pytest.fixture
def quiet(tmp_path: Path) -> list[str]:
    """Words before a command: for it alone nothing else runs on this machine, whatever it is busy with.

    In a mount namespace of its own /proc/stat stands still. Cgroups, and what is written there, are real.
    """
    stat = tmp_path / "stat"
    stat.write_text(Path("/proc/stat").read_text())
    words = [
        "unshare",
        "-m",
        "--propagation",
        "private",
        "sh",
        "-c",
        'mount --bind "$0" /proc/stat && exec "$@"',
    ]
    if shutil.which("unshare") is None or subprocess.run([*words, str(stat), "true"], check=False).returncode:
        pytest.skip("may not make a mount namespace with a mount in it")
    return [*words, str(stat)]


def lease(seconds: float) -> str:
    return f"{seconds * SLOWNESS:g}s"


def test_to_observe_gives_the_quota_back_until_the_lease_is_over(tmp_path: Path) -> None:
    name = unique("observed")
    with running(tmp_path) as agent, executed(agent.runtime, "batch", name, IDLE):
        until(lambda: quota_cores(f"{OWN_TIER}/{name}") is not None, "a quota on the pod")
        idle = cpu_file(f"{OWN_TIER}/cpu.idle")
        direct(agent, "observe", "--for", lease(4.0), "--id", "o", "--reason", "a test")
        until(lambda: quota_cores(OWN_TIER) is None, "the tier's quota is given back")
        until(lambda: quota_cores(f"{OWN_TIER}/{name}") is None, "the pod's too")
        until(lambda: not idle.exists() or idle.read_text() == "0\n", "so is its idleness")
        until(lambda: bool(agent.named("mode.changed")), "the tick's end")
        (taken,) = agent.named("directive.taken")
        assert (taken["id"], taken["kind"], taken["reason"]) == ("o", "observe", "a test")
        assert taken["issuer"]
        assert [e["mode"] for e in agent.named("mode.changed")] == ["observe"]
        assert known(agent) == {"o": "in_force"}
        until(lambda: quota_cores(f"{OWN_TIER}/{name}") is not None, "after the lease it is set again")
        until(lambda: not idle.exists() or idle.read_text() == "1\n", "idleness too")
        until(lambda: bool(agent.named("directive.expired")), "the end is told")
        until(lambda: len(agent.named("mode.changed")) == 2, "so is the mode")
        assert [e["mode"] for e in agent.named("mode.changed")] == ["observe", "enforce"]
        assert known(agent) == {"o": "expired"}
        assert agent.stop() == 0
        assert quota_cores(OWN_TIER) is None


def test_to_enforce_ends_to_observe_before_its_time(tmp_path: Path) -> None:
    name = unique("ended")
    with running(tmp_path) as agent, executed(agent.runtime, "batch", name, IDLE):
        until(lambda: quota_cores(OWN_TIER) is not None, "a quota on the tier")
        direct(agent, "observe", "--for", "1h", "--id", "o")
        until(lambda: quota_cores(OWN_TIER) is None, "the tier's quota is given back")
        direct(agent, "enforce", "--for", "1h", "--id", "e")
        until(lambda: quota_cores(OWN_TIER) is not None, "it is set again")
        assert known(agent) == {"o": "replaced", "e": "in_force"}


def test_a_hold_lowers_the_real_quota_at_once(tmp_path: Path, quiet: list[str]) -> None:
    name = unique("held")
    hog = executed(tmp_path / "run", "batch", name, SPIN)
    with running(tmp_path, through=quiet, cpu__recover_ratio_per_s=1.0) as agent, hog:
        until(lambda: NEARLY_ALL < tier_quota() <= CPUS, "a quota")
        direct(agent, "hold", "--cpu", "0.2", "--for", "1h", "--id", "h")
        until(lambda: tier_quota() <= 0.2, "the hold", 5.0)
        until(lambda: (quota_cores(f"{OWN_TIER}/{name}") or 9.0) <= 0.2, "the pod's too", 5.0)
        until(lambda: any("hold at 0.2 cores" in e["why"] for e in agent.named("batch.limit")), "its reason")
        direct(agent, "end", "h")
        until(lambda: tier_quota() > NEARLY_ALL, "Batch grows back")


def test_a_directive_does_not_wait_for_the_next_tick(tmp_path: Path) -> None:
    with running(tmp_path, agent__tick_s=60.0, http__address="127.0.0.1:0") as agent:
        until(lambda: 'nodeagent_ticks_total{woken_by="timer"} 1.0' in agent.get("/metrics"), "a tick")
        direct(agent, "observe", "--for", "1h")
        until(lambda: bool(agent.named("directive.taken")), "a tick that takes it in", 10.0)
        page = agent.get("/metrics")
        assert 'nodeagent_ticks_total{woken_by="directive"} 1.0' in page
        assert 'nodeagent_directives_in_force{kind="observe"} 1' in page
        assert "nodeagent_enforcing 0" in page


def test_a_recall_brings_batch_evenly_to_its_floor_by_the_deadline(tmp_path: Path, quiet: list[str]) -> None:
    hog = executed(tmp_path / "run", "batch", unique("recalled"), SPIN)
    with running(tmp_path, through=quiet, cpu__recover_ratio_per_s=1.0) as agent, hog:
        until(lambda: NEARLY_ALL < tier_quota() <= CPUS, "a quota")
        direct(agent, "recall", "--by", lease(4.0), "--for", "1h", "--id", "r")
        begin, seen = time.monotonic(), [tier_quota()]
        while tier_quota() > FLOOR:
            assert time.monotonic() - begin < 10.0 * SLOWNESS
            if tier_quota() != seen[-1]:
                seen.append(tier_quota())
            time.sleep(0.02)
        assert seen == sorted(seen, reverse=True)
        until(lambda: agent.named("batch.limit")[-1]["cores"] == FLOOR, "the tick's end")
        falls = [e for e in agent.named("batch.limit") if "recall by 20" in e["why"]]
        assert len(falls) >= 8 and len(seen) >= 5, "evenly"
        assert falls[-1]["cores"] == FLOOR
        until(lambda: bool(agent.named("offer.withdrawn")), "the end of that tick, too")
        assert [e["why"] for e in agent.named("offer.withdrawn")][-1].startswith("recalled by directive r")


def test_a_lease_goes_on_after_the_agent_was_killed(tmp_path: Path) -> None:
    name = unique("killed")
    with executed(tmp_path / "run", "batch", name, IDLE):
        first = RunningAgent(tmp_path).ready()
        try:
            until(lambda: quota_cores(OWN_TIER) is not None, "a quota on the tier")
            begin = time.monotonic()
            direct(first, "observe", "--for", lease(12.0), "--id", "o")
            until(lambda: quota_cores(OWN_TIER) is None, "the tier's quota is given back")
        finally:
            first.stop(signal.SIGKILL)
        with running(tmp_path) as second:
            until(lambda: bool(second.named("directive.resumed")), "a tick")
            (resumed,) = second.named("directive.resumed")
            assert resumed["id"] == "o" and resumed["lasts_s"] <= 12.0 * SLOWNESS - 0.1
            assert quota_cores(OWN_TIER) is None
            assert known(second) == {"o": "in_force"}
            until(lambda: quota_cores(OWN_TIER) is not None, "after the lease it is set again", 40.0)
            assert time.monotonic() - begin >= 12.0 * SLOWNESS - 0.5
            assert direct(second, "observe", "--for", lease(12.0), "--id", "o")["already_taken"]
            time.sleep(0.6)  # two ticks
            assert quota_cores(OWN_TIER) is not None, "sent again it changes nothing"


@pytest.mark.skipif(not shutil.which("tc"), reason="needs ip and tc (iproute2) to look with")
def test_to_observe_lets_the_nics_go_and_then_shapes_them_again(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/run/nodeagent.sock"
    with lab() as made, shaping(made, tmp_path, grpc__address=address) as agent:
        direct(agent, "observe", "--for", lease(4.0))
        until(lambda: BATCH not in classes(made), "the tree is gone")
        assert agent.named("nic.released")
        until(lambda: BATCH in classes(made), "after the lease it is there again")
        assert agent.stop() == 0
        assert BATCH not in classes(made)


def test_a_controllers_directive_comes_down_its_stream_and_is_told_up_there(
    tmp_path: Path, quiet: list[str]
) -> None:
    hold = Message(id="c", lease=Duration(seconds=3600), hold_capacity=HoldCapacity(cpu_cores=0.2))
    values: dict[str, Any] = {"controller.address": f"unix:{tmp_path}/c.sock", "controller.directives": True}
    pod = executed(tmp_path / "run", "batch", unique("ruled"), SPIN)
    with (
        collecting(values["controller.address"]) as (collector, _),
        running(tmp_path, None, quiet, **values, **{"controller.report_s": 0.25}) as agent,
        pod,
    ):
        until(lambda: tier_quota() > NEARLY_ALL and bool(collector.streams), "a quota and a report")
        heard = collector.streams[0]
        heard.down.put(ReportResponse(directive=hold))
        until(lambda: tier_quota() <= 0.2, "the hold")
        until(lambda: heard.status is not None and len(heard.status.directives) == 1, "word of it")
        (result,) = [r.directive_result for r in heard.requests if r.WhichOneof("body") == "directive_result"]
        assert (result.id, result.code, result.message) == ("c", 0, "")
        assert result.status.directive == hold
        (told,) = agent.named("directive.taken")
        assert told["issuer"].startswith("controller:")
        heard.down.put(ReportResponse(directive=Message(id="d", lease=Duration(seconds=-1))))
        until(lambda: any(r.directive_result.code == 3 for r in heard.requests), "the other is refused")
