"""Real handshakes with the server: who is let in, and what happens when certificates change."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from nodeagent.rpc import cut as rpc_cut
from nodeagent.rpc.caller import Access
from nodeagent.rpc.guard import Limits
from nodeagent.rpc.server import RpcServer
from nodeagent.rpc.tls import Identity, TlsFiles
from nodeagent.v1 import nodeagent_pb2 as pb
from nodeagent.v1.nodeagent_pb2_grpc import NodeAgentStub
from tests.unit import samples
from tests.unit.certificates import Authority, Secret, needs_openssl
from tests.unit.rpc_clients import WAIT_S, client, code, serving

pytestmark = needs_openssl

READER, DIRECTOR, STRANGER = "DNS:metrics.example", "URI:spiffe://prod/controller", "DNS:other.example"
ACCESS = Access(readers=("*.example.org", "metrics.example"), directors=("spiffe://prod/*",))
ASK = pb.GetCapacityRequest()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ca")


@pytest.fixture(scope="module")
def authority(home: Path) -> Authority:
    return Authority(home)


@pytest.fixture(scope="module")
def stranger(home: Path) -> Authority:
    return Authority(home, "stranger")


@pytest.fixture(scope="module")
def node(authority: Authority) -> TlsFiles:
    return authority.issue("IP:127.0.0.1", "DNS:node-7")


@pytest.fixture
def server(node: TlsFiles) -> Iterator[RpcServer]:
    with secured(node) as running:
        yield running


@contextmanager
def secured(files: TlsFiles, **options: Any) -> Iterator[RpcServer]:
    """A server with TLS alone."""
    options = {"access": ACCESS, **options}
    with serving("", tls=Identity(files), tls_address="127.0.0.1:0", **options) as running:
        running.publish(samples.tick(1))
        yield running


@contextmanager
def channel(server: RpcServer, files: TlsFiles | None, ca: Path | str = "") -> Iterator[grpc.Channel]:
    """A connection of its own; without `files` one without a certificate."""
    if files is not None:
        credentials = Identity(files).channel_credentials()
    else:
        credentials = grpc.ssl_channel_credentials(Path(ca).read_bytes())
    private = [("grpc.use_local_subchannel_pool", 1)]
    with closing(grpc.secure_channel(server.tls_address, credentials, options=private)) as opened:
        yield opened


def asked(server: RpcServer, files: TlsFiles) -> tuple[grpc.StatusCode, str]:
    """How a client with this certificate fares, on a new connection."""
    with channel(server, files) as opened:
        try:
            NodeAgentStub(opened).GetCapacity(ASK, timeout=WAIT_S)
        except grpc.RpcError as error:
            return error.code(), error.details()
    return grpc.StatusCode.OK, ""


@pytest.mark.parametrize("name", [READER, DIRECTOR, "DNS:a.EXAMPLE.org", f"{STRANGER},{READER}"])
def test_a_name_in_the_lists_is_let_in(server: RpcServer, authority: Authority, name: str) -> None:
    assert asked(server, authority.issue(name))[0] is grpc.StatusCode.OK


@pytest.mark.parametrize(
    "names",
    [
        (STRANGER,),
        ("DNS:metrics.example.evil",),
        ("URI:spiffe://prod/x/controller",),
        ("email:a@metrics.example",),
        (),
    ],
    ids=str,
)
def test_other_names_are_refused_every_call_but_health(
    server: RpcServer, authority: Authority, names: tuple[str, ...]
) -> None:
    files = authority.issue(*names, common_name="metrics.example")
    with channel(server, files) as opened:
        stub = NodeAgentStub(opened)
        for call in (
            lambda: stub.GetCapacity(ASK, timeout=WAIT_S),
            lambda: next(stub.WatchCapacity(pb.WatchCapacityRequest(), timeout=WAIT_S)),
            lambda: reflected(opened),
        ):
            status, details = code(call)
            assert status is grpc.StatusCode.PERMISSION_DENIED
            assert "grpc.readers" in details
        health = health_pb2_grpc.HealthStub(opened).Check(health_pb2.HealthCheckRequest(), timeout=WAIT_S)
        assert health.status == health_pb2.HealthCheckResponse.SERVING


def reflected(opened: grpc.Channel) -> object:
    stub = reflection_pb2_grpc.ServerReflectionStub(opened)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    return next(iter(stub.ServerReflectionInfo(iter([request]), timeout=WAIT_S)))


def test_the_certificate_of_another_ca_is_refused(
    server: RpcServer, authority: Authority, stranger: Authority
) -> None:
    assert asked(server, stranger.issue(READER, trusting=authority))[0] is grpc.StatusCode.UNAVAILABLE


def test_an_expired_certificate_is_refused(server: RpcServer, authority: Authority) -> None:
    assert asked(server, authority.issue(READER, days=-1))[0] is grpc.StatusCode.UNAVAILABLE


def test_a_client_without_a_certificate_is_refused(server: RpcServer, authority: Authority) -> None:
    with channel(server, None, authority.ca) as opened:
        health = health_pb2_grpc.HealthStub(opened)
        status, _ = code(lambda: health.Check(health_pb2.HealthCheckRequest(), timeout=WAIT_S))
    assert status is grpc.StatusCode.UNAVAILABLE


def test_a_client_refuses_a_server_that_its_ca_does_not_know(
    server: RpcServer, authority: Authority, stranger: Authority
) -> None:
    assert asked(server, authority.issue(READER, trusting=stranger))[0] is grpc.StatusCode.UNAVAILABLE


def test_plain_text_on_the_tls_port_is_refused(server: RpcServer) -> None:
    with closing(grpc.insecure_channel(server.tls_address)) as opened:
        status, _ = code(lambda: NodeAgentStub(opened).GetCapacity(ASK, timeout=WAIT_S))
    assert status is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("version", "let_in"),
    [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)],
)
def test_tls_begins_at_1_2(
    server: RpcServer, authority: Authority, version: ssl.TLSVersion, let_in: bool
) -> None:
    files = authority.issue(READER)
    context = ssl.create_default_context(cafile=files.ca)
    context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols(["h2"])
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # or OpenSSL itself would not offer 1.1
    context.minimum_version = context.maximum_version = version
    host, port = server.tls_address.split(":")
    with socket.create_connection((host, int(port)), WAIT_S) as plain:
        if not let_in:
            with pytest.raises(ssl.SSLError, match=r"(?i)protocol|version|EOF"):
                context.wrap_socket(plain, server_hostname=host)
            return
        with context.wrap_socket(plain, server_hostname=host) as secure:
            assert secure.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
            assert secure.recv(9)[3] == 4  # HTTP/2 SETTINGS: in TLS 1.3 only who was verified gets that far


def test_certificates_rotate_under_calls_that_run(
    home: Path, authority: Authority, stranger: Authority, node: TlsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = Secret(home / "secret", node)
    old, new = authority.issue(READER), stranger.issue(READER)
    both = stranger.issue("IP:127.0.0.1", trusting=authority)
    Path(both.ca).write_bytes(authority.ca.read_bytes() + stranger.ca.read_bytes())
    for files in (old, new):
        Path(files.ca).write_bytes(Path(both.ca).read_bytes())
    monkeypatch.setattr(rpc_cut, "LOOK_AT_FILES_S", 0.1)
    with secured(secret.files) as server, channel(server, old) as before:
        watch = NodeAgentStub(before).WatchCapacity(pb.WatchCapacityRequest(), timeout=60.0)
        assert next(watch).capacity.seq == 1
        assert asked(server, new)[0] is grpc.StatusCode.UNAVAILABLE
        secret.swap(both)  # a certificate of the new CA, and both are trusted
        assert asked(server, new)[0] is asked(server, old)[0] is grpc.StatusCode.OK
        server.publish(samples.tick(2))
        assert next(watch).capacity.seq == 2  # it did not notice
        secret.swap(both._replace(ca=str(stranger.ca)))  # the old CA is trusted no more
        assert code(lambda: next(watch))[0] is grpc.StatusCode.UNAVAILABLE
        assert asked(server, old)[0] is grpc.StatusCode.UNAVAILABLE
        assert asked(server, new)[0] is grpc.StatusCode.OK
        assert server.tls is not None
        events = [news.name for news in server.tls.news]
    assert events == ["tls.reloaded", "tls.reloaded"]


def test_a_half_written_pair_is_told_once_and_the_old_one_serves_on(
    home: Path, authority: Authority, node: TlsFiles
) -> None:
    files = TlsFiles(*(str(home / f"half-{name}") for name in TlsFiles._fields))
    for path, source in zip(files, node, strict=True):
        Path(path).write_bytes(Path(source).read_bytes())
    reader, other = authority.issue(READER), authority.issue("IP:127.0.0.1")
    with secured(files) as server:
        assert server.tls is not None
        for half in (Path(other.certificate).read_bytes(), b"", Path(other.certificate).read_bytes()[:200]):
            Path(files.certificate).write_bytes(half)
            assert asked(server, reader)[0] is asked(server, reader)[0] is grpc.StatusCode.OK
        assert "is not the key of" in server.tls.complaint
        assert [news.name for news in server.tls.news] == ["tls.refused"]
        Path(files.certificate).write_bytes(Path(other.certificate).read_bytes())
        Path(files.key).write_bytes(Path(other.key).read_bytes())
        assert asked(server, reader)[0] is grpc.StatusCode.OK
        assert server.tls.complaint == ""
        assert [news.name for news in server.tls.news] == ["tls.refused", "tls.reloaded"]


def test_a_client_is_told_to_make_a_new_channel(home: Path, authority: Authority, node: TlsFiles) -> None:
    secret = Secret(home / "client", node)
    identity = Identity(secret.files)
    assert not identity.refresh()
    secret.swap(authority.issue(READER))
    assert identity.refresh()
    assert not identity.refresh()


def test_the_local_socket_and_tls_are_served_at_once(
    tmp_path: Path, node: TlsFiles, authority: Authority
) -> None:
    options = {"tls": Identity(node), "tls_address": "127.0.0.1:0", "access": ACCESS}
    with serving(f"unix:{tmp_path}/rpc.sock", **options) as server, client(server) as local:
        server.publish(samples.tick(1))
        assert local.GetCapacity(ASK, timeout=WAIT_S).capacity.seq == 1
        assert asked(server, authority.issue(DIRECTOR))[0] is grpc.StatusCode.OK


def test_an_old_connection_is_ended_in_good_order_and_made_anew(node: TlsFiles, authority: Authority) -> None:
    limits: dict[str, Any] = {"max_connection_age_s": 1.0, "limits": Limits(1e6, 1e6)}
    with secured(node, **limits) as server, channel(server, authority.issue(READER)) as opened:
        stub, ports = NodeAgentStub(opened), set()
        begin = time.monotonic()
        while time.monotonic() - begin < 4.0:
            stub.GetCapacity(ASK, timeout=WAIT_S)  # none of them fails
            ports |= client_ports(server)
        assert len(ports) > 1


def client_ports(server: RpcServer) -> set[int]:
    """Where the connections to it come from."""
    port = int(server.tls_address.rpartition(":")[2])
    found = psutil.Process().net_connections("tcp")
    return {each.laddr.port for each in found if each.raddr[1:] == (port,)}
