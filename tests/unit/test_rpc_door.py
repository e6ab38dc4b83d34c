"""The door of the unix socket, and users of this host who want to keep others out."""

from __future__ import annotations

import os
import re
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from nodeagent.v1 import nodeagent_pb2 as pb
from tests.unit import samples
from tests.unit.rpc_clients import WAIT_S, client, eventually, serving
from tests.unit.rpc_strangers import crowd

NOBODY = 65534
ASK = pb.GetCapacityRequest()
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # RFC 9113, 3.4


def test_nobody_can_take_the_names_of_connections_to_come(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(serving(f"unix:{tmp_path}/s"))
        server.publish(samples.tick(1))
        stack.enter_context(client(server)).GetCapacity(ASK, timeout=WAIT_S)
        (name,) = server.guard._connections
        seen = re.fullmatch(r"unix-abstract:(.*?)(\d*)", name)
        assert seen is not None
        for number in range(1, 20):
            squatter = stack.enter_context(socket.socket(socket.AF_UNIX))
            squatter.bind(f"\0{seen[1]}{int(seen[2] or 0) + number}")
        with client(server) as another:
            assert another.GetCapacity(ASK, timeout=WAIT_S).capacity.seq == 1


def test_a_client_may_speak_before_it_is_passed_on(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(serving(f"unix:{tmp_path}/s"))
        for _ in range(50):
            hasty = stack.enter_context(socket.socket(socket.AF_UNIX))
            hasty.settimeout(WAIT_S)
            hasty.connect(f"{tmp_path}/s")
            hasty.sendall(HTTP2_PREFACE)
            assert hasty.recv(1), "answered, not cut"


@pytest.mark.live
def test_a_user_s_connections_leave_as_many_to_others() -> None:
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp") as home,
        serving(f"unix:{home}/s", max_watchers=4) as server,
    ):
        path = f"{home}/s"
        server.publish(samples.tick(1))
        os.chmod(home, 0o755)
        os.chmod(path, 0o666)
        with crowd(NOBODY, path, 3 * server._per_peer):
            assert eventually(lambda: len(server.guard._connections) == server._per_peer)
            with client(server) as stub:
                assert stub.GetCapacity(ASK, timeout=WAIT_S).capacity.seq == 1
        assert eventually(lambda: len(server.guard._connections) == 0)
