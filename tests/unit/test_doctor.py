"""The doctor on trees that lack something, and on the machine that the tests run on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.config import Config, load
from nodeagent.doctor import CHECKS, Finding, Status, as_json, as_text, examine, failed
from nodeagent.doctor.finding import Host
from nodeagent.doctor.foreign import FOREIGN
from nodeagent.doctor.nics import NICS
from nodeagent.doctor.process import packages
from nodeagent.kernel import probe
from nodeagent.model.errors import Unsupported

V2_MOUNTINFO = "24 1 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
AS_NOBODY = """
import os
from nodeagent.config import load
from nodeagent.doctor import as_json, examine
config = load(None, env={})
examine(config)  # while the files of this Python can be read: nobody may not import from root's home
os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(as_json(examine(config)))
"""


def configured(tmp_path: Path, host_root: str = "/", **overrides: str) -> Config:
    dirs = {
        "agent.state_dir": f"{tmp_path}/state",
        "agent.run_dir": f"{tmp_path}/run",
        "agent.host_root": host_root,
    }
    return load(
        None, env={}, overrides=dirs | {key.replace("__", "."): text for key, text in overrides.items()}
    )


def v2_host(tmp_path: Path, *files: str) -> str:
    """A captured host whose pods' cgroups have these files."""
    host = tmp_path / "host"
    pod = host / "sys/fs/cgroup/pod"
    pod.mkdir(parents=True)
    for name in files:
        (pod / name).write_text("")
    (host / "sys/fs/cgroup/cgroup.controllers").write_text("cpu memory\n")
    (host / "proc/1").mkdir(parents=True)
    (host / "proc/1/mountinfo").write_text(V2_MOUNTINFO)
    return str(host)


def by_name(findings: tuple[Finding, ...]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_the_host_of_the_tests_is_examined_without_a_check_that_gives_up(tmp_path: Path) -> None:
    findings = examine(configured(tmp_path))
    assert len({finding.name for finding in findings}) > 15
    assert not [finding for finding in findings if "could not be examined" in finding.found]


def test_whatever_is_not_well_says_what_to_do(tmp_path: Path) -> None:
    for host_root in ("/", str(tmp_path)):
        for finding in examine(configured(tmp_path, host_root)):
            assert finding.fix or finding.status not in (Status.WARN, Status.FAIL), finding


def test_an_empty_host_fails_and_no_check_breaks(tmp_path: Path) -> None:
    findings = examine(configured(tmp_path, str(tmp_path)))
    assert failed(findings)
    found = by_name(findings)
    assert found["cgroups"].status is Status.FAIL
    assert found["PSI"].status is Status.WARN
    assert not [finding for finding in findings if "could not be examined" in finding.found]


def test_on_v2_each_missing_knob_is_named_with_the_kernel_that_has_it(tmp_path: Path) -> None:
    host = v2_host(tmp_path, "cpu.max", "memory.stat", "memory.max", "cpu.pressure")
    found = by_name(examine(configured(tmp_path, host)))
    assert found["cgroup mode"].found == "v2"
    assert found["CPU quota"] == Finding("CPU quota", Status.OK, "cpu.max")
    assert found["SCHED_IDLE for Batch"].status is Status.WARN
    assert "5.15" in found["SCHED_IDLE for Batch"].fix
    assert found["CPU burst for LS"].found == "no cpu.max.burst"
    assert "controller cpuacct" not in found


def test_a_controller_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    host = v2_host(tmp_path)
    (Path(host) / "sys/fs/cgroup/cgroup.controllers").write_text("memory\n")
    findings = examine(configured(tmp_path, host))
    assert by_name(findings)["controller cpu"].status is Status.FAIL
    assert failed(findings)


def test_the_kubelets_static_cpu_manager_is_told_with_its_cpus(tmp_path: Path) -> None:
    host = v2_host(tmp_path)
    assert "kubelet CPU manager" not in by_name(examine(configured(tmp_path, host), FOREIGN))
    state = Path(host) / "var/lib/kubelet/cpu_manager_state"
    state.parent.mkdir(parents=True)
    state.write_text('{"policyName":"none","defaultCpuSet":"","checksum":1}')
    assert by_name(examine(configured(tmp_path, host), FOREIGN))["kubelet CPU manager"].found == "policy none"
    state.write_text('{"policyName":"static","defaultCpuSet":"0-1","entries":{"a":{"c":"2"},"b":{"c":"3"}}}')
    found = by_name(examine(configured(tmp_path, host), FOREIGN))["kubelet CPU manager"]
    assert found.found == "policy static: 2 pods with CPUs 2-3; for the others 0-1"
    assert found.status is Status.INFO
    for garbage in ("", "{", "[]", "[" * 100_000):
        state.write_text(garbage)
        found = by_name(examine(configured(tmp_path, host), FOREIGN))["kubelet CPU manager"]
        assert found.status is Status.WARN and "no pod is placed" in found.fix


def test_partitions_and_pods_that_are_to_be_left_alone_are_told(tmp_path: Path) -> None:
    host = v2_host(tmp_path)
    root = Path(host) / "sys/fs/cgroup"
    (root / "cgroup.controllers").write_text("cpuset cpu memory\n")
    (root / "cpuset.cpus.effective").write_text("0-5\n")
    for name, kind, cpus in (
        ("good", "root", "6-7"),
        ("bad", "root invalid (x)", ""),
        ("pod", "member", "5"),
    ):
        (root / name).mkdir(exist_ok=True)
        (root / name / "cpuset.cpus.partition").write_text(f"{kind}\n")
        (root / name / "cpuset.cpus.effective").write_text(f"{cpus}\n")
    rules = tmp_path / "rules.toml"
    rules.write_text('[[pods]]\nmatch = "pod"\nqos = "ls"\nhands_off = true\n')
    config = load(str(rules), env={}, overrides={"agent.host_root": host, "agent.state_dir": f"{tmp_path}/s"})
    findings = examine(config, FOREIGN)
    told = [f"{f.status} {f.found}" for f in findings if f.name == "cpuset partition"]
    assert told == ["warn bad: root invalid (x), CPUs (none)", "info good: root, CPUs 6-7"]
    assert by_name(findings)["hands off"].found.startswith("pod: to be left alone")


def test_publishing_takes_a_package_that_is_not_always_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> dict[str, Finding]:
        return by_name(tuple(packages(Host("/", configured(tmp_path, publish__enabled="true"), None))))

    assert found()["publish"].status is Status.OK

    (tmp_path / "nodeagent-0.dist-info").mkdir()
    (tmp_path / "nodeagent-0.dist-info" / "METADATA").write_text("Name: nodeagent\nVersion: 0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert found()["publish"].status is Status.FAIL
    assert "nodeagent[kubernetes]" in found()["publish"].fix


def test_another_actor_is_found_by_the_name_of_its_process(tmp_path: Path) -> None:
    sleep = shutil.which("sleep")
    assert sleep is not None
    shutil.copy(sleep, tmp_path / "numad")
    assert "other actor" not in by_name(examine(configured(tmp_path)))
    with subprocess.Popen([tmp_path / "numad", "60"]) as numad:
        try:
            found = by_name(examine(configured(tmp_path)))["other actor"]
        finally:
            numad.kill()
    assert found.status is Status.WARN
    assert found.found == f"numad runs (pid {numad.pid})"


def test_a_directory_below_a_file_or_without_room_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert probe.existing(f"{tmp_path}/file/state") == str(tmp_path)
    roomy = by_name(examine(configured(tmp_path)))["state directory"]
    assert "(to be made)" in roomy.found
    tight = by_name(examine(configured(tmp_path, journal__max_bytes="1 TiB")))["state directory"]
    assert tight.status is Status.WARN
    assert "make room for 2 TiB" in tight.fix


def test_the_trigger_window_follows_the_capability() -> None:
    if probe.text("/", "/proc/pressure/cpu") is None:
        pytest.skip("no PSI on this kernel")
    held = probe.capabilities()
    assert held is not None
    expected = 500_000 if "SYS_RESOURCE" in held else 2_000_000
    assert probe.psi_window_us("/") == expected


def test_the_cycle_counter_is_there_only_with_a_pmu() -> None:
    if not os.path.exists("/sys/bus/event_source/devices/cpu"):
        assert probe.pmu_error()


def test_links_are_told_without_loopback_and_what_this_kernel_can_do_for_them(tmp_path: Path) -> None:
    names = by_name(examine(configured(tmp_path), NICS)).keys()
    told = {name.removeprefix("NIC ") for name in names if name.startswith("NIC ")}
    assert told <= set(os.listdir("/sys/class/net")) - {"lo", "bonding_masters"}
    assert {"shaping"} <= names or {"shaping htb", "shaping ingress", "telling nft"} <= names


@pytest.mark.live
def test_without_privileges_the_doctor_fails_and_names_what_is_missing() -> None:
    command = [sys.executable, "-c", AS_NOBODY]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {finding["name"]: finding for finding in json.loads(answer.stdout)}
    assert found["write cpu"]["status"] == "fail"
    assert found["state directory"]["status"] == "fail"
    assert "CAP_DAC_OVERRIDE" in found["capabilities"]["fix"]


def test_a_check_that_breaks_is_a_finding_and_the_others_go_on(tmp_path: Path) -> None:
    def broken_check(_host: object) -> Iterator[Finding]:
        raise Unsupported("no such thing", hint="get one")

    findings = examine(configured(tmp_path), (broken_check, *CHECKS))
    assert findings[0] == Finding(
        "broken check", Status.WARN, "could not be examined: no such thing", "get one"
    )
    assert len(findings) > 15


def test_text_and_json_tell_the_same(tmp_path: Path) -> None:
    findings = examine(configured(tmp_path, str(tmp_path)))
    text = as_text(findings)
    assert all(finding.found in text and finding.fix in text for finding in findings)
    assert [entry["name"] for entry in json.loads(as_json(findings))] == [f.name for f in findings]
    assert text.splitlines()[-1].endswith(f"{sum(f.status is Status.FAIL for f in findings)} fail")


def test_whether_ticks_may_be_on_time_on_a_full_node_is_told(tmp_path: Path) -> None:
    before = os.sched_getscheduler(0)
    found = by_name(examine(configured(tmp_path)))["realtime"]
    assert os.sched_getscheduler(0) == before
    assert found.status in (Status.OK, Status.INFO)
    assert (found.status is Status.OK) == found.found.endswith("allowed to this process")
    off = by_name(examine(configured(tmp_path, agent__realtime="false")))["realtime"]
    assert "agent.realtime is false" in off.found
