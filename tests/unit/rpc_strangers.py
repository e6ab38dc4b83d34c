"""Clients of other users, and clients that do not behave."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import NoReturn

import grpc

from tests.unit.rpc_clients import WAIT_S


def as_user(uid: int, gid: int, address: str, method: str) -> str:
    """What a client of that user gets: its process copies bytes, since it may not run our Python."""
    relay = f"{address.removeprefix('unix:')}-{uid}-{gid}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(relay)
        listener.listen()
        child = os.fork()
        if child == 0:
            pass_on(uid, gid, listener, address.removeprefix("unix:"))
    try:
        with closing(grpc.insecure_channel(f"unix:{relay}")) as channel:
            answer: bytes = channel.unary_unary(method)(b"", timeout=WAIT_S)
            return answer.decode("latin1")
    except grpc.RpcError as error:
        return f"{error.code().name} {error.details()}"
    finally:
        os.waitpid(child, 0)
        os.unlink(relay)


def pass_on(uid: int, gid: int, listener: socket.socket, path: str) -> NoReturn:
    """In a child: become that user, connect, and copy bytes until one side hangs up."""
    try:
        near = listener.accept()[0]
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
        far = socket.socket(socket.AF_UNIX)
        far.connect(path)
        other = {near: far, far: near}
        while True:
            for ready in select.select([near, far], [], [], 30.0)[0]:
                data = ready.recv(65536)
                if not data:
                    os._exit(0)
                other[ready].sendall(data)
    finally:
        os._exit(1)


@contextmanager
def crowd(uid: int, path: str, many: int) -> Iterator[None]:
    """As long as it lasts, a process of that user has tried to open so many connections, and keeps them."""
    (ready, tell), (wait, end) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(end)
            os.setuid(uid)
            held = [socket.socket(socket.AF_UNIX) for _ in range(many)]
            for each in held:
                each.connect(path)
            os.write(tell, b".")
            os.read(wait, 1)
        finally:
            os._exit(0)
    os.close(tell)
    os.close(wait)
    try:
        assert os.read(ready, 1) == b"."
        yield
    finally:
        os.close(ready)
        os.close(end)
        os.waitpid(child, 0)


class Greedy:
    """Asks for many reports over raw HTTP/2 and reads none of them, without flow control."""

    def __init__(self, path: str, calls: int) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        settings = frame(4, 0, 0, b"\0\4" + (2**31 - 1).to_bytes(4, "big"))  # windows without end
        window = frame(8, 0, 0, (2**31 - 65536).to_bytes(4, "big"))
        headers = b"".join(map(literal, HEADERS))
        ask = b"".join(
            frame(1, 4, 2 * n + 1, headers) + frame(0, 1, 2 * n + 1, b"\0" * 5) for n in range(calls)
        )
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + window + ask)


HEADERS = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/nodeagent.v1.NodeAgent/GetNodeReport"),
    (b":authority", b"localhost"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame (RFC 9113, 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(header: tuple[bytes, bytes]) -> bytes:
    """A header as a literal without indexing (RFC 7541, 6.2.2)."""
    return b"\0" + b"".join(bytes([len(part)]) + part for part in header)
