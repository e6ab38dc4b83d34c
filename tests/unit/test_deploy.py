"""What the service unit says is true of the program that it starts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nodeagent.config import DEFAULT_PATH
from nodeagent.model.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "systemd" / "nodeagent.service"
RESTORE = UNIT.with_name("nodeagent-restore.service")
DROP_IN = UNIT.with_name("nodeagent-nic.conf")
OBSERVE = UNIT.with_name("nodeagent-observe.conf")
REALTIME = UNIT.with_name("nodeagent-realtime.conf")


def directives(file: Path = UNIT) -> dict[str, str]:
    """The last value of each; those that list rights may have several lines."""
    lines = (line.partition("=") for line in file.read_text().splitlines() if not line.startswith(("#", "[")))
    return {key: value for key, equals, value in lines if equals}


def with_ebpf(text: str) -> str:
    """A drop-in whose lines for eBPF are not comments any more."""
    return re.sub(r"(?m)^#(?=[A-Z]\w+=)", "", text)


def analyzed(tmp_path: Path, *command: str, unit: Path = UNIT, drop_in: str = "") -> None:
    """Run systemd-analyze on a unit, with a program that exists in the place of the installed one."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed")
    for each in (UNIT, RESTORE, UNIT.with_name("nodeagent.slice")):
        text = each.read_text().replace("/usr/local/bin/nodeagent", sys.executable)
        (tmp_path / each.name).write_text(text)
    if drop_in:
        (tmp_path / f"{unit.name}.d").mkdir()
        text = drop_in.replace("/usr/local/bin/nodeagent", sys.executable)
        (tmp_path / f"{unit.name}.d" / "more.conf").write_text(text)
    words = [tool, *command, str(tmp_path / unit.name)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


@pytest.mark.parametrize("unit", [UNIT, RESTORE])
def test_systemd_takes_the_units_without_a_word(tmp_path: Path, unit: Path) -> None:
    analyzed(tmp_path, "verify", "--man=no", unit=unit)


@pytest.mark.parametrize(
    "text", [*map(Path.read_text, (DROP_IN, OBSERVE, REALTIME)), with_ebpf(DROP_IN.read_text())]
)
def test_systemd_takes_the_drop_ins_without_a_word(tmp_path: Path, text: str) -> None:
    analyzed(tmp_path, "verify", "--man=no", drop_in=text)


@pytest.mark.parametrize(
    ("drop_in", "most"),
    [
        ("", 30),
        (OBSERVE.read_text(), 20),
        (DROP_IN.read_text(), 35),
        (with_ebpf(DROP_IN.read_text()), 40),
    ],
    ids=["enforce", "observe", "nic", "nic with eBPF"],
)
def test_the_exposure_of_each_profile_stays_below_its_bound(tmp_path: Path, drop_in: str, most: int) -> None:
    analyzed(tmp_path, "security", "--offline=true", f"--threshold={most}", drop_in=drop_in)


def test_the_observer_differs_by_fewer_rights_and_nothing_else() -> None:
    given = directives(OBSERVE)
    assert given.pop("Environment") == "NODEAGENT__AGENT__MODE=observe"
    assert given.pop("ExecStartPre").startswith("+-"), "outside of the sandbox, and may fail"
    assert given.pop("SystemCallFilter") == f"~{directives()['SystemCallFilter']}"
    assert given == {
        "CapabilityBoundingSet": "",
        "ReadWritePaths": "",
        "ProtectControlGroups": "yes",
        "ProtectProc": "default",
    }


def test_what_gives_back_after_a_failure_is_no_more_exposed_and_may_do_no_more(tmp_path: Path) -> None:
    analyzed(tmp_path, "security", "--offline=true", "--threshold=30", unit=RESTORE)
    assert directives()["OnFailure"] == RESTORE.name
    assert directives(RESTORE)["StateDirectory"] == directives()["StateDirectory"]
    permitted = {*directives()["CapabilityBoundingSet"].split(), directives(DROP_IN)["CapabilityBoundingSet"]}
    assert {*directives(RESTORE)["CapabilityBoundingSet"].split()} < permitted


def test_the_drop_in_adds_to_what_the_unit_has_and_takes_nothing_away() -> None:
    for key, value in directives(DROP_IN).items():
        assert key in directives()
        assert value
        assert not value.startswith("~")
        assert not set(value.split()) & set(directives()[key].split())


def test_real_time_is_banned_but_for_the_drop_in_which_lifts_that_alone() -> None:
    assert directives()["RestrictRealtime"] == "yes"
    assert "CAP_SYS_NICE" in directives()["CapabilityBoundingSet"].split()
    assert directives(REALTIME) == {
        "RestrictRealtime": "no",
        "SystemCallFilter": "sched_setscheduler setrlimit prlimit64",
    }


def test_the_units_directories_are_the_programs_defaults() -> None:
    given, agent = directives(), Settings().agent
    assert f"/var/lib/{given['StateDirectory']}" == agent.state_dir
    assert f"/run/{given['RuntimeDirectory']}" == agent.run_dir
    assert f"/etc/{given['ConfigurationDirectory']}/nodeagent.toml" == DEFAULT_PATH
