"""`nodeagent explain` and `nodeagent events` against a real server, as an operator calls them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.core.decide import decide
from nodeagent.model.decision import Tick
from nodeagent.model.event import TOPICS, Event, Topic
from nodeagent.rpc.server import RpcServer
from tests.unit.rpc_clients import serving
from tests.unit.test_cli import nodeagent
from tests.unit.world import Load, World


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RpcServer]:
    world = World()
    world.run(Load(), Load())
    seen, before = world.snapshot(Load()), world.memory
    decision, _ = decide(seen, world.policy, before)
    happened = (
        Event("info", "pod.appeared", {"pod": "web 1", "qos": "ls"}),
        Event("debug", "knob.written", {"knob": "cpu.quota a", "new_cores": 0.5}),
        Event("warning", "knob.drift", {"count": 2, "knob": "cpu.quota a"}),
    )
    with serving(f"unix:{tmp_path}/rpc.sock") as running:
        running.publish(Tick(seen, decision), world.policy, before, happened)
        yield running


def test_the_capacity_is_explained_by_default_and_by_its_name(server: RpcServer) -> None:
    done = nodeagent("explain", "--address", server.address)
    assert done.returncode == 0, done.stderr
    assert done.stdout == nodeagent("explain", "capacity", "--address", server.address).stdout
    assert done.stdout.startswith("what is offered to Batch, and what it may use: tick 2 at ")
    law = "max(0, max(0, total - steal) * ceiling_ratio - max(reserved, system) - online_peak)"
    assert f"\n    {law}\n  = max(0," in done.stdout
    assert max(map(len, done.stdout.splitlines()[:16])) <= 110


def test_a_pod_is_explained_as_text_and_as_json(server: RpcServer) -> None:
    text = nodeagent("explain", "pod1", "--address", server.address).stdout
    assert "\ncpu.quota nodeagent/batch/pod1 = " in text and "the kernel has " in text
    found = json.loads(nodeagent("explain", "pod1", "-o", "json", "--address", server.address).stdout)
    names = [each["name"] for each in found["reasons"]]
    assert found["seq"] == 2 and "batch.limit" in names and "cpu.quota nodeagent/batch/pod1" in names


def test_an_unknown_pod_is_one_line_with_near_names(server: RpcServer) -> None:
    done = nodeagent("explain", "pdo1", "--address", server.address)
    assert done.returncode == 1
    assert done.stderr.startswith("nodeagent: there is no pod 'pdo1'; did you mean pod1")
    assert done.stderr.count("\n") == 1


def test_without_an_agent_it_says_so(tmp_path: Path) -> None:
    for command in ("explain", "events"):
        done = nodeagent(command, "--address", f"unix:{tmp_path}/none.sock")
        assert done.returncode == 1
        assert "no agent answers at" in done.stderr and "is `nodeagent run` running" in done.stderr


def test_events_are_lines_with_what_they_are_about_first(server: RpcServer) -> None:
    lines = nodeagent("events", "--address", server.address).stdout.splitlines()
    assert [line.split("  ", 1)[1] for line in lines] == [
        'pod.appeared                 pod="web 1"  qos=ls',
        'knob.drift [warning]         knob="cpu.quota a"  count=2',
    ]


def test_events_are_chosen_by_topic_and_level_and_told_as_json(server: RpcServer) -> None:
    done = nodeagent("events", "-o", "json", "--debug", "--topic", "action", "--address", server.address)
    (only,) = map(json.loads, done.stdout.splitlines())
    assert (only["name"], only["level"], only["number"]) == ("knob.written", "debug", 2)
    assert only["keys"] == {"knob": "cpu.quota a", "new_cores": "0.5"}


def test_following_goes_on_until_the_agent_stops(server: RpcServer) -> None:
    command = [sys.executable, "-m", "nodeagent", "events", "-f", "--address", server.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        first = [process.stdout.readline() for _ in range(2)]
        latest = server.service.latest
        assert latest is not None
        server.publish(latest.tick, events=(Event("info", "offer.restored", {}),))
        assert "knob.drift" in first[1] and process.stdout.readline().endswith("offer.restored\n")
        server.stop()
        assert process.wait(10.0) == 1
        assert "the agent answered UNAVAILABLE: nodeagent is stopping" in process.stderr.read()


def test_every_event_of_the_log_has_a_topic() -> None:
    named = re.compile(r'Event\([^"]*(?:"\w+" if [^"]* "\w+"|"\w+"|level), "([\w.-]+)"')
    sources = Path(__file__).parents[2].joinpath("nodeagent", "report").glob("*.py")
    names = {name for source in sources for name in named.findall(source.read_text())}
    assert {"pod.appeared", "knob.drift", "nic.shaped", "offer.withdrawn", "batch.limit"} <= names
    assert [n for n in names if n not in TOPICS and n.partition(".")[0] not in TOPICS] == []
    assert Event("info", "ls-cpu-pressure.began", {}).topic is Topic.SIGNAL
