"""What the agent tells of NICs while real traffic runs: the command, the metrics, the doctor beside it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.live.nic_agent import BATCH, BULK, ONLINE, configured, shaping, until_classified
from tests.live.nic_lab import Lab, inside, lab
from tests.live.nic_loads import Place, load
from tests.live.running import until

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not shutil.which("tc"), reason="needs ip and tc (iproute2) to look with"),
]
PORT = 7000


def _nodeagent(made: Lab, *words: str) -> str:
    run = [*inside(made.host), sys.executable, "-m", "nodeagent", *words]
    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=120)
    assert done.stderr == "", done.stderr
    return done.stdout


def _classes(made: Lab, address: str) -> dict[str, dict[str, Any]]:
    answer = json.loads(_nodeagent(made, "nic", "-o", "json", "--set", f"grpc.address={address}"))
    (nic,) = (each for each in answer["nics"] if each["name"] == "nic0")
    return {each["qos"]: each for each in nic["egress"]["classes"]}


def test_the_command_shows_the_rate_of_the_class_that_sends(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/rpc.sock"
    with (
        lab(nics=2) as made,
        shaping(made, tmp_path, configured(tmp_path, ONLINE, BULK), grpc__address=address),
        load(Place(made.peer), "sink", PORT),
        load(
            Place(made.host, "batch", "batch", tmp_path / "exec"),
            "send",
            made.service().of(4),
            PORT,
            2,
            20,
        ),
    ):
        until_classified(made, BATCH)
        until(lambda: (_classes(made, address)["batch"]["rate_bps"] or 0) > 1e6, "a rate of Batch")
        found = _classes(made, address)
        assert found["batch"]["rate_bps"] > 10 * (found["ls"]["rate_bps"] or 0)
        assert found["batch"]["bytes"] > 0 and found["batch"]["why"]
        text = _nodeagent(made, "nic", "--set", f"grpc.address={address}")
        assert "nic0  online, up" in text and "nic1  bulk, up" in text
        assert "packets are told by" in text


def test_the_doctor_sees_in_the_same_namespace_how_its_nic_would_be_shaped(tmp_path: Path) -> None:
    with lab() as made:
        config = configured(tmp_path, ONLINE)
        run = [
            *inside(made.host),
            sys.executable,
            "-m",
            "nodeagent",
            "doctor",
            "-o",
            "json",
            "-c",
            str(config),
        ]
        done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=120)
        found = {each["name"]: each for each in json.loads(done.stdout)}
    assert found["NIC nic0"]["status"] == "ok", found["NIC nic0"]
    assert "online; shaped by htb" in found["NIC nic0"]["found"]
    assert found["classifier"]["status"] == "ok"
