"""Packets are told by classes of cgroup v1 net_cls: written, adopted after a crash, and given back."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.replay import replay
from tests.live.net_cls_place import classid, net_cls
from tests.live.nic_agent import BATCH, LS, MID, configured, shaping, until_classified
from tests.live.nic_lab import Lab, classes, inside, lab
from tests.live.nic_loads import Place, load
from tests.live.running import NODEAGENT, RunningAgent, unique, until

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not shutil.which("tc"), reason="needs ip and tc (iproute2) to look with"),
]
PORT = 7000
NUMBERS = {LS: 0x4E510010, MID: 0x4E510020, BATCH: 0x4E510030}
POD = f"nodeagent/batch/{unique('job')}"
TIER = "nodeagent/batch"


@contextlib.contextmanager
def _sending(made: Lab, home: Path, qos: str = "batch") -> Iterator[None]:
    """A pod in the host's network, which sends over sockets that it has already."""
    place = Place(made.host, qos, "job", home / "exec")
    with load(Place(made.peer), "sink", PORT) as sink, load(place, "send", made.service().v4, PORT, 2, 20):
        until(lambda: sink.tell()["bytes"] > 0, "traffic")
        yield


def _only(made: Lab, name: str) -> None:
    before = classes(made)
    until_classified(made, name)
    after = classes(made)
    more = {each: after[each].packets - before[each].packets for each in NUMBERS}
    assert sum(more.values()) - more[name] <= more[name] / 10, f"{name}: {more}"


def _writes(agent: RunningAgent) -> list[tuple[str, str]]:
    written = [event for event in agent.named("knob.written") if event["knob"].startswith("net_cls")]
    return [(event["old_class"], event["new_class"]) for event in written]


@pytest.mark.parametrize(("qos", "name"), [("ls", LS), ("mid", MID), ("batch", BATCH)])
def test_the_packets_of_a_pod_are_in_its_class_until_the_agent_stops(
    tmp_path: Path, qos: str, name: str
) -> None:
    pod = f"nodeagent/{qos}/{unique('job')}"
    with net_cls(tmp_path) as root, lab() as made, _sending(made, tmp_path, qos):
        assert classid(root, pod) == 0
        config = configured(tmp_path, classify="net_cls")
        with shaping(made, tmp_path, config, journal__enabled=True) as agent:
            until_classified(made, name)
            _only(made, name)
            assert classid(root, pod) == (0 if qos == "ls" else NUMBERS[name])
            assert agent.named("knob.refused") == []
            assert agent.stop() == 0
        assert classid(root, pod) == 0
        assert replay(agent.state).ok


def test_after_a_crash_classes_are_adopted_as_they_are_and_restored_with_those_that_began_with_them(
    tmp_path: Path,
) -> None:
    config = configured(tmp_path, classify="net_cls")
    with net_cls(tmp_path) as root, lab() as made, _sending(made, tmp_path):
        with shaping(made, tmp_path, config) as agent:
            until_classified(made, BATCH)
            assert ("none", "4e51:30") in _writes(agent)
            agent.stop(signal.SIGKILL)
        assert classid(root, POD) == classid(root, TIER) == NUMBERS[BATCH]
        _only(made, BATCH)  # nobody has to be there for it
        with shaping(made, tmp_path, config) as agent:
            until(lambda: bool(agent.named("pod.appeared")), "its first tick")
            _only(made, BATCH)
            assert _writes(agent) == []
            assert agent.named("giveback.done") == []
            agent.stop(signal.SIGKILL)
        late = root / POD / "late"
        late.mkdir()
        try:
            assert classid(root, f"{POD}/late") == NUMBERS[BATCH]
            words = [*NODEAGENT, "restore", "--set", f"agent.state_dir={agent.state}"]
            done = subprocess.run([*inside(made.host), *words], capture_output=True, text=True, check=True)
            assert f"net_cls.classid {POD}: 4e51:30 -> none" in done.stdout
            for path in (TIER, POD, f"{POD}/late"):
                assert classid(root, path) == 0, done.stdout
        finally:
            late.rmdir()
