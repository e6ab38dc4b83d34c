"""The reference controller and agents over mTLS, both real: directives end to end, files that change."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from nodeagent.directives import Directives
from nodeagent.model.settings import DirectiveSettings
from nodeagent.rpc.caller import Access
from nodeagent.rpc.directing import Denied, result
from nodeagent.rpc.link import Link
from nodeagent.rpc.tls import Identity, TlsFiles
from nodeagent.v1 import collector_pb2 as pb
from nodeagent.v1 import directive_pb2 as directive_pb
from nodeagent.v1.collector_pb2_grpc import ClusterStub
from tests.unit.certificates import Authority, Secret, needs_openssl
from tests.unit.collecting import Controller, collecting
from tests.unit.collectors import linked
from tests.unit.rpc_clients import WAIT_S, code, eventually, offering, serving
from tests.unit.test_collect_cluster import now

pytestmark = needs_openssl

NODE, READER, BOSS = "URI:spiffe://prod/node/node-7", "DNS:reader.example", "DNS:boss.example"
CONTROLLER = ("IP:127.0.0.1", "DNS:controller.example")
ROLES = ("--agents", "spiffe://prod/node/*", "--readers", "reader.example", "--directors", "boss.example")
DENIED = grpc.StatusCode.PERMISSION_DENIED


def order(name: str) -> directive_pb.Directive:
    return directive_pb.Directive(id=name, lease=Duration(seconds=60), lend_node=directive_pb.LendNode())


def words(files: TlsFiles) -> tuple[str, ...]:
    return ("--tls-cert", files.certificate, "--tls-key", files.key, "--tls-ca", files.ca)


def settings(files: TlsFiles) -> dict[str, Any]:
    """Of a link that may be directed."""
    named = {"tls_cert": files.certificate, "tls_key": files.key, "tls_ca": files.ca}
    return {**named, "directives": True}


@contextmanager
def asking(controller: Controller, files: TlsFiles) -> Iterator[Any]:
    """The controller's calls as somebody, over a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    secure = Identity(files).channel_credentials()
    with closing(grpc.secure_channel(controller.address, secure, options=options)) as channel:
        yield ClusterStub(channel)


def sending(stub: Any, name: str) -> Callable[[], pb.SendDirectiveResponse]:
    request = pb.SendDirectiveRequest(node_name="node-7", directive=order(name))
    return partial(stub.SendDirective, request, timeout=WAIT_S)


def connected(stub: Any) -> list[str]:
    """The nodes that are, empty also when nobody may ask."""
    try:
        nodes = stub.GetView(pb.GetViewRequest(nodes=True), timeout=WAIT_S).view.nodes
    except grpc.RpcError:
        return []
    return [node.node_name for node in nodes if node.connected]


@contextmanager
def directed(home: Path) -> Iterator[Directives]:
    with closing(Directives(str(home), "boot-1", DirectiveSettings(), enforcing=True)) as directives:
        yield directives


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_a_directive_goes_from_a_director_to_an_agent_that_reports_and_a_reader_s_does_not(
    authority: Authority, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        controller = stack.enter_context(collecting(tmp_path, *words(authority.issue(*CONTROLLER)), *ROLES))
        directives = stack.enter_context(directed(tmp_path))
        boss = stack.enter_context(asking(controller, authority.issue(BOSS)))
        reader = stack.enter_context(asking(controller, authority.issue(READER)))
        link: Link = stack.enter_context(
            linked(controller.address, take=partial(result, directives), **settings(authority.issue(NODE)))
        )
        link.publish(now(offering(1, 3.0)))
        assert eventually(lambda: connected(reader) == ["node-7"])
        status, said = code(sending(reader, "no"))
        assert status is DENIED and "dns:reader.example may not direct" in said
        assert directives.known() == ()
        told = sending(boss, "yes")().status
        (known,) = directives.known()
        assert told.directive == order("yes") and told.issuer == known.issuer
        assert known.issuer == f"controller:{controller.address}"
        assert eventually(lambda: bool(controller.said("directive.sent")))
        assert controller.said("directive.sent")[0]["by"] == "dns:boss.example"
        assert controller.said("directive.refused")[0]["by"] == "dns:reader.example"
        assert 'nodeagent_collect_calls_refused_total{reason="role"} 0.0' in controller.page()
        assert "nodeagent_collect_tls_not_after_seconds 1" in controller.page()


def test_an_agent_that_is_asked_takes_directives_from_a_controller_that_is_its_director(
    authority: Authority, tmp_path: Path
) -> None:
    mine = authority.issue(*CONTROLLER)
    server_files = authority.issue("DNS:node-7.example")
    with ExitStack() as stack:
        directives = stack.enter_context(directed(tmp_path))
        access = Access(directors=("controller.example",))
        tls = {"tls": Identity(server_files), "tls_address": "127.0.0.1:0", "access": access}
        agent = stack.enter_context(serving("", directives=directives, **tls))
        agent.publish(now(offering(1, 3.0)))
        asked = ("--query", agent.tls_address, "--tls-name", "node-7.example")
        controller = stack.enter_context(collecting(tmp_path, *words(mine), *ROLES, *asked))
        boss = stack.enter_context(asking(controller, authority.issue(BOSS)))
        assert eventually(lambda: connected(boss) == ["node-7"])
        assert sending(boss, "d")().status.issuer == "dns:controller.example"
        (known,) = directives.known()
        assert known.directive.id == "d"


def test_a_controller_that_only_reads_an_agent_is_refused_by_it_and_that_is_on_record_once(
    authority: Authority, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        directives = stack.enter_context(directed(tmp_path))
        access = Access(readers=("controller.example",))
        files = authority.issue("IP:127.0.0.1")
        tls = {"tls": Identity(files), "tls_address": "127.0.0.1:0", "access": access}
        agent = stack.enter_context(serving("", directives=directives, **tls))
        agent.publish(now(offering(1, 3.0)))
        mine = authority.issue(*CONTROLLER)
        asked = ("--query", agent.tls_address)
        controller = stack.enter_context(collecting(tmp_path, *words(mine), *ROLES, *asked))
        boss = stack.enter_context(asking(controller, authority.issue(BOSS)))
        assert eventually(lambda: connected(boss) == ["node-7"])
        for number in range(20):
            status, said = code(sending(boss, f"d{number}"))
            assert status is DENIED and "dns:controller.example may not direct this node" in said
        (refusal,) = directives.news()[1]
        assert (refusal.id, refusal.issuer) == ("d0", "dns:controller.example")
        assert refusal.code == DENIED.value[0]


def test_an_agent_that_listens_to_no_controller_has_its_tries_on_record(tmp_path: Path) -> None:
    at = f"unix:{tmp_path}/c.sock"
    with (
        collecting(tmp_path, "--listen", at) as controller,
        directed(tmp_path) as directives,
        linked(at, take=partial(result, directives), refuse=Denied(directives).answer) as link,
    ):
        link.publish(now(offering(1, 3.0)))
        assert eventually(lambda: connected(controller.cluster) == ["node-7"])
        for number in range(5):
            status, said = code(sending(controller.cluster, f"d{number}"))
            assert status is DENIED and "controller.directives = true" in said
        assert [each.id for each in directives.news()[1]] == ["d0"]
        assert directives.known() == ()
        sent = controller.said("directive.sent")
        assert sent[0]["by"] == f"uid:{os.getuid()} pid:{os.getpid()}"


def test_an_agent_is_only_the_node_that_its_certificate_names_where_that_is_wanted(
    authority: Authority, tmp_path: Path
) -> None:
    given = (*words(authority.issue(*CONTROLLER)), "--node-names-from-certificate")
    with (
        collecting(tmp_path, *given) as controller,
        asking(controller, authority.issue(READER)) as reader,
    ):
        with linked(controller.address, **settings(authority.issue("DNS:node-8"))) as other:
            other.publish(now(offering(1, 3.0)))
            assert eventually(lambda: bool(controller.said("stream.refused")))
            assert other.seen().connects == 0 and connected(reader) == []
        said = controller.said("stream.refused")[0]
        assert said["why"] == "full.node_name: the certificate does not name 'node-7'"
        assert said["peer"].startswith("dns:node-8 ipv4:127.0.0.1:")
        for names in (NODE, "DNS:node-7"):
            with linked(controller.address, **settings(authority.issue(names))) as link:
                link.publish(now(offering(1, 3.0)))
                assert eventually(lambda: connected(reader) == ["node-7"])
            assert eventually(lambda: connected(reader) == [])


def test_certificates_and_cas_rotate_on_both_sides_under_streams(
    authority: Authority, tmp_path: Path
) -> None:
    """First both CAs are trusted, then there are certificates of the new one, then the old one is not."""
    new = Authority(tmp_path, "new")

    def both(files: TlsFiles) -> TlsFiles:
        Path(files.ca).write_bytes(authority.ca.read_bytes() + new.ca.read_bytes())
        return files

    server = Secret(tmp_path / "controller", authority.issue(*CONTROLLER))
    agent = Secret(tmp_path / "agent", authority.issue(NODE))
    stays = authority.issue(NODE)  # an agent that nobody gives a new one
    with ExitStack() as stack:
        controller = stack.enter_context(collecting(tmp_path, *words(server.files), *ROLES))
        at = controller.address
        link = stack.enter_context(linked(at, **settings(agent.files)))
        late = stack.enter_context(linked(at, node_name="late", **settings(both(stays))))
        old_reader = stack.enter_context(asking(controller, both(authority.issue(READER))))
        for each in (link, late):
            each.publish(now(offering(1, 3.0, valid_s=600.0)))
        assert eventually(lambda: link.seen().connected and late.seen().connected)
        assert sorted(connected(old_reader)) == ["late", "node-7"]
        server.swap(both(authority.issue(*CONTROLLER)))
        agent.swap(both(authority.issue(NODE)))
        assert eventually(lambda: link.seen().connects == 2)
        server.swap(both(new.issue(*CONTROLLER)))
        agent.swap(both(new.issue(NODE)))
        assert eventually(lambda: link.seen().connects == 3)
        assert late.seen().connects == 1  # it did not notice
        with asking(controller, both(new.issue(READER))) as reader:
            assert sorted(connected(reader)) == ["late", "node-7"]
        begin = time.monotonic()
        server.swap(new.issue(*CONTROLLER))  # the old CA is trusted no more
        assert eventually(lambda: late.seen().losses >= 3)  # it is cut, and tries in vain
        assert time.monotonic() - begin < WAIT_S
        assert eventually(lambda: link.seen().connects == 4)
        with asking(controller, both(new.issue(READER))) as reader:
            assert eventually(lambda: connected(reader) == ["node-7"])
        assert late.seen().connects == 1 and connected(old_reader) == []
        assert eventually(lambda: len(controller.said("tls.reloaded")) >= 2)
        assert controller.said("tls.reloaded")[-1]["cas_removed"] == 1


def test_an_agent_is_asked_with_the_new_certificate_once_there_is_one(
    authority: Authority, tmp_path: Path
) -> None:
    new = Authority(tmp_path, "new")
    mine = Secret(tmp_path / "controller", authority.issue(*CONTROLLER))
    its = Secret(tmp_path / "agent", authority.issue("IP:127.0.0.1"))
    access = Access(readers=("controller.example",))
    tls = {"tls": Identity(its.files), "tls_address": "127.0.0.1:0", "access": access}
    with serving("", **tls) as agent:
        agent.publish(now(offering(1, 3.0)))
        at = f"unix:{tmp_path}/c.sock"
        given = (*words(mine.files), "--listen", at, "--query", agent.tls_address)
        with collecting(tmp_path, *given) as controller:
            assert eventually(lambda: connected(controller.cluster) == ["node-7"])
            for secret, name in ((mine, CONTROLLER), (its, ("IP:127.0.0.1",))):
                secret.swap(new.issue(*name))
            seq = iter(range(2, 10_000))

            def told() -> bool:
                agent.publish(now(offering(next(seq), 5.0)))
                return controller.view().available_cores == 5.0 and bool(controller.said("tls.reloaded"))

            assert eventually(told)
            assert eventually(lambda: agent.tls is not None and bool(agent.tls.news))
            assert eventually(lambda: connected(controller.cluster) == ["node-7"])
