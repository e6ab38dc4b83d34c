"""The reference controller over mTLS: who may report, read and direct is told by names in certificates."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing

import grpc
import pytest

from nodeagent.rpc.tls import Identity
from nodeagent.v1 import collector_pb2 as pb
from nodeagent.v1 import directive_pb2 as directive_pb
from nodeagent.v1.collector_pb2_grpc import ClusterStub, CollectorStub
from tests.unit import cluster_nodes as nodes
from tests.unit.certificates import Authority, needs_openssl
from tests.unit.collecting import COLLECT, Agent, Controller, collecting
from tests.unit.rpc_clients import WAIT_S, code
from tests.unit.test_collect_trust import words

pytestmark = needs_openssl

ROLES = ("--agents", "spiffe://cluster/node/*", "--readers", "reader.example", "--directors", "boss.example")
SANS = {
    "node": "URI:spiffe://cluster/node/7",
    "reader": "DNS:reader.example",
    "boss": "DNS:boss.example",
    "stranger": "DNS:stranger.example",
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def secured(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    files = words(authority.issue("IP:127.0.0.1"))
    with collecting(tmp_path_factory.mktemp("collect"), *files, *ROLES) as controller:
        yield controller


def channel(authority: Authority, controller: Controller, who: str | None) -> grpc.Channel:
    """As somebody, or as nobody: without a certificate."""
    if who is None:
        credentials = grpc.ssl_channel_credentials(authority.ca.read_bytes())
    else:
        credentials = Identity(authority.issue(SANS[who])).channel_credentials()
    return grpc.secure_channel(controller.address, credentials)


@pytest.mark.parametrize(
    ("who", "reports", "reads", "directs"),
    [
        ("node", "ok", "denied", "denied"),
        ("reader", "denied", "ok", "denied"),
        ("boss", "denied", "ok", "ok"),
        ("stranger", "denied", "denied", "denied"),
        (None, "out", "out", "out"),
    ],
)
def test_each_name_may_do_what_its_roles_say(
    authority: Authority, secured: Controller, who: str | None, reports: str, reads: str, directs: str
) -> None:
    with closing(channel(authority, secured, who)) as to:
        full = nodes.full("node-7", nodes.capacity(1, time.time()))
        order = pb.SendDirectiveRequest(node_name="nowhere", directive=directive_pb.Directive(id="d"))
        asked = {
            "reports": lambda: list(CollectorStub(to).Report(iter([full]), timeout=WAIT_S)),
            "reads": lambda: ClusterStub(to).GetView(pb.GetViewRequest(), timeout=WAIT_S),
            "directs": lambda: ClusterStub(to).SendDirective(order, timeout=WAIT_S),
        }
        came = {name: outcome(call) for name, call in asked.items()}
    assert came == {"reports": reports, "reads": reads, "directs": directs}


def outcome(call) -> str:  # type: ignore[no-untyped-def]
    """NOT_FOUND: it was let through, and there is no such node."""
    try:
        call()
    except grpc.RpcError:
        words = {
            grpc.StatusCode.PERMISSION_DENIED: "denied",
            grpc.StatusCode.UNAVAILABLE: "out",
            grpc.StatusCode.NOT_FOUND: "ok",
        }
        return words[code(call)[0]]
    return "ok"


def test_plain_clients_get_nowhere(secured: Controller) -> None:
    assert code(secured.view)[0] is grpc.StatusCode.UNAVAILABLE


def test_view_asks_with_a_certificate(authority: Authority, secured: Controller) -> None:
    files = words(authority.issue(SANS["reader"]))
    command = [*COLLECT, "view", "--address", secured.address, "-o", "json", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "available_cores" in json.loads(done.stdout)


def test_an_agent_is_read_over_tls_as_over_anything_else(authority: Authority, secured: Controller) -> None:
    with closing(channel(authority, secured, "reader")) as reader:
        secured.cluster = ClusterStub(reader)
        agent = Agent(secured, "node-8", channel(authority, secured, "node"))
        agent.offer(1, 4.0).close()
