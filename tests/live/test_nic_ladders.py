"""Each step of both ladders asked for of the real agent, where this kernel has it."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.live.nic_agent import BATCH, LS, ONLINE, SETTINGS, configured, shaping, until_classified
from tests.live.nic_lab import Lab, classes, inside, lab
from tests.live.nic_loads import Load, Place, load
from tests.live.running import NODEAGENT, RunningAgent, running, until

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not shutil.which("tc"), reason="needs ip and tc (iproute2) to look with"),
]
PORT = 7000


@contextmanager
def sending(made: Lab, home: Path, namespace: str) -> Iterator[Load]:
    """A Batch pod in this namespace sends 20 Mbit/s to the peer."""
    place = Place(namespace, "batch", "ladder", home / "exec")
    with (
        load(Place(made.peer), "sink", PORT) as sink,
        load(place, "send", made.service().v4, PORT, 2, 20),
    ):
        until(lambda: sink.tell()["bytes"] > 0, "traffic")
        yield sink


def report(made: Lab, agent: RunningAgent) -> dict[str, Any]:
    """What `nodeagent nic -o json` answers."""
    words = [*inside(made.host), *NODEAGENT, "nic", "-o", "json", "--set", f"agent.run_dir={agent.runtime}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("classify", ["nft", "bpf", "u32"])
def test_a_routed_pod_is_told_by_each_classifier(tmp_path: Path, classify: str) -> None:
    with (
        lab() as made,
        shaping(made, tmp_path, configured(tmp_path, classify=classify)) as agent,
        sending(made, tmp_path, made.pod().namespace),
    ):
        until_classified(made, BATCH)
        assert [event["classifier"] for event in agent.named("nic.classifier")] == [classify]


@pytest.mark.parametrize(("classify", "name"), [("nft", BATCH), ("bpf", BATCH), ("u32", LS), ("none", LS)])
def test_a_process_in_the_hosts_network_is_told_by_its_cgroup_or_is_said_not_to_be(
    tmp_path: Path, classify: str, name: str
) -> None:
    with (
        lab() as made,
        shaping(made, tmp_path, configured(tmp_path, classify=classify)) as agent,
        sending(made, tmp_path, made.host),
    ):
        until_classified(made, name)
        if name == LS:
            until(lambda: bool(agent.named("nic.unclassified")), "the pod is named")


def test_another_classifier_takes_over_at_a_restart_and_nothing_of_the_last_stays(tmp_path: Path) -> None:
    with lab() as made, sending(made, tmp_path, made.pod().namespace):
        for classify in ("bpf", "u32", "nft"):
            with shaping(made, tmp_path, configured(tmp_path, classify=classify)) as agent:
                until_classified(made, BATCH)
                agent.process.kill()
                agent.process.wait()
        with shaping(made, tmp_path):
            until_classified(made, BATCH)
            assert "u32" not in made.tc(made.host, "filter show dev nic0")
            assert "clsact" not in made.tc(made.host, "qdisc show dev nic0")


def test_behind_a_foreign_root_pods_are_bounded_at_their_veths(tmp_path: Path) -> None:
    with lab() as made:
        made.tc(made.host, "qdisc add dev nic0 root handle 77: tbf rate 800mbit burst 128kb limit 1mb")
        before = made.tc(made.host, "qdisc show dev nic0")
        with (
            running(tmp_path, configured(tmp_path), inside(made.host), **SETTINGS) as agent,
            sending(made, tmp_path, made.pod().namespace),
        ):
            until(lambda: bool(agent.named("nic.shaped")), "the NIC is shaped")
            (shaped,) = agent.named("nic.shaped")
            assert shaped["step"] == "veth" and "tbf 77: is somebody else's" in shaped["why"]
            (device,) = _devices(made, "na-ifbv")
            until_classified(made, BATCH, device)
            assert made.tc(made.host, "qdisc show dev nic0") == before
        assert _devices(made, "na-ifb") == []
        assert made.tc(made.host, "qdisc show dev nic0") == before


def test_departure_times_bound_batch_below_a_foreign_fq(tmp_path: Path) -> None:
    with lab() as made:
        try:
            made.tc(made.host, "qdisc add dev nic0 root handle 77: fq")
        except AssertionError as error:
            pytest.skip(f"no fq in this kernel: {error}")
        # The first parts only: packets that wait are counted there.
        before = made.tc(made.host, "qdisc show dev nic0")
        rule = {**ONLINE, "batch_ceiling_ratio": 0.01, "batch_pressed_ratio": 0.01, "batch_ratio": 0.005}
        with (
            running(tmp_path, configured(tmp_path, rule), inside(made.host), **SETTINGS) as agent,
            sending(made, tmp_path, made.host) as sink,
        ):
            until(lambda: bool(agent.named("nic.shaped")), "the NIC is shaped")
            assert agent.named("nic.shaped")[0]["step"] == "edt"
            got, begin = sink.tell()["bytes"], time.monotonic()
            until(lambda: sink.tell()["bytes"] > got + 2_000_000, "traffic", 60.0)
            bps = (sink.tell()["bytes"] - got) * 8 / (time.monotonic() - begin)
            assert bps < 1.1 * 0.01 * 0.95e9  # of the 20 Mbit/s that are offered
            assert made.tc(made.host, "qdisc show dev nic0").startswith(before)
        assert made.tc(made.host, "qdisc show dev nic0") == before


def test_a_nic_that_is_only_observed_is_left_as_it_is_and_the_reason_is_told(tmp_path: Path) -> None:
    rule = {**ONLINE, "schedule": "observe"}
    values = {key: value for key, value in SETTINGS.items() if key != "grpc__address"}
    with lab() as made:
        before = made.tc(made.host, "qdisc show dev nic0")
        with running(tmp_path, configured(tmp_path, rule), inside(made.host), **values) as agent:
            until(lambda: bool(agent.named("nic.let_be")), "it is let be")
            (nic,) = report(made, agent)["nics"]
            assert (nic["scheduler"], nic["why"]) == ("observe", "schedule = observe")
            assert made.tc(made.host, "qdisc show dev nic0") == before
            assert classes(made) == {}


def _devices(made: Lab, prefix: str) -> list[str]:
    """Links of the host whose names begin so."""
    words = ["ip", "-n", made.host, "-json", "link", "show"]
    links = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return [link["ifname"] for link in links if link["ifname"].startswith(prefix)]
