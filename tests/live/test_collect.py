"""Two real agents that observe, and a real controller: they report to it, or it asks them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.live.running import RunningAgent, running, until
from tests.unit.collecting import COLLECT, Controller, collecting

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="the agent needs root"),
]

OBSERVE = {"agent.mode": "observe", "agent.slow_tick_s": 0.5, "capacity.stale_after_s": 2.0}


def settings(name: str, home: Path, controller: str = "") -> dict[str, object]:
    """Of an agent of that name, with directories of its own."""
    home.mkdir()
    own = {"controller.node_name": name, "grpc.address": f"unix:{home}/rpc.sock"}
    return {**OBSERVE, **own, "controller.address": controller, "controller.report_s": 0.25}


def freeze(agent: RunningAgent, controller: Controller) -> None:
    """A node that is stopped in its tracks counts for nothing, and counts again when it goes on."""
    agent.process.send_signal(signal.SIGSTOP)
    try:
        until(lambda: controller.view().stale_nodes >= 1, "the frozen node is stale")
    finally:
        agent.process.send_signal(signal.SIGCONT)
    until(lambda: controller.view().stale_nodes == 0, "it is back")


def test_two_agents_report_and_the_view_is_what_they_offer_together(tmp_path: Path) -> None:
    at = f"unix:{tmp_path}/collect.sock"
    with (
        collecting(tmp_path, "--listen", at) as controller,
        running(tmp_path / "a", None, (), **settings("node-a", tmp_path / "a", at)) as first,
        running(tmp_path / "b", None, (), **settings("node-b", tmp_path / "b", at)),
    ):
        until(lambda: controller.view().fresh_nodes == 2, "both nodes")
        until(lambda: controller.view().withdrawn_nodes == 0, "both offer something")
        view = controller.view()
        assert {node.node_name for node in view.nodes} == {"node-a", "node-b"}
        offered = [node.status.capacity.cpu.available_cores for node in view.nodes]
        assert view.available_cores == pytest.approx(sum(offered), abs=1e-5)
        sizes = [node.status.capacity.memory.available_bytes for node in view.nodes]
        assert view.available_bytes == sum(sizes) > 0  # a busy machine may have no core to spare
        assert {node.status.total_cores for node in view.nodes} == {os.cpu_count()}
        assert all(zone.nodes == 2 for zone in view.zones)
        freeze(first, controller)
        assert first.stop() == 0  # its last word is that it offers nothing
        until(lambda: controller.view().withdrawn_nodes == 1, "withdrawn")
        words = [*COLLECT, "view", "--address", at, "-o", "json"]
        told = json.loads(subprocess.run(words, capture_output=True, check=True, timeout=60).stdout)
        gone = next(node for node in told["nodes"] if node["name"] == "node-a")
        assert (gone["state"], gone["withdrawn"]) == ("withdrawn", "nodeagent is stopping")


def test_agents_that_know_of_no_controller_are_asked(tmp_path: Path) -> None:
    sockets = [f"unix:{tmp_path}/{name}/rpc.sock" for name in "ab"]
    with (
        running(tmp_path / "a", None, (), **settings("node-a", tmp_path / "a")) as first,
        collecting(tmp_path, "--query", ",".join(sockets[:1])) as controller,
    ):
        until(lambda: controller.view().fresh_nodes == 1, "the node")
        before = controller.view().nodes[0].status.capacity.seq
        until(lambda: controller.view().nodes[0].status.capacity.seq > before, "the next capacity")
        freeze(first, controller)
        first.stop(signal.SIGKILL)
        until(lambda: controller.view().stale_nodes == 1, "stale")
        assert controller.view().available_cores == 0.0
        assert controller.said("agent.lost")
