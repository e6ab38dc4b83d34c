"""Cutting the TCP connections of one of our ports, which gRPC has no call for.

Invariant: nobody who came in by a CA that is trusted no more stays for longer than LOOK_AT_FILES_S.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

from nodeagent.rpc.tls import Identity

LOOK_AT_FILES_S = 5.0  # besides before each handshake


async def cut_untrusted(identity: Identity, port: int) -> None:
    """Keep the identity fresh until cancelled; when a CA was taken away all are cut, and may try again."""
    trusted = identity.material.cas
    while True:
        await asyncio.sleep(LOOK_AT_FILES_S)
        identity.refresh()
        found = identity.material.cas
        with contextlib.suppress(OSError):  # no descriptor to look with: the next time
            if trusted - found:
                cut(port)
            trusted = found


def cut(port: int) -> int:
    """Shut down every connection that this process has accepted at this TCP port; how many.

    gRPC then finds them ended. A descriptor is looked at by a copy, which nobody else can close meanwhile.
    """
    return sum(_shut_down(int(name), port) for name in os.listdir("/proc/self/fd"))


def _shut_down(fd: int, port: int) -> bool:
    with contextlib.ExitStack() as stack, contextlib.suppress(OSError):  # gone meanwhile, or not connected
        one = stack.enter_context(_copied(fd))
        if one.family in (socket.AF_INET, socket.AF_INET6) and one.getsockname()[1] == port:
            one.getpeername()
            one.shutdown(socket.SHUT_RDWR)
            return True
    return False


def _copied(fd: int) -> socket.socket:
    """OSError, and no descriptor left behind, for what is no socket or only the place of one (O_PATH)."""
    copy = os.dup(fd)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
