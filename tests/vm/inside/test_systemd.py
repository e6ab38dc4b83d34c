"""Units of a real systemd: what the agent sets on them stays through a daemon-reload and ends with it."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.restore import restore
from tests.live.running import NODEAGENT, RunningAgent, cpu_file, quota_cores, running, unique, until
from tests.vm.inside.guest import ONLY_HERE, output

pytestmark = ONLY_HERE
UNITS, CONTROL = Path("/run/systemd/system"), Path("/run/systemd/system.control")
V2 = find_hierarchies().roots["cpu"].version == 2
SPINNER = "/bin/sh -c 'while :; do :; done'"
RELOADS = 5
ACCOUNTED = "" if V2 else "CPUAccounting=yes"  # else it has no cgroup in v1's cpu hierarchy


class Unit:
    """A service in a slice of its own, made for one test."""

    def __init__(self, name: str, more: str = "") -> None:
        self.name, self.slice = f"{name}.service", f"{name.replace('-', '_')}.slice"
        self.path = f"{self.slice}/{self.name}"
        self.file = UNITS / self.name
        self.file.write_text(f"[Service]\nSlice={self.slice}\nExecStart={SPINNER}\n{ACCOUNTED}\n{more}\n")
        reload()
        output("systemctl", "start", self.name)
        self.original, self.before = self.quota(), self.properties()

    def shown(self, name: str) -> str:
        return output("systemctl", "show", "--property", name, "--value", self.name)

    def dropins(self) -> list[str]:
        return sorted(path.name for path in (CONTROL / f"{self.name}.d").glob("*"))

    def properties(self) -> str:
        names = ("CPUQuotaPerSecUSec", "CPUWeight", "CPUShares", "AllowedCPUs", "AllowedMemoryNodes")
        return output("systemctl", "show", *(f"--property={name}" for name in names), self.name)

    def files(self) -> dict[str, object]:
        """What systemd or the agent write there."""
        at = cpu_file(self.path)
        idle = at / "cpu.idle"
        return {
            "quota": self.quota(),
            "weight": (at / ("cpu.weight" if V2 else "cpu.shares")).read_text().strip(),
            "idle": idle.read_text().strip() if idle.exists() else "none",
        }

    def quota(self) -> float | None:
        """None without a limit, which is also what a controller that is off means."""
        try:
            return quota_cores(self.path)
        except FileNotFoundError:
            return None

    def remove(self) -> None:
        output("systemctl", "revert", self.name)
        output("systemctl", "stop", self.name, self.slice)
        self.file.unlink()
        reload()


def reload() -> None:
    """Returns when systemd has written again what it wants: it does so before it answers anything else."""
    output("systemctl", "daemon-reload")
    output("systemctl", "show", "--property", "Version")


@pytest.fixture
def unit(request: pytest.FixtureRequest) -> Iterator[Unit]:
    made = Unit(unique("kept"), getattr(request, "param", ""))
    try:
        yield made
    finally:
        made.remove()


def config(home: Path, unit: Unit, more: str = "") -> Path:
    """`unit` is a Batch pod in scope; small changes of its quota are not worth a write."""
    file = home / "nodeagent.toml"
    file.write_text(
        f'scope = ["nodeagent/**", "{unit.slice}/**"]\n[cpu]\ndead_band_ratio = 0.5\n'
        f'[[pods]]\nmatch = "{unit.path}"\nqos = "batch"\n{more}\n'
    )
    return file


@pytest.fixture
def agent(tmp_path: Path, unit: Unit) -> Iterator[RunningAgent]:
    """An agent with a Batch pod that is a service; systemd keeps what it has set there."""
    with running(tmp_path, config(tmp_path, unit), http__address="127.0.0.1:0") as agent:
        until(lambda: kept(unit), "systemd keeps the quota")
        yield agent


def kept(unit: Unit) -> bool:
    """True when systemd would write the quota that is there, and Batch is idle where it can be."""
    cores, file = unit.quota(), CONTROL / f"{unit.name}.d" / "50-CPUQuota.conf"
    if cores in (None, unit.original) or not file.exists():
        return False
    idle = cpu_file(unit.path) / "cpu.idle"
    if V2 and idle.exists() and not (file.parent / "50-CPUWeight.conf").read_text().endswith("=idle\n"):
        return False
    return f"CPUQuota={round((cores or 0.0) * 100)}%" in file.read_text().splitlines()


@contextlib.contextmanager
def paused(agent: RunningAgent, unit: Unit) -> Iterator[None]:
    """The agent stands still at a moment when systemd keeps what is in the files."""

    def stopped() -> bool:
        agent.process.send_signal(signal.SIGSTOP)
        if kept(unit):
            return True
        agent.process.send_signal(signal.SIGCONT)
        return False

    until(stopped, "systemd keeps the quota that is there", 30.0)
    try:
        yield
    finally:
        agent.process.send_signal(signal.SIGCONT)


def drifts(agent: RunningAgent, kind: str = "cpu.quota") -> float:
    found = re.search(
        rf'^nodeagent_drifts_total{{kind="{kind}"}} (\S+)$', agent.get("/metrics"), re.MULTILINE
    )
    return float(found[1]) if found else 0.0


def test_reloads_undo_nothing_even_before_the_next_tick(unit: Unit, agent: RunningAgent) -> None:
    with paused(agent, unit):
        before = unit.files()
        assert before["quota"] is not None
        assert before["idle"] in ("1", "none")
        for _ in range(RELOADS):
            reload()
            assert unit.files() == before
    assert drifts(agent) == drifts(agent, "cpu.weight") == 0.0


def test_what_a_reload_brings_back_of_an_older_quota_is_no_drift(unit: Unit, agent: RunningAgent) -> None:
    for _ in range(RELOADS):
        reload()
        assert unit.quota() is not None
    until(lambda: kept(unit), "all is as wanted again")
    assert drifts(agent) == 0.0


@pytest.mark.parametrize(
    "unit", ["", "CPUQuota=390%\nCPUWeight=50\nCPUShares=300\nAllowedCPUs=0-2\n"], indirect=True
)
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_when_it_ends_files_and_properties_are_as_before_and_stay_so(
    unit: Unit, agent: RunningAgent, end: str
) -> None:
    if end == "kill":
        with paused(agent, unit):
            agent.stop(signal.SIGKILL)
        assert kept(unit)
        assert not restore(str(agent.state)).failed
    else:
        assert agent.stop() == 0
    for _ in range(2):
        assert (unit.quota(), unit.properties(), unit.dropins()) == (unit.original, unit.before, [])
        reload()


def test_after_kill_9_the_next_agent_goes_on_and_gives_back_what_the_first_one_found(
    tmp_path: Path, unit: Unit, agent: RunningAgent
) -> None:
    agent.stop(signal.SIGKILL)
    with running(tmp_path, config(tmp_path, unit), http__address="127.0.0.1:0") as second:
        until(lambda: kept(unit), "systemd keeps the quota")
        reload()
        assert unit.quota() is not None
        assert drifts(second) == 0.0
        assert second.stop() == 0
    assert (unit.quota(), unit.properties(), unit.dropins()) == (None, unit.before, [])


def test_a_service_that_is_restarted_begins_with_our_value_which_is_not_taken_for_its_own(
    unit: Unit, agent: RunningAgent
) -> None:
    with paused(agent, unit):
        before = unit.files()
        output("systemctl", "restart", unit.name)
        assert unit.quota() == before["quota"]
        assert not V2 or unit.files() == before, "idle is no property on v1"
    until(lambda: agent.get("/metrics") != "", "a tick")
    until(lambda: kept(unit), "systemd keeps the quota")
    assert agent.stop() == 0
    assert (unit.quota(), unit.properties(), unit.dropins()) == (None, unit.before, [])


def test_a_service_that_was_stopped_is_let_go(unit: Unit, agent: RunningAgent) -> None:
    output("systemctl", "stop", unit.name)
    until(lambda: unit.dropins() == [], "nothing is kept for it")
    agent.process.send_signal(signal.SIGSTOP)
    try:
        output("systemctl", "start", unit.name)
        assert unit.quota() is None
    finally:
        agent.process.send_signal(signal.SIGCONT)


def test_an_operators_drop_in_is_as_it_was_when_the_service_is_stopped(tmp_path: Path, unit: Unit) -> None:
    output("systemctl", "set-property", "--runtime", unit.name, "CPUQuota=390%")
    file, unit.original = CONTROL / f"{unit.name}.d" / "50-CPUQuota.conf", unit.quota()
    before = file.read_text()
    with running(tmp_path, config(tmp_path, unit), http__address="127.0.0.1:0") as agent:
        until(lambda: kept(unit), "systemd keeps the quota")
        assert file.read_text() != before
        output("systemctl", "stop", unit.name)
        until(lambda: file.read_text() == before, "theirs is kept again")
        assert agent.stop() == 0
    assert unit.dropins() == ["50-CPUQuota.conf"]


def test_an_operators_set_property_is_drift_and_written_over_when_so_told(
    unit: Unit, agent: RunningAgent
) -> None:
    output("systemctl", "set-property", "--runtime", unit.name, "CPUQuota=3%")
    until(lambda: drifts(agent) == 1.0, "it is counted")
    until(lambda: unit.quota() != 0.03 and kept(unit), "systemd keeps ours again")
    assert agent.stop() == 0
    assert (unit.quota(), unit.properties(), unit.dropins()) == (None, unit.before, [])


def test_an_operators_set_property_stays_when_policy_yields(tmp_path: Path, unit: Unit) -> None:
    file = config(tmp_path, unit, '[drift]\non_drift = "yield"')
    with running(tmp_path, file, http__address="127.0.0.1:0") as agent:
        until(lambda: kept(unit), "systemd keeps the quota")
        output("systemctl", "set-property", "--runtime", unit.name, "CPUQuota=3%")
        until(lambda: drifts(agent) == 1.0, "it is counted")
        assert agent.stop() == 0
    for _ in range(2):
        assert unit.quota() == 0.03
        reload()
    assert unit.dropins() == ["50-CPUQuota.conf"]


@pytest.mark.parametrize("unit", ["CPUQuota=390%"], indirect=True)
def test_without_the_socket_files_are_written_and_reloads_are_drift(tmp_path: Path, unit: Unit) -> None:
    hidden = 'mount --bind /dev/null /run/systemd/private && exec "$@"'
    through = ("unshare", "--mount", "sh", "-c", hidden, "sh")
    with running(tmp_path, config(tmp_path, unit), through, http__address="127.0.0.1:0") as agent:
        for count in (1.0, 2.0):
            until(lambda: unit.quota() != 3.9, "a quota in the file")
            reload()
            until(lambda count=count: drifts(agent) == count, "it is counted")  # type: ignore[misc]
        until(lambda: unit.quota() != 3.9, "ours again")
        assert (unit.properties(), unit.dropins()) == (unit.before, [])
        assert len(agent.named("systemd")) == 1
        assert agent.stop() == 0
    assert unit.quota() == 3.9


@pytest.mark.skipif(not V2, reason="systemd sets cpusets on cgroup v2 only, so there no reload undoes them")
def test_the_cpus_and_memory_nodes_of_a_bound_pod_stay_and_end_with_the_agent(
    tmp_path: Path, unit: Unit
) -> None:
    file = config(tmp_path, unit, "[numa]\nplacement = true")
    text = file.read_text().replace('qos = "batch"', 'qos = "ls"\nnuma = "bind"\ncpus = 1')
    file.write_text(text)
    cpus, mems = (Path("/sys/fs/cgroup", unit.path, f"cpuset.{name}") for name in ("cpus", "mems"))
    with running(tmp_path, file, http__address="127.0.0.1:0") as agent:
        until(lambda: cpus.exists() and cpus.read_text().strip() != "", "CPUs of its own")
        until(lambda: unit.dropins() == ["50-AllowedCPUs.conf", "50-AllowedMemoryNodes.conf"], "kept")
        agent.process.send_signal(signal.SIGSTOP)
        before = cpus.read_text(), mems.read_text()
        for _ in range(RELOADS):
            reload()
            assert (cpus.read_text(), mems.read_text()) == before
        assert unit.shown("AllowedCPUs") == before[0].strip()
        assert unit.shown("AllowedMemoryNodes") == before[1].strip()
        agent.process.send_signal(signal.SIGCONT)
        assert agent.stop() == 0
    for _ in range(2):
        assert (unit.properties(), unit.dropins()) == (unit.before, [])
        assert not cpus.exists() or (cpus.read_text(), mems.read_text()) == ("\n", "\n")
        reload()


def test_a_transient_unit_keeps_what_is_set_too(tmp_path: Path, unit: Unit) -> None:
    name = f"{unique('transient')}.service"
    path = f"{unit.slice}/{name}"
    home = Path("/run/systemd/transient", f"{name}.d")
    file = config(tmp_path, unit)
    file.write_text(file.read_text().replace(unit.path, path))
    output(
        "systemd-run",
        f"--property={ACCOUNTED or 'CPUAccounting=no'}",
        f"--unit={name}",
        f"--slice={unit.slice}",
        *shlex.split(SPINNER),
    )
    try:
        with running(tmp_path, file, http__address="127.0.0.1:0") as agent:
            until((home / "50-CPUQuota.conf").exists, "systemd keeps the quota")
            agent.process.send_signal(signal.SIGSTOP)
            reload()
            assert quota_cores(path) is not None
            agent.process.send_signal(signal.SIGCONT)
            assert agent.stop() == 0
        reload()
        assert not home.exists()
    finally:
        output("systemctl", "stop", name)


def test_the_hardened_unit_reaches_systemd_and_leaves_nothing_behind(unit: Unit, tmp_path: Path) -> None:
    settings = Path("/etc/nodeagent/nodeagent.toml")
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(config(tmp_path, unit).read_text())
    try:
        output("systemctl", "start", "nodeagent")
        until(lambda: kept(unit), "systemd keeps the quota")
        output("systemctl", "stop", "nodeagent")
    finally:
        settings.unlink()
    assert (unit.quota(), unit.properties(), unit.dropins()) == (None, unit.before, [])


def test_doctor_says_that_systemd_keeps_what_is_set() -> None:
    found = json.loads(output(*NODEAGENT, "doctor", "-o", "json"))
    assert [f["status"] for f in found if f["name"] == "systemd properties"] == ["ok"]
