"""Notice that links, qdiscs, addresses or default routes changed: one multicast socket of rtnetlink.

Invariant: no change is lost. What could not be told (the socket's buffer overran) counts as a change of all;
where there is no socket `degraded` says why, and the periodic reading is the net.
"""

from __future__ import annotations

import errno
import socket
import struct

from msgspec import Struct

from nodeagent.kernel.nic.rtnetlink import messages_in
from nodeagent.model.errors import Garbled

# linux/rtnetlink.h: LINK, TC, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE
_GROUPS = (1, 4, 5, 7, 9, 11)
_LINK, _GONE, _ADDRESS, _ROUTE = frozenset({16, 17}), 17, frozenset({20, 21}), frozenset({24, 25})  # RTM_*
_QDISC = frozenset({36, 37})  # not classes: ours are changed several times in a second
_SCOPE_HOST = 254
_INDEX = struct.Struct("=4xi")  # of struct ifinfomsg
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 4 << 20
_MOST_READS = 4096


class News(Struct):
    """What changed: links, by index (`gone`: some are no more), addresses, qdiscs, default routes."""

    links: set[int] = set()
    gone: set[int] = set()
    addresses: bool = False
    qdiscs: bool = False
    routes: bool = False
    everything: bool = False

    def __bool__(self) -> bool:
        return bool(self.links or self.addresses or self.qdiscs or self.routes or self.everything)

    def add(self, kind: int, body: bytes) -> None:
        """One message."""
        if kind in _LINK:
            (index,) = _INDEX.unpack_from(body)
            self.links.add(index)
            if kind == _GONE:
                self.gone.add(index)
        self.addresses |= kind in _ADDRESS and reachable(body)
        self.qdiscs |= kind in _QDISC
        self.routes |= kind in _ROUTE and body[1:2] == b"\0"  # struct rtmsg: the length of the prefix


class LinkWatch:
    """A socket that is readable when something changed in the network namespace it was made in.

    `news` is what changed since whoever reads it all anew took it: `take`.
    """

    def __init__(self) -> None:
        self.degraded = ""
        self.news = News(everything=True)
        self._socket: socket.socket | None = None
        try:
            self._socket = _subscribed()
        except OSError as error:
            self.degraded = f"changes of links are seen late: rtnetlink: {error.strerror}"

    def fileno(self) -> int:
        """Descriptor that is readable when something changed; -1 where there is none."""
        return -1 if self._socket is None else self._socket.fileno()

    def drain(self) -> News:
        """Take in all that was told without waiting; what changed since the last `take`, or may have."""
        if self._socket is None:
            return self.news
        for _ in range(_MOST_READS):
            try:
                for kind, _, _, body in messages_in(self._socket.recv(1 << 16)):
                    self.news.add(kind, body)
            except BlockingIOError:
                return self.news
            except (Garbled, struct.error):
                self.news.everything = True  # it was longer than that
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.news.everything = True  # what did not fit is lost
        return self.news

    def take(self) -> None:
        """All of the news has been looked at."""
        self.news = News()

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None


def _subscribed() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
    try:
        made.bind((0, 0))
        try:
            made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        except OSError:  # without CAP_NET_ADMIN: up to net.core.rmem_max
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        for group in _GROUPS:
            made.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    except OSError:
        made.close()
        raise
    return made


def reachable(body: bytes) -> bool:
    """Can others send to the address of this RTM_NEWADDR (struct ifaddrmsg: family first, scope fourth)?

    Of IPv6 global ones alone, as of pods. One of IPv4 with scope link may be a pod's as well.
    """
    return body[3] == 0 or (body[0] == socket.AF_INET and body[3] < _SCOPE_HOST)
