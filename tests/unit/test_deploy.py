"""What the service unit and the DaemonSet say is true of the program that they start."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from nodeagent.config import DEFAULT_PATH, load
from nodeagent.model.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "systemd" / "nodeagent.service"
MANIFEST = ROOT / "daemonset" / "nodeagent.yaml"


def directives() -> dict[str, str]:
    lines = (line.partition("=") for line in UNIT.read_text().splitlines() if not line.startswith(("#", "[")))
    return {key: value for key, equals, value in lines if equals}


def analyzed(tmp_path: Path, *command: str) -> None:
    """Run systemd-analyze on the unit, with a program that exists in the place of the installed one."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/nodeagent", sys.executable))
    done = subprocess.run([tool, *command, str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_systemd_takes_the_unit_without_a_word(tmp_path: Path) -> None:
    analyzed(tmp_path, "verify", "--man=no")


def test_the_exposure_of_the_unit_stays_at_most_3_5(tmp_path: Path) -> None:
    analyzed(tmp_path, "security", "--offline=true", "--threshold=35")


def test_the_units_directories_are_the_programs_defaults() -> None:
    given, agent = directives(), Settings().agent
    assert f"/var/lib/{given['StateDirectory']}" == agent.state_dir
    assert f"/run/{given['RuntimeDirectory']}" == agent.run_dir
    assert f"/etc/{given['ConfigurationDirectory']}/nodeagent.toml" == DEFAULT_PATH


def manifest(kind: str) -> dict[str, Any]:
    found = [part for part in yaml.safe_load_all(MANIFEST.read_text()) if part["kind"] == kind]
    assert len(found) == 1
    return dict(found[0])


def container() -> dict[str, Any]:
    return dict(manifest("DaemonSet")["spec"]["template"]["spec"]["containers"][0])


def test_the_manifests_configuration_is_accepted_and_matches_what_is_mounted(tmp_path: Path) -> None:
    file = tmp_path / "nodeagent.toml"
    file.write_text(manifest("ConfigMap")["data"]["nodeagent.toml"])
    settings = load(str(file), env={}).settings
    mounted = {mount["mountPath"] for mount in container()["volumeMounts"]}
    root = settings.agent.host_root
    assert {settings.agent.state_dir, settings.agent.run_dir, f"{root}/proc", f"{root}/sys"} <= mounted
    assert container()["args"][-1].rpartition("/")[0] in mounted
    port = container()["ports"][0]
    assert settings.http.address == f"0.0.0.0:{port['containerPort']}"
    for probe in ("livenessProbe", "readinessProbe"):
        assert container()[probe]["httpGet"]["port"] == port["name"]


def test_the_manifest_starts_without_privileges_that_are_not_listed() -> None:
    security = container()["securityContext"]
    assert security["capabilities"]["drop"] == ["ALL"]
    assert "privileged" not in security
    bounding = directives()["CapabilityBoundingSet"].split()
    assert [f"CAP_{name}" for name in security["capabilities"]["add"]] == bounding


def test_every_volume_is_mounted_and_every_mount_has_its_volume() -> None:
    volumes = {volume["name"] for volume in manifest("DaemonSet")["spec"]["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container()["volumeMounts"]} == volumes
