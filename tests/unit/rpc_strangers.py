"""Clients of other users, and clients that do not behave."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import grpc

from tests.unit.rpc_clients import WAIT_S

PROGRAM = Path(__file__).with_name("rpc_stranger.py")


def as_user(uid: int, gid: int, address: str, method: str) -> str:
    """What a client of that user gets: its process copies bytes, since it may not run our Python."""
    path = address.removeprefix("unix:")
    relay = f"{path}-{uid}-{gid}"
    try:
        with (
            stranger("pass", uid, gid, relay, path),
            closing(grpc.insecure_channel(f"unix:{relay}")) as channel,
        ):
            answer: bytes = channel.unary_unary(method)(b"", timeout=WAIT_S)
            return answer.decode("latin1")
    except grpc.RpcError as error:
        return f"{error.code().name} {error.details()}"
    finally:
        os.unlink(relay)


@contextmanager
def stranger(*words: object) -> Iterator[None]:
    """The program beside this, ready; no fork of this process, which has gRPC's threads."""
    command = [sys.executable, "-I", "-S", str(PROGRAM), *map(str, words)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.terminate()


def crowd(uid: int, path: str, many: int) -> AbstractContextManager[None]:
    """As long as it lasts, a process of that user holds so many connections, or has tried to."""
    return stranger("hold", uid, 0, path, many)


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
