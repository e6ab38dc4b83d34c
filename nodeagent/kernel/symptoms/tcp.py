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


class Paired:
    """Parser of a line of names above a line of values, both beginning with `head`: the wanted ones in order.

    A name that is not there gives None in its place; text in another format gives None. Where the names were
    the last time is where they are looked for first.
    """

    __slots__ = ("_head", "_names", "_places", "_wanted")

    def __init__(self, head: bytes, *wanted: bytes) -> None:
        self._head = head
        self._wanted = wanted
        self._names = b""
        self._places: tuple[int, ...] = ()

    def __call__(self, raw: bytes) -> _Numbers | None:
        begin = 0 if raw.startswith(self._head) else raw.find(b"\n" + self._head) + 1
        names, _, rest = raw[begin:].partition(b"\n")
        values = rest.partition(b"\n")[0].split()
        if names != self._names and not self._learned(names):
            return None
        if not values or len(values) != len(names.split()) or values[0] != self._head:
            return None
        words = [values[place] if place else None for place in self._places]
        if not all(word is None or (word.isdigit() and len(word) <= 19) for word in words):
            return None
        found = tuple([None if word is None else int(word) for word in words])
        return found if all(each is None or each <= MAX_NUMBER for each in found) else None

    def _learned(self, names: bytes) -> bool:
        words = names.split()
        if not words or words[0] != self._head:
            return False
        self._names = names
        self._places = tuple(words.index(name) if name in words else 0 for name in self._wanted)
        return True


_segments = Paired(b"Tcp:", b"InSegs", b"OutSegs", b"RetransSegs")
_drops = Paired(b"TcpExt:", b"ListenDrops", b"TCPBacklogDrop", b"ListenOverflows", b"TCPReqQFullDrop")


def segments(raw: bytes) -> Segments | None:
    """From /proc/PID/net/snmp."""
    found = _segments(raw)
    return None if found is None else Segments(*found)


def listen_drops(raw: bytes) -> int | None:
    """Connections that a full queue refused, and packets that a full backlog did (/proc/PID/net/netstat).

    ListenDrops has ListenOverflows and TCPReqQFullDrop in it: the kernel counts each of these as a drop too
    (net/ipv4/tcp_input.c, tcp_conn_request; net/ipv4/tcp_ipv4.c, tcp_v4_syn_recv_sock).
    """
    found = _drops(raw)
    if found is None:
        return None
    drops, backlog, *inner = found
    known = [count for count in inner if count is not None]
    if drops is None and not known:
        return None
    return (sum(known) if drops is None else drops) + (backlog or 0)


class Traffic(NamedTuple):
    """Bytes received and sent over all links but the loopback, and over all of them."""

    outer: int
    all: int


def traffic(raw: bytes) -> Traffic | None:
    """From /proc/PID/net/dev."""
    lines = raw.splitlines()
    if len(lines) < 2 or b"|" not in lines[1]:
        return None
    outer = inner = 0
    for line in lines[2:]:
        row = _DEVICE.fullmatch(line)
        if row is None:
            return None
        words = row[2].split()
        size = int(words[0]) + int(words[8])
        if row[1] == b"lo":
            inner += size
        else:
            outer += size
    return Traffic(outer, outer + inner) if outer + inner <= MAX_NUMBER else None
