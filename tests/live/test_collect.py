"""Real agents that observe, and a real controller: they report to it, or it asks them; it directs both."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from nodeagent.v1 import collector_pb2 as pb
from nodeagent.v1 import directive_pb2 as directive_pb
from tests.live.running import SLOWNESS, RunningAgent, running, until
from tests.unit.certificates import Authority, Secret, needs_openssl
from tests.unit.collecting import COLLECT, Controller, collecting
from tests.unit.rpc_clients import code
from tests.unit.test_collect_trust import BOSS, CONTROLLER, DENIED, READER, ROLES, asking, connected, words

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


def hold(stub: Any, node: str, name: str) -> Callable[[], pb.SendDirectiveResponse]:
    """Let a director's controller hold a node at nothing."""
    order = directive_pb.HoldCapacity(cpu_cores=0.0)
    directive = directive_pb.Directive(id=name, lease=Duration(seconds=600), hold_capacity=order)
    request = pb.SendDirectiveRequest(node_name=node, directive=directive)
    return lambda: stub.SendDirective(request, timeout=20.0 * SLOWNESS)


def held(stub: Any) -> set[str]:
    """Nodes whose capacity says that it is held."""
    view = stub.GetView(pb.GetViewRequest(nodes=True), timeout=20.0 * SLOWNESS).view
    terms = ((node.node_name, term) for node in view.nodes for term in node.status.capacity.cpu.terms)
    return {name for name, term in terms if term.name == "hold"}


@needs_openssl
def test_a_director_directs_agents_that_report_and_that_are_asked_and_certificates_rotate(
    tmp_path: Path,
) -> None:
    """The name of the node that reports is that of its certificate."""
    authority = Authority(tmp_path)
    server = Secret(tmp_path / "server", authority.issue(*CONTROLLER))
    mine = Secret(tmp_path / "mine", authority.issue("URI:spiffe://prod/node/node-a"))
    files = mine.files
    tls = {
        "controller.tls_cert": files.certificate,
        "controller.tls_key": files.key,
        "controller.tls_ca": files.ca,
        "controller.directives": "true",
        "controller.backoff_s": 0.1,
        "controller.backoff_max_s": 1,
    }
    asked = f"unix:{tmp_path}/b/rpc.sock"
    with (
        running(tmp_path / "b", None, (), **settings("", tmp_path / "b")) as second,
        collecting(
            tmp_path, *words(server.files), *ROLES, "--query", asked, "--node-names-from-certificate"
        ) as controller,
        running(
            tmp_path / "a", None, (), **{**settings("node-a", tmp_path / "a", controller.address), **tls}
        ) as first,
        asking(controller, authority.issue(BOSS)) as boss,
        asking(controller, authority.issue(READER)) as reader,
    ):
        other = socket.gethostname()
        until(lambda: sorted(connected(boss)) == sorted(["node-a", other]), "both nodes")
        for node in ("node-a", other):
            assert code(hold(reader, node, "no"))[0] is DENIED
        assert hold(boss, "node-a", "h")().status.issuer == f"controller:{controller.address}"
        assert hold(boss, other, "h")().status.issuer.startswith(f"uid:0 pid:{controller.process.pid}")
        until(lambda: held(reader) == {"node-a", other}, "both are held")
        for agent in (first, second):
            assert [event["id"] for event in agent.named("directive.taken")] == ["h"]
        until(lambda: len(first.named("link.connected")) == 1, "the stream has settled")
        mine.swap(authority.issue("URI:spiffe://prod/node/node-a"))
        until(lambda: len(first.named("link.connected")) == 2, "a stream with the new certificate")
        server.swap(authority.issue(*CONTROLLER))
        until(lambda: bool(controller.said("tls.reloaded")), "the controller has a new one too")
        assert sorted(connected(boss)) == sorted(["node-a", other])
        assert first.named("tls.reloaded")[0]["of"] == "controller"
