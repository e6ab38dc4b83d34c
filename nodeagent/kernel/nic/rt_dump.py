"""Asking rtnetlink for much at once, as bytes that are looked at no more than needed.

pyroute2 decodes all of a dump, 150 ms of CPU for 600 links (300 pods with a veth each), this a part, in 5 ms.
What is asked once a minute or is written goes through pyroute2.
Invariant: nothing here changes anything.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress

from nodeagent.kernel.errno import translated
from nodeagent.model.errors import AgentError, Garbled

HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")
_REQUEST, _DUMP = 0x1, 0x300
_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR: what is asked for changed meanwhile
_ERROR, _DONE = 2, 3
_SOL_NETLINK, _STRICT = 270, 12
_TIMEOUT_S = 2.0
_BUFFER_BYTES = 1 << 18
MAX_DUMP_BYTES = 8 << 20
_DUMPS = 3


def dump(kind: int, body: bytes) -> list[bytes]:
    """Everything that a dump request answers, without message headers; AgentError.

    At most MAX_DUMP_BYTES, which is some 60000 routes. A dump that was interrupted is made again.
    """
    messages: list[bytes] = []
    for _ in range(_DUMPS):
        messages = []
        flags = 0
        for _, flag, message in _answers(kind, _DUMP, body):
            flags |= flag
            messages.append(message)
        if not flags & _INTERRUPTED:
            break
    return messages


def ask(kind: int, body: bytes) -> bytes:
    """The one answer to a request; AgentError."""
    for _, _, message in _answers(kind, 0, body):
        return message
    raise Garbled(f"rtnetlink did not answer request {kind}")


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(message: bytes, start: int) -> dict[int, bytes]:
    """The attributes from `start` on, by type, the last one where there are several."""
    return dict(each_attribute(message, start))


def each_attribute(message: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    """(type, value) of the attributes from `start` on."""
    end = len(message)
    while start + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(message, start)
        if length < 4:
            return
        yield kind & 0x3FFF, message[start + 4 : start + length]
        start += length + 3 & ~3


def messages_in(received: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, flags, body) of each message in what one recv gave."""
    at, end = 0, len(received)
    while at + HEADER.size <= end:
        length, kind, flags, _, _ = HEADER.unpack_from(received, at)
        if length < HEADER.size:
            return
        yield kind, flags, received[at + HEADER.size : at + length]
        at += length + 3 & ~3


def number(value: bytes | None, missing: int = 0) -> int:
    """A 32-bit attribute."""
    return missing if value is None or len(value) != 4 else int.from_bytes(value, sys.byteorder, signed=True)


def text(value: bytes | None) -> str:
    """A string attribute, "" when missing."""
    return (value or b"").rstrip(b"\0").decode("utf-8", "surrogateescape")


def _answers(kind: int, flags: int, body: bytes) -> Iterator[tuple[int, int, bytes]]:
    what = f"rtnetlink request {kind}"
    total = 0
    try:
        # A socket for each question: an answer that was given up half-read cannot be taken for the next one.
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as netlink:
            netlink.settimeout(_TIMEOUT_S)
            with suppress(OSError):  # filters of dumps: from v4.20
                netlink.setsockopt(_SOL_NETLINK, _STRICT, 1)
            netlink.sendall(HEADER.pack(HEADER.size + len(body), kind, _REQUEST | flags, 1, 0) + body)
            while total < MAX_DUMP_BYTES:
                received = netlink.recv(_BUFFER_BYTES)
                total += len(received)
                for answer, flag, message in messages_in(received):
                    if answer == _DONE:
                        return
                    if answer == _ERROR:
                        raise _refused(message, what)
                    yield answer, flag, message
                if not flags:
                    return
    except OSError as error:
        raise translated(error, what) from error


def _refused(message: bytes, what: str) -> AgentError:
    code = -struct.unpack_from("=i", message)[0]
    return translated(OSError(code, os.strerror(code)), what)
