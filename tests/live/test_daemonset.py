"""The chart's pods under a real runc: each profile works with its uid, capabilities, mounts, and no more."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from nodeagent.kernel.mounts import find_hierarchies
from tests.live.contained import Contained, contained, until_ready
from tests.live.nic_agent import BATCH, LS
from tests.live.nic_lab import GIGABIT, classes, inside, lab
from tests.live.running import SPIN, TIMEOUT_S, cpu_file, executed, quota_cores, unique, until
from tests.unit.charts import ENFORCE, ENFORCE_NIC, OBSERVE, values_json
from tests.unit.metric_pages import values

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not shutil.which("runc"), reason="needs runc (Debian package runc)"),
]
# The profile's own scope are all best-effort pods of the machine; here they are those of the test.
OWN_SCOPE = values_json("config.scope", ["nodeagent/**"])
TIER = "nodeagent/batch"


def refused(agent: Contained) -> float:
    """Readings that were refused and writes that failed, until now."""
    page = agent.get("/metrics")
    failed = values(page, "nodeagent_changes_total").items()
    misses = values(page, "nodeagent_misses_total")
    return misses["kind=refused"] + sum(count for label, count in failed if "outcome=error" in label)


def test_who_observes_sees_pods_and_can_write_nothing(tmp_path: Path) -> None:
    name = unique("seen")
    with contained(tmp_path, OBSERVE) as agent, executed(agent.runtime, "batch", name, SPIN):
        until_ready(agent)
        label = f"pod={name},qos=batch"
        used = "nodeagent_pod_cpu_usage_seconds_total"
        until(lambda: values(agent.get("/metrics"), used).get(label, 0.0) > 0.1, "the pod's CPU time")
        assert refused(agent) == 0
        assert quota_cores(f"{TIER}/{name}") is None
        assert "CapEff:\t0000000000000000" in agent.inside("cat", "/proc/self/status").stdout
        for path in (f"/host{cpu_file(f'{TIER}/{name}')}/cgroup.procs", "/host/proc/sys/vm/swappiness", "/x"):
            tried = agent.inside("sh", "-c", f"echo 1 > {path}")
            assert tried.returncode != 0
            assert "Read-only" in tried.stderr or "denied" in tried.stderr
        assert agent.stop() == 0


def test_who_enforces_bounds_batch_and_gives_it_back(tmp_path: Path) -> None:
    name = unique("bound")
    options = (*ENFORCE, *OWN_SCOPE)
    with contained(tmp_path, options) as agent, executed(agent.runtime, "batch", name, "sleep 60"):
        until_ready(agent)
        until(lambda: quota_cores(f"{TIER}/{name}") is not None, "a quota on the pod")
        assert refused(agent) == 0
        tried = agent.inside("sh", "-c", "echo 1 > /host/proc/sys/vm/swappiness")
        assert tried.returncode != 0
        assert agent.stop() == 0
        assert quota_cores(f"{TIER}/{name}") is None
        assert quota_cores(TIER) is None


@pytest.mark.parametrize("without", [(), ("DAC_OVERRIDE",)], ids=["as it is", "without"])
def test_dac_override_is_for_cgroups_of_other_users(tmp_path: Path, without: tuple[str, ...]) -> None:
    name = unique("theirs")
    options = (*ENFORCE, *OWN_SCOPE)
    with contained(tmp_path, options, without=without) as agent:
        until_ready(agent)
        with executed(agent.runtime, "batch", name, "sleep 60"):
            for file in cpu_file(f"{TIER}/{name}").iterdir():
                os.chown(file, 1234, 1234)
            if without:
                until(lambda: refused(agent) > 0, "a refusal")
                assert any("EACCES" in event["error"] for event in agent.named("knob.refused"))
            else:
                until(lambda: quota_cores(f"{TIER}/{name}") is not None, "a quota on the pod")
                assert refused(agent) == 0


@pytest.mark.skipif(find_hierarchies("/").mode == "v2", reason="cgroup v2 tells the pressure of each pod")
def test_on_v1_and_hybrid_nodes_pressure_takes_the_pid_namespace_of_the_host(tmp_path: Path) -> None:
    name, spin = unique("pressed"), " & ".join([f"sh -c '{SPIN}'"] * 4) + " & wait"
    with contained(tmp_path, ENFORCE, "agent.mode=observe") as agent:
        until_ready(agent)
        with executed(agent.runtime, "ls", name, spin):
            until(
                lambda: (
                    values(agent.get("/metrics"), "nodeagent_signals").get("signal=ls-cpu-pressure", 0) > 0
                ),
                "the pressure",
            )


def test_what_a_killed_agent_left_the_init_container_gives_back(tmp_path: Path) -> None:
    name = unique("left")
    killed, after = tmp_path / "killed", tmp_path / "after"
    killed.mkdir()
    after.mkdir()
    with executed(tmp_path, "batch", name, "sleep 60"):
        with contained(killed, (*ENFORCE, *OWN_SCOPE)) as agent:
            until(lambda: quota_cores(f"{TIER}/{name}") is not None, "a quota on the pod")
            os.kill(agent.pid, signal.SIGKILL)
            agent.process.wait(TIMEOUT_S)
        assert quota_cores(f"{TIER}/{name}") is not None
        restore = Contained(after, (*OBSERVE, "--set", "restore=true"), restores=agent.state)
        try:
            assert restore.process.wait(TIMEOUT_S) == 0, restore.log_path.read_text()
        finally:
            restore.remove()
        assert quota_cores(f"{TIER}/{name}") is None


@pytest.mark.skipif(not shutil.which("tc"), reason="needs ip and tc (iproute2) to look with")
@pytest.mark.parametrize("without", [(), ("NET_ADMIN",), ("SYS_ADMIN",)], ids=["as it is", "net", "sys"])
def test_shaping_takes_the_capabilities_that_the_profile_adds(
    tmp_path: Path, without: tuple[str, ...]
) -> None:
    nics = values_json("config.nics", [{"match": "nic0", "role": "online", "link_bps": GIGABIT}])
    options = (*ENFORCE_NIC, *OWN_SCOPE, *nics, *values_json("config.agent.enforce", ["nic"]))
    with lab() as made:
        through, address = inside(made.host), "http.address=127.0.0.1:9464"
        with contained(tmp_path, options, address, through=through, without=without) as agent:
            until_ready(agent)
            if without:
                step = values(agent.get("/metrics"), "nodeagent_nic_scheduler")
                assert step["nic=nic0,step=observe"] == 1
                assert not classes(made)
            else:
                until(lambda: {LS, BATCH} <= classes(made).keys(), "a tree")
            assert agent.stop() == 0
        assert not classes(made)
