"""The whole agent on this machine's kernel: it bounds Batch, answers, gives back, and survives."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from datetime import datetime
from pathlib import Path

import grpc
import pytest

from nodeagent.model.pod import OWN_TIER
from nodeagent.v1 import nodeagent_pb2 as pb
from nodeagent.v1.nodeagent_pb2_grpc import NodeAgentStub
from tests.live.running import (
    NODEAGENT,
    SLOWNESS,
    SPIN,
    TIMEOUT_S,
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


def _spin(count: int) -> str:
    return " & ".join([f"sh -c '{SPIN}'"] * count) + " & wait"


def test_batch_is_bounded_while_it_runs_and_everything_is_gone_afterwards(tmp_path: Path) -> None:
    name = unique("hog")
    with running(tmp_path) as agent, executed(agent.runtime, "batch", name, _spin(CPUS)) as hog:
        until(lambda: quota_cores(OWN_TIER) is not None, "a quota on the tier")
        until(lambda: quota_cores(f"{OWN_TIER}/{name}") is not None, "a quota on the pod")
        quota = quota_cores(OWN_TIER)
        assert quota is not None and 0.1 <= quota <= CPUS
        idle = cpu_file(f"{OWN_TIER}/cpu.idle")
        assert not idle.exists() or idle.read_text() == "1\n"
        hog.send_signal(signal.SIGTERM)
        assert hog.wait(TIMEOUT_S) == 128 + signal.SIGTERM
        assert not cpu_file(f"{OWN_TIER}/{name}").exists()
        assert agent.stop() == 0


def test_a_stopped_agent_gives_every_value_back_while_batch_goes_on(tmp_path: Path) -> None:
    name = unique("stays")
    with running(tmp_path) as agent, executed(agent.runtime, "batch", name, "sleep 60"):
        until(lambda: quota_cores(f"{OWN_TIER}/{name}") is not None, "a quota on the pod")
        assert agent.stop() == 0
        assert quota_cores(OWN_TIER) is None
        assert quota_cores(f"{OWN_TIER}/{name}") is None
        idle = cpu_file(f"{OWN_TIER}/cpu.idle")
        assert not idle.exists() or idle.read_text() == "0\n"
        assert agent.named("giveback.done")[0]["left"] == 0


def test_on_exit_keep_leaves_the_values_and_the_next_agent_takes_them_over(tmp_path: Path) -> None:
    name = unique("kept")
    with (
        running(tmp_path, agent__on_exit="keep") as agent,
        executed(agent.runtime, "batch", name, "sleep 60"),
    ):
        until(lambda: quota_cores(OWN_TIER) is not None, "a quota on the tier")
        agent.stop()
        kept = quota_cores(OWN_TIER)
        assert kept is not None
        with running(tmp_path) as second:
            until(lambda: bool(second.named("pod.appeared")), "the pod is seen")
            assert second.named("agent.started")[0]["held_from_before"] > 0
            second.stop()
        assert quota_cores(OWN_TIER) is None


def test_ls_pressure_cuts_batch_and_batch_grows_back_when_ls_is_calm(tmp_path: Path) -> None:
    batch, ls = unique("batch"), unique("ls")
    hog = executed(tmp_path / "run", "batch", batch, _spin(CPUS))
    with running(tmp_path, cpu__recover_ratio_per_s=0.2) as agent, hog:
        until(lambda: quota_cores(OWN_TIER) is not None, "a quota on the tier")
        full = quota_cores(OWN_TIER) or 0.0
        with executed(agent.runtime, "ls", ls, _spin(2 * CPUS)):  # more threads than CPUs: some must wait
            until(lambda: bool(agent.named("ls-cpu-pressure.began")), "pressure is seen")
            until(lambda: (quota_cores(OWN_TIER) or 9.0) <= 0.2, "Batch is cut to its floor")
        low = quota_cores(OWN_TIER)
        assert low is not None and low >= 0.1
        until(lambda: (quota_cores(OWN_TIER) or 0.0) >= full / 2, "Batch grows back", 30.0)


def test_a_new_pod_is_noticed_long_before_the_next_tick(tmp_path: Path) -> None:
    with running(tmp_path, agent__tick_s=60) as agent:
        delays_s = []
        for number in range(3):
            name = unique(f"new{number}")
            with executed(agent.runtime, "batch", name, "sleep 60"):
                made = cpu_file(f"nodeagent/batch/{name}").stat().st_ctime
                until(lambda name=name: _appeared(agent, name) is not None, "the pod", 2.0)  # type: ignore[misc]
                delays_s.append((_appeared(agent, name) or 0.0) - made)
        assert min(delays_s) < 0.5 * SLOWNESS, "the 200 ms of the design, with room for a busy machine"


def _appeared(agent: RunningAgent, name: str) -> float | None:
    events = (e for e in agent.named("pod.appeared") if e["pod"] == name)
    return next((datetime.fromisoformat(e["timestamp"]).timestamp() for e in events), None)


def test_a_second_agent_on_the_same_state_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with running(tmp_path) as first:
        second = RunningAgent(tmp_path)
        assert second.process.wait(TIMEOUT_S) == 1
        said = second.log_path.read_text().strip()
        assert said.count("\n") == 0
        assert f"pid {first.process.pid}" in said
        refused = subprocess.run(
            [*NODEAGENT, "restore", "--set", f"agent.state_dir={first.state}"],
            capture_output=True,
            check=False,
        )
        assert refused.returncode == 1
        assert f"pid {first.process.pid}" in refused.stderr.decode()


def test_a_second_agent_with_another_state_does_not_enforce_on_the_same_node(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with running(tmp_path) as first:
        second = RunningAgent(tmp_path / "other")
        assert second.process.wait(20) == 1
        said = second.log_path.read_text().strip().splitlines()[-1]
        assert f"another agent enforces on this node: pid {first.process.pid} " in said
        with running(tmp_path / "other", agent__mode="observe") as watching:
            assert watching.process.poll() is None


def test_fifty_kills_at_random_instants_then_restore_gives_every_file_its_original(tmp_path: Path) -> None:
    tier, name = OWN_TIER, unique("victim")
    files = ("cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.shares", "cpu.idle", "cpu.max", "cpu.weight")
    luck = random.Random(7)
    with executed(tmp_path / "run", "batch", name, _spin(1)):
        watched = [cpu_file(f"{path}/{f}") for path in (tier, f"{tier}/{name}") for f in files]
        watched = [path for path in watched if path.exists()]
        before = [path.read_text() for path in watched]
        changed = 0
        for _ in range(50):
            agent = RunningAgent(tmp_path, agent__tick_s=0.1, grpc__address="", journal__enabled=False)
            until(lambda a=agent: bool(a.named("agent.started")), "start")  # type: ignore[misc]
            time.sleep(luck.uniform(0.0, 0.5))
            agent.process.kill()
            agent.process.wait()
            changed += [path.read_text() for path in watched] != before
        words = [*NODEAGENT, "restore", "-o", "json", "--set", f"agent.state_dir={tmp_path / 'state'}"]
        done = subprocess.run(words, capture_output=True, check=True)
        assert [path.read_text() for path in watched] == before, done.stdout
        assert changed > 10, "the kills came before anything was written"
        told = json.loads(done.stdout)
        assert told["failed"] == [] and told["left"] == []


def test_grpc_tells_the_capacity_and_why(tmp_path: Path) -> None:
    name = unique("told")
    with running(tmp_path) as agent, executed(agent.runtime, "batch", name, _spin(1), "--cpus", "1.5"):
        until(lambda: quota_cores(f"{OWN_TIER}/{name}") is not None, "a quota on the pod")
        with grpc.insecure_channel(f"unix:{agent.runtime}/nodeagent.sock") as channel:
            stub = NodeAgentStub(channel)
            capacity = stub.GetCapacity(pb.GetCapacityRequest(), timeout=5 * SLOWNESS).capacity
            report = stub.GetNodeReport(pb.GetNodeReportRequest(), timeout=5 * SLOWNESS).report
        terms = {term.name for term in capacity.cpu.terms}
        assert {"total", "steal", "reserved", "system", "online_now", "online_peak"} <= terms
        pod = next(p for p in report.pods if p.name == name)
        assert pod.cpu_request_cores == 1.5
        assert any(s.why and s.by for s in report.plan)


def test_what_was_decided_can_be_replayed(tmp_path: Path) -> None:
    with (
        running(tmp_path, agent__tick_s=0.1) as agent,
        executed(agent.runtime, "batch", unique("r"), _spin(1)),
    ):
        until(lambda: len(agent.named("knob.written")) > 3, "some writes")
        agent.stop(signal.SIGKILL)  # a torn tail is skipped
        words = [*NODEAGENT, "replay", "-o", "json", str(agent.state)]
        done = subprocess.run(words, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout
        assert json.loads(done.stdout)["ticks"] > 3
        subprocess.run([*NODEAGENT, "restore", "--set", f"agent.state_dir={agent.state}"], check=True)


def test_a_foreign_write_is_seen_and_answered(tmp_path: Path) -> None:
    name = unique("drift")
    with running(tmp_path) as agent, executed(agent.runtime, "batch", name, "sleep 60"):
        until(lambda: quota_cores(OWN_TIER) is not None, "a quota on the tier")
        file = cpu_file(f"{OWN_TIER}/cpu.cfs_quota_us")
        file = file if file.exists() else cpu_file(f"{OWN_TIER}/cpu.max")
        file.write_text("-1" if "cfs" in file.name else "max")
        until(lambda: bool(agent.named("knob.drift")), "the drift is told")
        until(lambda: quota_cores(OWN_TIER) is not None, "the quota is there again")


def test_hangup_takes_a_good_file_and_refuses_a_bad_one(tmp_path: Path) -> None:
    config = tmp_path / "nodeagent.toml"
    config.write_text("[cpu]\nfloor_cores = 0.2\n")
    with running(tmp_path, config=config) as agent:
        config.write_text("[cpu]\nflor_cores = 0.3\n")
        agent.process.send_signal(signal.SIGHUP)
        until(lambda: bool(agent.named("config.refused")), "the bad file is refused")
        assert "floor_cores" in agent.named("config.refused")[0]["why"]
        config.write_text("[cpu]\nfloor_cores = 0.3\n")
        agent.process.send_signal(signal.SIGHUP)
        until(lambda: bool(agent.named("config.reloaded")), "the good file is taken")
        assert agent.process.poll() is None


def test_observe_plans_and_writes_nothing(tmp_path: Path) -> None:
    name = unique("observed")
    with running(tmp_path, agent__mode="observe") as agent, executed(agent.runtime, "batch", name, _spin(1)):
        until(lambda: bool(agent.named("batch.limit")), "a limit is decided")
        with grpc.insecure_channel(f"unix:{agent.runtime}/nodeagent.sock") as channel:
            ask, timeout_s = NodeAgentStub(channel).GetNodeReport, 5 * SLOWNESS
            until(lambda: bool(ask(pb.GetNodeReportRequest(), timeout=timeout_s).report.plan), "a plan")
        assert quota_cores(OWN_TIER) is None
        assert not agent.named("knob.written")
