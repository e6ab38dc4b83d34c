"""Who may call what, how often, and how long: on real sockets, with clients that do not behave."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from nodeagent.rpc import guard as rpc_guard
from nodeagent.rpc.address import Unix, parse_tls
from nodeagent.rpc.bucket import MAX_PEERS, Bucket, Buckets
from nodeagent.rpc.caller import Access, Origin, Role, director
from nodeagent.rpc.door import Door
from nodeagent.rpc.guard import Guard, Limits
from nodeagent.rpc.tls import Identity
from nodeagent.v1 import nodeagent_pb2 as pb
from nodeagent.v1.nodeagent_pb2_grpc import NodeAgentStub
from tests.unit import samples
from tests.unit.certificates import Authority, needs_openssl
from tests.unit.rpc_clients import WAIT_S, client, code, eventually, serving
from tests.unit.rpc_strangers import Greedy, as_user

ASK = pb.GetCapacityRequest()
NOBODY = 65534
DENIED, EXHAUSTED = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.RESOURCE_EXHAUSTED


@contextmanager
def directing(where: str, access: Access, tls: Identity | None = None) -> Iterator[str]:
    """A server whose one call answers who it is that directs, at a socket or with TLS on loopback."""
    started: Future[str] = Future()
    stop = threading.Event()

    async def direct(_request: bytes, context: Any) -> bytes:
        return (await director(context)).encode()

    async def serve() -> None:
        door = Door(Unix(where), 10)
        server = grpc.aio.server(interceptors=(Guard(access, Limits(), door.connections),))
        call = {"Direct": grpc.unary_unary_rpc_method_handler(direct)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", call),))
        if tls is None:
            address = door.open(server.add_insecure_port)
        else:
            credentials = tls.server_credentials()
            address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
        await server.start()
        if tls is None:
            await door.serve()
        started.set_result(address)
        await asyncio.to_thread(stop.wait)
        door.shut()
        await server.stop(0.0)
        await door.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        yield started.result(WAIT_S)
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def open_home() -> Iterator[Path]:
    """A directory that other users may enter."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home:
        os.chmod(home, 0o755)
        yield Path(home)


def test_root_directs_by_its_user_id_and_is_recorded(tmp_path: Path) -> None:
    uid = os.getuid()
    with (
        directing(f"{tmp_path}/s", Access(director_uids=(uid,))) as address,
        closing(grpc.insecure_channel(address)) as channel,
    ):
        answer = channel.unary_unary("/test.Test/Direct")(b"", timeout=WAIT_S)
    assert answer == f"uid:{uid} pid:{os.getpid()}".encode()


@pytest.mark.live
def test_another_user_is_known_by_its_own_id_and_may_not_direct(open_home: Path) -> None:
    with directing(f"{open_home}/s", Access()) as address:
        denied = as_user(NOBODY, 0, address, "/test.Test/Direct")
        assert denied.startswith(f"PERMISSION_DENIED uid:{NOBODY} may not direct this node")
    with directing(f"{open_home}/s", Access(director_uids=(0, NOBODY))) as address:
        assert as_user(NOBODY, 0, address, "/test.Test/Direct").startswith(f"uid:{NOBODY} pid:")


@pytest.mark.live
def test_the_mode_of_the_socket_and_reader_uids_say_who_may_ask(open_home: Path) -> None:
    ask = "/nodeagent.v1.NodeAgent/GetCapacity"
    health = "/grpc.health.v1.Health/Check"
    address = f"unix:{open_home}/s"
    with serving(address) as server:
        server.publish(samples.tick(1))
        assert as_user(NOBODY, NOBODY, address, ask).startswith("UNAVAILABLE")  # 0660
        assert "DENIED" not in as_user(NOBODY, 0, address, ask)
    with serving(address, access=Access(reader_uids=(12345,))) as server, client(server) as stub:
        server.publish(samples.tick(1))
        assert as_user(NOBODY, 0, address, ask).startswith("PERMISSION_DENIED")
        assert not as_user(NOBODY, 0, address, health).startswith("PERMISSION_DENIED")
        assert stub.GetCapacity(ASK, timeout=WAIT_S).capacity.seq == 1  # root always may


@needs_openssl
@pytest.mark.parametrize(
    ("name", "answer"),
    [("URI:spiffe://prod/controller", b"uri:spiffe://prod/controller"), ("DNS:reader.example", None)],
)
def test_only_a_director_s_certificate_directs(tmp_path: Path, name: str, answer: bytes | None) -> None:
    authority = Authority(tmp_path)
    access = Access(readers=("reader.example",), directors=("uri:spiffe://prod/*",))
    mine = Identity(authority.issue(name)).channel_credentials()
    node = Identity(authority.issue("IP:127.0.0.1"))
    with directing("", access, node) as address, closing(grpc.secure_channel(address, mine)) as channel:
        call = channel.unary_unary("/test.Test/Direct")
        if answer is not None:
            assert call(b"", timeout=WAIT_S) == answer
            return
        status, details = code(lambda: call(b"", timeout=WAIT_S))
        assert (status, "grpc.directors" in details) == (DENIED, True)


@pytest.mark.parametrize(
    ("auth", "origin", "role"),
    [
        ({}, Origin("127.0.0.1"), Role.READER),
        ({}, Origin(uid=0, pid=1), Role.DIRECTOR),
        ({}, Origin(uid=1000, pid=1), Role.READER),
        ({"transport_security_type": [b"ssl"]}, Origin(uid=0, pid=1), Role.NONE),
        ({"transport_security_type": [b"ssl"], "peer_dns": [b"a.b"]}, Origin(), Role.READER),
        ({"transport_security_type": [b"ssl"], "peer_dns": [b"A.b", b"x.d"]}, Origin(), Role.DIRECTOR),
        ({"transport_security_type": [b"ssl"], "x509_common_name": [b"x.d"]}, Origin(), Role.NONE),
        ({"transport_security_type": [b"ssl"], "peer_uri": [b"x.d"]}, Origin(), Role.NONE),
        ({"transport_security_type": [b"ssl"], "peer_dns": [b"x.d\nevil"]}, Origin(), Role.NONE),
        ({"transport_security_type": [b"ssl"], "peer_ip": [b"10.0.0.7"]}, Origin(), Role.READER),
        ({"peer_dns": [b"x.d"]}, Origin("127.0.0.1"), Role.READER),
    ],
)
def test_a_role_needs_a_name_or_a_user_id(auth: dict[str, list[bytes]], origin: Origin, role: Role) -> None:
    access = Access(readers=("a.b", "ip:10.0.0.*"), directors=("dns:*.d",))
    assert access.caller(auth, origin).role is role


def test_a_bucket_gives_a_second_s_worth_at_once_and_then_its_rate() -> None:
    bucket = Bucket(10.0, 0.0)
    assert [bucket.take(0.0) for _ in range(11)] == [True] * 10 + [False]
    assert sum(bucket.take(0.01 * step) for step in range(1, 102)) == 10
    assert [bucket.take(1000.0) for _ in range(11)] == [True] * 10 + [False]


def test_one_peer_s_flood_costs_another_nothing_and_buckets_are_bounded() -> None:
    buckets = Buckets(100.0, 10.0, 0.0)
    assert sum(not buckets.take("flood", 0.0) for _ in range(10_000)) == 10
    assert buckets.take("other", 0.0) == ""
    for peer in range(2 * MAX_PEERS):
        buckets.take(f"peer{peer}", 0.0)
    assert len(buckets._peers) == MAX_PEERS


@pytest.mark.parametrize(
    "method", ["/nodeagent.v1.NodeAgent/GetCapacity", "/nodeagent.v1.NodeAgent/None", "/x/y"]
)
def test_a_flood_is_refused_with_a_hint_and_read_slowly(tmp_path: Path, method: str) -> None:
    with serving(f"unix:{tmp_path}/s", limits=Limits(40.0, 20.0)) as server:
        server.publish(samples.tick(1))
        with closing(grpc.insecure_channel(server.address)) as channel:
            call, begin = channel.unary_unary(method), time.monotonic()
            answers = [call.future(b"", timeout=60.0) for _ in range(600)]
            codes = [answer.code() for answer in answers]
            took_s = time.monotonic() - begin
        details = next(each.details() for each in answers if each.code() is EXHAUSTED)
        refused = server.guard.refused["rate"]
    assert 300 < codes.count(EXHAUSTED) <= refused  # who reads too slowly on a busy machine is cut
    assert details.startswith("more than 20 calls per second from uid:")
    assert "hint: " in details
    let_in = [each for each in codes if each not in (EXHAUSTED, grpc.StatusCode.UNAVAILABLE)]
    assert 0 < len(let_in) <= 20 * (took_s + 2)
    assert took_s > 0.5  # what gRPC lets in at a time, then a pause


def test_a_call_without_a_request_does_not_hold_its_place_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc_guard, "REQUEST_S", 0.2)
    release = threading.Event()

    def never() -> Iterator[bytes]:
        release.wait(WAIT_S)
        yield from ()

    with serving(f"unix:{tmp_path}/s") as server, closing(grpc.insecure_channel(server.address)) as channel:
        call = channel.stream_unary("/nodeagent.v1.NodeAgent/GetCapacity")
        status, details = code(lambda: call(never(), timeout=WAIT_S))
        assert (status, "no request came" in details) == (grpc.StatusCode.DEADLINE_EXCEEDED, True)
        release.set()
        assert code(lambda: call(iter(()), timeout=WAIT_S))[0] is grpc.StatusCode.INVALID_ARGUMENT
        assert eventually(lambda: not server.guard._calls)


def test_one_client_cannot_take_all_calls(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/s", max_watchers=1) as server, client(server) as stub:
        server.publish(samples.tick(1))
        watches = [stub.WatchCapacity(pb.WatchCapacityRequest(), timeout=WAIT_S) for _ in range(2)]
        assert {code_of(watch) for watch in watches} == {grpc.StatusCode.OK, EXHAUSTED}
        assert stub.GetCapacity(ASK, timeout=WAIT_S).capacity.seq == 1


def code_of(watch: Any) -> grpc.StatusCode:
    """How a stream began."""
    try:
        next(watch)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_a_client_that_says_nothing_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodeagent.rpc.server.HANDSHAKE_MS", 500)
    with serving(f"unix:{tmp_path}/s") as server, socket.socket(socket.AF_UNIX) as silent:
        silent.connect(f"{tmp_path}/s")
        silent.settimeout(WAIT_S)
        while silent.recv(4096):  # the server's greeting, then the end
            pass
        assert eventually(lambda: not server.guard._connections)


@needs_openssl
def test_who_does_not_read_fills_no_memory_and_takes_nobody_s_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nodeagent.rpc.splice.UNREAD_S", 3.0)
    authority = Authority(tmp_path)
    mine = Identity(authority.issue("DNS:reader.example")).channel_credentials()
    tls = {"tls": Identity(authority.issue("IP:127.0.0.1")), "tls_address": "127.0.0.1:0"}
    with serving(f"unix:{tmp_path}/s", access=Access(readers=("reader.example",)), **tls) as server:
        server.publish(samples.tick(1, pods=300))
        assert server.service.latest is not None
        size = len(server.service.latest.report("", ""))
        before = psutil.Process().memory_info().rss
        greedy = [Greedy(f"{tmp_path}/s", 64) for _ in range(8)]
        with closing(grpc.secure_channel(server.tls_address, mine)) as channel:
            assert eventually(lambda: answers(NodeAgentStub(channel)))
            grown = psutil.Process().memory_info().rss - before
            assert eventually(
                lambda: not any(each.unread for each in list(server.guard._connections.values()))
            )
            assert all(answers(NodeAgentStub(channel)) for _ in range(20))
        assert size > 100_000
        assert grown < 8 * 64 * size / 2
        for each in greedy:
            each.socket.close()


def answers(stub: NodeAgentStub) -> bool:
    """Whether a call is answered now."""
    try:
        return bool(stub.GetCapacity(ASK, timeout=WAIT_S).capacity.seq)
    except grpc.RpcError:
        return False


@pytest.mark.parametrize("address", ["localhost:1", "0.0.0.0", "[::]", "a.b:1", "1.2.3.4:99999", "unix:/s"])
def test_tls_listens_on_addresses_only(address: str) -> None:
    with pytest.raises(Exception, match="not IP:PORT"):
        parse_tls(address)


def test_requests_of_health_that_are_garbage_are_refused(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/s") as server, closing(grpc.insecure_channel(server.address)) as channel:
        call = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert code(lambda: call(b"\xff\xff", timeout=WAIT_S))[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_the_private_socket_has_no_path_and_its_peers_have_names_of_their_own(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/s") as server, client(server) as stub:
        server.publish(samples.tick(1))
        stub.GetCapacity(ASK, timeout=WAIT_S)
        assert [entry.name for entry in tmp_path.iterdir()] == ["s"]
        (name,) = server.guard._connections
    assert name.startswith("unix-abstract:nodeagent-")
