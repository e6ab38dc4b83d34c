"""A network namespace's counters, as one of its processes sees them: TCP, refused connections, bytes.

Lines of snmp and netstat come in pairs, names above values (Linux Documentation/networking/snmp_counter.rst).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from nodeagent.kernel.parse import MAX_NUMBER

_Numbers = tuple[int | None, ...]
_DEVICE = re.compile(rb" *([^\s:]+): *((?:\d{1,20} *){16})")


class Segments(NamedTuple):
    """TCP segments: `received` tells whether any came at all."""

    received: int | None
    sent: int | None
    retransmitted: int | None


def segments(raw: bytes) -> Segments | None:
    """From /proc/PID/net/snmp."""
    found = _paired(raw, b"Tcp:", (b"InSegs", b"OutSegs", b"RetransSegs"))
    return None if found is None else Segments(*found)


def listen_drops(raw: bytes) -> int | None:
    """Connections that a full queue refused, and packets that a full backlog did (/proc/PID/net/netstat).

    ListenDrops has ListenOverflows and TCPReqQFullDrop in it: the kernel counts each of these as a drop too
    (net/ipv4/tcp_input.c, tcp_conn_request; net/ipv4/tcp_ipv4.c, tcp_v4_syn_recv_sock).
    """
    found = _paired(
        raw, b"TcpExt:", (b"ListenDrops", b"TCPBacklogDrop", b"ListenOverflows", b"TCPReqQFullDrop")
    )
    if found is None:
        return None
    drops, backlog, *inner = found
    known = [count for count in inner if count is not None]
    if drops is None and not known:
        return None
    return (sum(known) if drops is None else drops) + (backlog or 0)


def outer_bytes(raw: bytes) -> int | None:
    """Received and sent over all links but the loopback (/proc/PID/net/dev)."""
    lines = raw.splitlines()
    if len(lines) < 2 or b"|" not in lines[1]:
        return None
    total = 0
    for line in lines[2:]:
        row = _DEVICE.fullmatch(line)
        if row is None:
            return None
        if row[1] != b"lo":
            words = row[2].split()
            total += int(words[0]) + int(words[8])
    return total if total <= MAX_NUMBER else None


def _paired(raw: bytes, head: bytes, wanted: tuple[bytes, ...]) -> _Numbers | None:
    """The values under these names; None in place of each that is not there, or if it is no such text."""
    lines = [line.split() for line in raw.splitlines() if line.startswith(head)]
    if len(lines) != 2 or len(lines[0]) != len(lines[1]):
        return None
    table = dict(zip(*lines, strict=True))
    found: list[int | None] = []
    for name in wanted:
        word = table.get(name)
        if word is not None and (not word.isdigit() or len(word) > 20):
            return None
        found.append(None if word is None else int(word))
    return tuple(found) if all(each is None or each <= MAX_NUMBER for each in found) else None
