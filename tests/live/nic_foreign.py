"""A program: nftables of somebody else in this network namespace, by raw netlink (there may be no `nft`).

make     a table "na-foreign" with a chain at the output hook and a rule
dump     its bytes as the kernel tells them, in hexadecimal, a line for each object
tables   the names of all tables, each in a line
flush    removes all tables of all families, as `nft flush ruleset` does
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator

TABLE = b"na-foreign"
_NETFILTER = 12  # include/uapi/linux/netlink.h NETLINK_NETFILTER
_NFTABLES = 10 << 8  # NFNL_SUBSYS_NFTABLES
_INET, _ANY = 1, 0
_BEGIN, _END = 0x10, 0x11  # NFNL_MSG_BATCH_BEGIN, _END
# include/uapi/linux/netfilter/nf_tables.h nf_tables_msg_types
_NEW_TABLE, _GET_TABLE, _DEL_TABLE = _NFTABLES | 0, _NFTABLES | 1, _NFTABLES | 2
_NEW_CHAIN, _GET_CHAIN = _NFTABLES | 3, _NFTABLES | 4
_NEW_RULE, _GET_RULE = _NFTABLES | 6, _NFTABLES | 7
_REQUEST, _ACK, _DUMP, _CREATE = 0x1, 0x4, 0x300, 0x400
_NESTED = 0x8000


def attribute(kind: int, value: bytes) -> bytes:
    """One netlink attribute, padded."""
    text = struct.pack("=HH", len(value) + 4, kind) + value
    return text + bytes(-len(text) % 4)


def nested(kind: int, *values: bytes) -> bytes:
    """Attributes inside one."""
    return attribute(kind | _NESTED, b"".join(values))


def message(kind: int, flags: int, family: int, body: bytes = b"", resource: int = 0) -> bytes:
    """One nfnetlink message."""
    text = struct.pack(">BBH", family, 0, resource) + body
    return struct.pack("=IHHII", len(text) + 16, kind, flags | _REQUEST, 1, 0) + text


def batch(*messages: bytes) -> None:
    """Send them as one transaction; OSError when the kernel refuses it."""
    with _socket() as netlink:
        begin, end = (message(kind, 0, _ANY, resource=10) for kind in (_BEGIN, _END))
        netlink.send(begin + b"".join(messages) + end)
        for _ in messages:
            code = struct.unpack_from("=i", netlink.recv(1 << 16), 16)[0]
            if code:
                raise OSError(-code, "nftables")


def dump(kind: int) -> Iterator[bytes]:
    """The attributes of all objects of one kind."""
    with _socket() as netlink:
        netlink.send(message(kind, _DUMP, _ANY))
        while True:
            data = netlink.recv(1 << 16)
            while data:
                length, what = struct.unpack_from("=IH", data)
                if what == 3:  # NLMSG_DONE
                    return
                yield data[20:length]
                data = data[length + -length % 4 :]


def make() -> None:
    """A table, a chain, a rule that accepts."""
    table, chain = attribute(1, TABLE + b"\0"), b"out\0"
    hook = nested(4, attribute(1, struct.pack(">I", 3)), attribute(2, struct.pack(">i", 0)))
    accept = nested(2, nested(2, attribute(1, struct.pack(">I", 1))))
    immediate = nested(2, attribute(1, struct.pack(">I", 0)), accept)
    rule = nested(4, nested(1, attribute(1, b"immediate\0"), immediate))
    flags = _ACK | _CREATE
    batch(
        message(_NEW_TABLE, flags, _INET, table),
        message(_NEW_CHAIN, flags, _INET, table + attribute(3, chain) + hook + attribute(7, b"filter\0")),
        message(_NEW_RULE, flags, _INET, table + attribute(2, chain) + rule),
    )


def _socket() -> socket.socket:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
    netlink.settimeout(10.0)
    netlink.bind((0, 0))
    return netlink


def main(word: str) -> None:
    """Do one of the above."""
    if word == "make":
        make()
    elif word == "flush":
        batch(message(_DEL_TABLE, _ACK, _ANY))
    elif word == "tables":
        for body in dump(_GET_TABLE):
            (length,) = struct.unpack_from("=H", body)
            sys.stdout.write(body[4 : length - 1].decode() + "\n")
    else:
        for kind in (_GET_TABLE, _GET_CHAIN, _GET_RULE):
            sys.stdout.writelines(f"{body.hex()}\n" for body in dump(kind) if TABLE in body)


if __name__ == "__main__":
    main(sys.argv[1])
