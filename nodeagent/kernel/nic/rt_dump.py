"""Everything that rtnetlink has of one sort, as bytes that are looked at no more than needed.

pyroute2 decodes all of it, 150 ms of CPU for 600 links (300 pods with a veth each); this and a look at what
is wanted take 9 ms for links, addresses, qdiscs and routes together.
Invariant: an answer is bounded, and not one during which links came or went: the kernel counts its way
through them, and may have passed over others (NLM_F_DUMP_INTR).
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from struct import Struct

from nodeagent.kernel.nic.rtnetlink import HEADER, NLM_F_DUMP, NLM_F_REQUEST, fields, messages_in, translated
from nodeagent.model.errors import Refused

MAX_DUMP_BYTES = 8 << 20  # 60000 routes; the default route of IPv4 is the first (fib_table_dump)
_ERROR, _DONE = 2, 3
_SOL_NETLINK, _STRICT = 270, 12
_TIMEOUT_S = 2.0
_BUFFER_BYTES = 1 << 18
_DUMP_INTR = 0x10
_TRIES = 5


class Interrupted(Refused):
    """Links came and went all the time."""


def dump(kind: int, body: bytes) -> list[bytes]:
    """What a dump request answers, without message headers, up to MAX_DUMP_BYTES; Interrupted, AgentError.

    Nothing where what is filtered by is not there (a table of routes that was never written).
    `body` filters as far as the kernel takes that (strict checking: from v4.20), so look at each message.
    """
    for _ in range(_TRIES):
        found = _once(kind, body)
        if found is not None:
            return found
    raise Interrupted(f"rtnetlink dump {kind}: links came and went during {_TRIES} of them")


def _once(kind: int, body: bytes) -> list[bytes] | None:
    """None when it was interrupted."""
    what = f"rtnetlink dump {kind}"
    found: list[bytes] = []
    left, flags = MAX_DUMP_BYTES, 0
    try:
        # A socket for each: what is left of an answer that was given up is nobody's.
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as netlink:
            netlink.settimeout(_TIMEOUT_S)
            with suppress(OSError):
                netlink.setsockopt(_SOL_NETLINK, _STRICT, 1)
            size = HEADER.size + len(body)
            netlink.sendall(HEADER.pack(size, kind, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + body)
            while left > 0:
                received = netlink.recv(_BUFFER_BYTES)
                left -= len(received)
                for answer, flag, _, message in messages_in(received):
                    flags |= flag
                    if answer in (_DONE, _ERROR):
                        code = -fields(Struct("=i"), message, "an answer")[0]
                        if code not in (0, errno.ENOENT):
                            raise OSError(code, os.strerror(code))
                        return None if flags & _DUMP_INTR else found
                    found.append(message)
    except OSError as error:
        raise translated(error, what) from error
    return found
