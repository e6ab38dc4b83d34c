"""nf_tables by netlink: attributes, atomic batches, reading back.

Not through pyroute2's NFTSocket, which tests decode it with: what the kernel refuses at BEGIN (EPERM, no
nf_tables) it answers to BEGIN alone (nfnetlink_rcv_batch), and nlm_request_batch waits for the others, for
ever. It also loses in reading what it has no word for (`socket cgroupv2`), and takes 50 us for each element.
Invariant: no answer is waited for longer than TIMEOUT_S, and a batch is done as a whole or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

from nodeagent.kernel.nic.nf_tables import (
    NETLINK_NETFILTER,
    NFNL_SUBSYS_NFTABLES,
    NFT_MSG_GETGEN,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
)
from nodeagent.model.errors import AgentError, Refused, Unsupported

TIMEOUT_S = 1.0
BUFFER_BYTES = 2 << 20  # a batch is one message to the socket: 2000 IPv6 addresses are 80 kB

_BEGIN, _END = 0x10, 0x11  # NFNL_MSG_BATCH_BEGIN, _END
_BATCH_GENID = 1  # NFNL_BATCH_GENID: ERESTART unless this is the generation (v4.16)
_GEN_ID = 1  # NFTA_GEN_ID
_LIST_ELEM = 1  # NFTA_LIST_ELEM
_NESTED, _TYPE = 0x8000, 0x3FFF  # NLA_F_NESTED, NLA_TYPE_MASK
_FORCED = (32, 33)  # SO_SNDBUFFORCE, SO_RCVBUFFORCE
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_NFGEN = struct.Struct(">BBH")  # struct nfgenmsg
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr
# EINVAL: there is no such subsystem (nfnetlink_rcv_msg), ENOENT: no such expression.
_MISSING = frozenset(
    {errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT}
)

# What an attribute holds: be32, a text, bytes as they are, attributes by type, a list of NFTA_LIST_ELEM.
Value: TypeAlias = "int | str | bytes | dict[int, Value] | list[Value]"
Attributes: TypeAlias = dict[int, Value]


class Message(NamedTuple):
    """One request; `what` says in errors what it is about."""

    what: str
    kind: int
    family: int
    attributes: Attributes
    flags: int = 0


class Interrupted(Exception):
    """Somebody changed nftables meanwhile: look again."""


class Wire:
    """An nf_tables socket into the network namespace in which it is opened; close() it."""

    def __init__(self) -> None:
        """Raises Unsupported, Refused."""
        self._sequence = itertools.count(1)
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        except OSError as error:
            raise _translated(error, "netfilter's netlink") from error
        self._socket.settimeout(TIMEOUT_S)
        for forced in _FORCED:
            with contextlib.suppress(PermissionError):  # told by the first request
                self._socket.setsockopt(socket.SOL_SOCKET, forced, BUFFER_BYTES)

    def close(self) -> None:
        """Give the descriptor back."""
        self._socket.close()

    def generation(self) -> int:
        """Changes with every change of nftables in this network namespace. Raises Unsupported, Refused."""
        (answer,) = self.ask(Message("nf_tables", NFT_MSG_GETGEN, 0, {}))
        return int.from_bytes(dict(parsed(answer))[_GEN_ID], "big")

    def ask(self, message: Message) -> list[bytes]:
        """The attributes of each answer; none when there is no such thing.

        Raises Interrupted when what is dumped has changed meanwhile, else Unsupported, Refused.
        """
        sequence = next(self._sequence)
        answers = []
        try:
            self._socket.send(_request(NFNL_SUBSYS_NFTABLES << 8 | message.kind, sequence, message))
            for _, kind, flags, body in self._answers(sequence):
                if flags & NLM_F_DUMP_INTR:
                    raise Interrupted
                if kind in {NLMSG_DONE, NLMSG_ERROR}:
                    _raise_if_error(body)
                    break
                answers.append(body[_NFGEN.size :])
                if not message.flags & NLM_F_DUMP:
                    break
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _translated(error, message.what) from error
        return answers

    def commit(self, messages: Sequence[Message], generation: int) -> None:
        """Do all messages at once, if `generation` is still the one; it is the next one then.

        Raises Interrupted when it is not, else Unsupported, Refused: then nothing was changed.
        """
        border = Message("nf_tables", _BEGIN, 0, {_BATCH_GENID: generation})
        first = next(self._sequence)
        parts = [_request(_BEGIN, first, border, NFNL_SUBSYS_NFTABLES)]
        for message in messages:
            # The last one's answer says that all is done: what fails is answered in any case.
            flags = message.flags | (NLM_F_ACK if message is messages[-1] else 0)
            kind = NFNL_SUBSYS_NFTABLES << 8 | message.kind
            parts.append(_request(kind, next(self._sequence), message._replace(flags=flags)))
        parts.append(_request(_END, next(self._sequence), border, NFNL_SUBSYS_NFTABLES))
        what = border.what
        try:
            self._socket.send(b"".join(parts))
            for sequence, _, _, body in self._answers(first):
                what = messages[sequence - first - 1].what if sequence > first else border.what
                _raise_if_error(body)
                if sequence == first + len(messages):
                    return
        except OSError as error:
            if error.errno == errno.ERESTART:
                raise Interrupted from error
            raise _translated(error, what) from error

    def _answers(self, first: int) -> Iterator[tuple[int, int, int, bytes]]:
        """(sequence, type, flags, body) of what answers `first` and later requests; the rest is old."""
        while True:
            packet = self._socket.recv(1 << 16)
            offset = 0
            while offset < len(packet):
                length, kind, flags, sequence, _ = _HEADER.unpack_from(packet, offset)
                if sequence >= first:
                    yield sequence, kind, flags, packet[offset + _HEADER.size : offset + length]
                offset += length + 3 & ~3


def parsed(attributes: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, what it holds) of each attribute."""
    offset = 0
    while offset < len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, offset)
        yield kind & _TYPE, attributes[offset + 4 : offset + length]
        offset += length + 3 & ~3


def covers(found: bytes, wanted: Value) -> bool:
    """Is all that is wanted in it? The kernel adds to what it was given, and has an order of its own."""
    if isinstance(wanted, dict):
        held = dict(parsed(found))
        return all(kind in held and covers(held[kind], value) for kind, value in wanted.items())
    if isinstance(wanted, list):
        elements = [value for _, value in parsed(found)]
        return len(elements) == len(wanted) and all(map(covers, elements, wanted))
    return found == encoded(wanted)


def encoded(value: Value) -> bytes:
    """The bytes of what an attribute holds."""
    match value:
        case int():
            return (value & 0xFFFFFFFF).to_bytes(4, "big")
        case str():
            return value.encode() + b"\0"
        case bytes():
            return value
        case dict():
            return b"".join(_attribute(kind, held) for kind, held in value.items())
        case list():
            return b"".join(_attribute(_LIST_ELEM, held) for held in value)


def _attribute(kind: int, value: Value) -> bytes:
    held = encoded(value)
    nested = _NESTED if isinstance(value, dict | list) else 0
    return _ATTRIBUTE.pack(4 + len(held), kind | nested) + held + b"\0" * (-len(held) % 4)


def _request(kind: int, sequence: int, message: Message, resource: int = 0) -> bytes:
    body = _NFGEN.pack(message.family, 0, resource) + encoded(message.attributes)
    flags = message.flags | NLM_F_REQUEST
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def _raise_if_error(body: bytes) -> None:
    code = -struct.unpack_from("=i", body)[0]
    if code:
        raise OSError(code, os.strerror(code))


def _translated(error: OSError, what: str) -> AgentError:
    line = f"nftables: {what}: {error.strerror or error}"
    if error.errno in _MISSING:
        return Unsupported(line, hint="load the kernel's modules: modprobe -a nf_tables nft_socket")
    hint = "give the agent CAP_NET_ADMIN" if error.errno in {errno.EPERM, errno.EACCES} else ""
    return Refused(line, hint=hint)
