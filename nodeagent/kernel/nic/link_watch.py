"""Notice that links, qdiscs, addresses or default routes changed: one multicast socket of rtnetlink.

Invariant: no change is lost. What could not be told (the socket's buffer overran) counts as a change; where
there is no socket `degraded` says why, and the periodic reading is the net.
"""

from __future__ import annotations

import errno
import socket

from nodeagent.kernel.nic.rtnetlink import messages_in
from nodeagent.model.errors import Garbled

# linux/rtnetlink.h: LINK, TC, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE
_GROUPS = (1, 4, 5, 7, 9, 11)
# RTM_{NEW,DEL}LINK, ADDR and QDISC. Not classes: ours are changed several times in a second.
_TOLD = frozenset({16, 17, 20, 21, 36, 37})
_ROUTES = frozenset({24, 25})
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 4 << 20
_MOST_READS = 4096


class LinkWatch:
    """A socket that is readable when something changed in the network namespace it was made in.

    `routes` is set when default routes may have changed; whoever reads them takes it back.
    """

    def __init__(self) -> None:
        self.degraded = ""
        self.routes = True
        self._socket: socket.socket | None = None
        try:
            self._socket = _subscribed()
        except OSError as error:
            self.degraded = f"changes of links are seen late: rtnetlink: {error.strerror}"

    def fileno(self) -> int:
        """Descriptor that is readable when something changed; -1 where there is none."""
        return -1 if self._socket is None else self._socket.fileno()

    def drain(self) -> bool:
        """Take all that was told without waiting. True if something changed, or may have."""
        if self._socket is None:
            self.routes = True
            return False
        changed = False
        for _ in range(_MOST_READS):
            try:
                told = [(kind, body) for kind, _, _, body in messages_in(self._socket.recv(1 << 16))]
            except BlockingIOError:
                return changed
            except Garbled:
                changed = self.routes = True  # it was longer than that
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                changed = self.routes = True  # what did not fit is lost
            else:
                self.routes = self.routes or any(_is_default_route(kind, body) for kind, body in told)
                changed = changed or self.routes or any(kind in _TOLD for kind, _ in told)
        return True

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


def _is_default_route(kind: int, body: bytes) -> bool:
    """A route to everywhere (struct rtmsg: the second byte is the length of the prefix)."""
    return kind in _ROUTES and body[1:2] == b"\0"
