"""Where the gRPC server listens and what it leaves behind."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from nodeagent.model.errors import Failed, Misconfigured
from nodeagent.rpc.server import RpcServer
from nodeagent.v1 import nodeagent_pb2 as pb
from tests.unit import samples
from tests.unit.rpc_clients import WAIT_S, client, code, has_ipv6_loopback, serving


def test_the_socket_opens_for_owner_and_group_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with serving(f"unix:{tmp_path}/rpc.sock"):
            assert stat.S_IMODE((tmp_path / "rpc.sock").stat().st_mode) == 0o660
            assert [entry.name for entry in tmp_path.iterdir()] == ["rpc.sock"]
    finally:
        os.umask(before)


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        left.listen()
    with serving(f"unix:{path}") as server, client(server) as stub:
        server.publish(samples.tick(1))
        assert stub.GetCapacity(pb.GetCapacityRequest(), timeout=WAIT_S).capacity.seq == 1


@pytest.mark.parametrize("address", ["unix", "127.0.0.1:0"])
def test_a_second_server_is_refused_and_the_first_goes_on(address: str, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/rpc.sock" if address == "unix" else address
    with serving(address) as server:
        refuse_second(server)


def refuse_second(server: RpcServer) -> None:
    server.publish(samples.tick(1))
    second = RpcServer(server.address, hostname="node-7", version="0.1")
    with pytest.raises(Failed) as caught:
        second.start()
    assert caught.value.hint
    second.stop()
    with client(server) as stub:
        assert stub.GetCapacity(pb.GetCapacityRequest(), timeout=WAIT_S).capacity.seq == 1


@pytest.mark.parametrize("make", [lambda path: path.write_text("mine"), lambda path: path.mkdir()])
def test_what_is_not_a_socket_is_left_alone(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "rpc.sock"
    make(path)
    with pytest.raises(Failed, match="not a socket"):
        RpcServer(f"unix:{path}", hostname="", version="").start()
    assert path.exists()


def test_a_missing_directory_fails_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(Failed) as caught:
        RpcServer(f"unix:{tmp_path}/none/rpc.sock", hostname="", version="").start()
    assert "No such file" in str(caught.value)
    assert "install -d" in caught.value.hint


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0:9465",
        "[::]:9465",
        "10.0.0.1:9465",
        "example.org:9465",
        "127.0.0.1",
        "127.0.0.1:99999",
        "127.0.0.1:-1",
        "unix:relative.sock",
        "unix-abstract:name",
        "unix:/" + "x" * 200,
        "",
    ],
)
def test_an_address_that_others_could_reach_is_refused(address: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        RpcServer(address, hostname="", version="")
    assert caught.value.hint


@pytest.mark.parametrize("address", ["localhost:0", "127.8.8.8:0", "[::1]:0"])
def test_every_loopback_address_will_do(address: str) -> None:
    if address.startswith("[") and not has_ipv6_loopback():
        pytest.skip("no IPv6 loopback on this machine")
    with serving(address) as server, client(server) as stub:
        server.publish(samples.tick(1))
        assert stub.GetCapacity(pb.GetCapacityRequest(), timeout=WAIT_S).capacity.seq == 1


def test_stop_ends_streams_and_leaves_no_file_and_no_thread(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/rpc.sock") as server, client(server) as stub:
        server.publish(samples.tick(1))
        watch = stub.WatchCapacity(pb.WatchCapacityRequest(), timeout=WAIT_S)
        next(watch)
        server.stop(1.0)
        assert code(lambda: next(watch)) == (grpc.StatusCode.UNAVAILABLE, "nodeagent is stopping")
        assert list(tmp_path.iterdir()) == []
        assert not [thread for thread in threading.enumerate() if thread.name == "rpc"]
        server.publish(samples.tick(2))  # the loop's last tick may come late
        server.stop()


def test_stop_leaves_the_socket_of_a_successor(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    with serving(f"unix:{path}") as first:
        path.unlink()
        with serving(f"unix:{path}") as successor, client(successor) as stub:
            first.stop()
            successor.publish(samples.tick(1))
            assert stub.GetCapacity(pb.GetCapacityRequest(), timeout=WAIT_S).capacity.seq == 1
