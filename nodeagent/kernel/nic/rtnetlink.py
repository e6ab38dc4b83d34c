"""Requests to rtnetlink on one kept-open socket: 20 us each, where pyroute2 needs 300 to 500.

Invariant: an answer belongs to the request that was sent last; whatever else arrives is dropped.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from struct import Struct, error

from nodeagent.model.errors import AgentError, Garbled, Gone, Refused, Unsupported

# linux/netlink.h
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
_NLM_F_ACK_TLVS = 0x200
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11
_NLMSGERR_ATTR_MSG = 1
_NLA_TYPE = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER

TCMSG = Struct("=BxHiIII")  # linux/rtnetlink.h: family, -, index, handle, parent, info
HEADER = Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = Struct("=HH")  # length, type
_CODE = Struct("=i")
_TIMEOUT = Struct("@ll").pack(2, 0)  # the kernel answers before send() returns: this is for bugs
_ANSWER_BYTES = 1 << 16  # the kernel never puts more than 32 KiB into one (netlink_dump)


class Rtnetlink:
    """A conversation with rtnetlink in the network namespace of the thread that made it; close it.

    Unsupported where there is no netlink (a unit's RestrictAddressFamilies), Refused.
    """

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        try:
            self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        except OSError as error:
            raise translated(error, "open rtnetlink") from error
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEOUT)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def ask(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        """The messages that answer a request; `flags` are NLM_F_DUMP, or those of one object.

        OSError with the kernel's own words where it has some, Garbled.
        """
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        asked = flags | NLM_F_REQUEST | (0 if flags & NLM_F_DUMP == NLM_F_DUMP else NLM_F_ACK)
        self._socket.send(HEADER.pack(HEADER.size + len(body), kind, asked, self._sequence, 0) + body)
        answer: list[bytes] = []
        while True:
            for got, got_flags, sequence, message in messages_in(self._socket.recv(_ANSWER_BYTES)):
                if sequence != self._sequence:
                    continue
                if got in {_NLMSG_ERROR, _NLMSG_DONE}:
                    _raise_code(message, got == _NLMSG_ERROR and bool(got_flags & _NLM_F_ACK_TLVS))
                    return answer
                answer.append(message)


def messages_in(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, body) of each message in what one recv gave; Garbled."""
    at, end = 0, len(data)
    while at < end:
        if end - at < HEADER.size:
            raise Garbled(f"rtnetlink: {end - at} bytes after the last message")
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, at)
        if not HEADER.size <= length <= end - at:
            raise Garbled(f"rtnetlink: a message of {length} bytes in {end - at}")
        yield kind, flags, sequence, data[at + HEADER.size : at + length]
        at += length + 3 & ~3


def number(value: bytes | None, missing: int = 0) -> int:
    """A 32-bit attribute."""
    return missing if value is None else int.from_bytes(value[:4], sys.byteorder, signed=True)


def text(value: bytes | None) -> str:
    """A string attribute, "" when missing."""
    return (value or b"").rstrip(b"\0").decode("utf-8", "replace")


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(data: bytes, at: int = 0) -> dict[int, bytes]:
    """The attributes in `data` from `at` on, by type; Garbled."""
    found = {}
    while len(data) - at >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if not _ATTRIBUTE.size <= length <= len(data) - at:
            raise Garbled(f"rtnetlink: an attribute of {length} bytes in {len(data) - at}")
        found[kind & _NLA_TYPE] = data[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
    return found


def tcmsg(index: int, handle: int = 0, parent: int = 0) -> bytes:
    """The head of a message about a qdisc or class of the device `index`."""
    return TCMSG.pack(socket.AF_UNSPEC, 0, index, handle, parent, 0)


def fields(layout: Struct, data: bytes | None, what: str) -> tuple[int, ...]:
    """The fields of a kernel structure, which may have grown at its end; Garbled when it is short."""
    try:
        return layout.unpack_from(data or b"")
    except error:
        raise Garbled(f"rtnetlink: {what} of {len(data or b'')} bytes, not {layout.size}") from None


def translated(error: OSError, doing: str) -> AgentError:
    """What an error of `ask` stands for; raise it `from error`. `doing` names the thing and the device."""
    code, line = error.errno or 0, f"{doing}: {error.strerror or error}"
    if code in {errno.ENODEV, errno.ENXIO}:
        return Gone(line)
    if code in {errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT}:
        return Unsupported(line)
    if code in {errno.EPERM, errno.EACCES}:
        return Refused(line, hint="run as root, or give the agent CAP_NET_ADMIN")
    return Refused(line)


def _raise_code(message: bytes, explained: bool) -> None:
    """Nothing for code 0; in NLMSG_ERROR attributes follow after the header of the request."""
    code = -fields(_CODE, message, "an error")[0]
    if code:
        said = attributes(message, _CODE.size + HEADER.size).get(_NLMSGERR_ATTR_MSG) if explained else None
        raise OSError(code, text(said) or os.strerror(code))
