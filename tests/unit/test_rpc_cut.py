"""Connections of one port are cut, among all kinds of descriptors that a process has."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from nodeagent.rpc.cut import cut


def test_only_what_was_accepted_at_the_port_is_cut_and_no_descriptor_stays_behind(tmp_path: Path) -> None:
    with ExitStack() as stack:
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(tmp_path / "s"))
        # As door.py keeps gRPC's own socket: fstat calls it a socket, yet it is only the place of one.
        for path in (tmp_path / "s", "/dev/null"):
            stack.callback(os.close, os.open(path, os.O_PATH))
        listener, other = (stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2))
        clients = [
            stack.enter_context(socket.create_connection(each.getsockname())) for each in (listener, other)
        ]
        for each in (listener, other):
            stack.enter_context(each.accept()[0])
        before = os.listdir("/proc/self/fd")

        assert cut(listener.getsockname()[1]) == 1

        assert os.listdir("/proc/self/fd") == before
        clients[0].settimeout(5.0)
        clients[1].setblocking(False)
        assert clients[0].recv(1) == b""
        with pytest.raises(BlockingIOError):
            clients[1].recv(1)
