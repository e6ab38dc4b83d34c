"""The public unix socket: who connects is counted and asked for its user id, then passed on to gRPC.

    client -- public socket [accept, SO_PEERCRED] == splice == private socket -- gRPC

gRPC tells its handlers only the name of who connected to it. So each connection to its private socket is made
from an abstract name of its own, under which `connections` has what is known of the client. Names are random:
everybody sees them in /proc/net/unix, and could be first to take one that is foreseen.

Invariant: only this process can reach the private socket: it has no path (a descriptor of it is kept). No
user but root and our own may hold more connections than are left for all others.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
import tempfile
from collections.abc import Callable

from nodeagent.rpc.address import MAX_PATH_BYTES, Listen, Unix, identity, listen
from nodeagent.rpc.caller import Origin
from nodeagent.rpc.splice import Connection

BACKLOG = 128
FAREWELL_S = 1.0
CgroupOf = Callable[[int], str]
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


def nowhere(_pid: int) -> str:
    """As CgroupOf, where it is not known."""
    return ""


class Door:
    """One public socket. `connections` are those inside, by the name that gRPC calls them by.

    `cgroup_of` tells where a process is, "" where it is not known.
    """

    def __init__(self, where: Unix, room: int, cgroup_of: CgroupOf = nowhere) -> None:
        self.connections: dict[str, Connection] = {}
        self._path = where
        self._room = room
        self._cgroup_of = cgroup_of
        self._names: dict[Connection, str] = {}
        self._private = -1
        self._public = socket.socket(socket.AF_UNIX)
        self._bound: tuple[int, int] | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[object]] = set()
        self._empty = asyncio.Event()

    def open(self, add_port: Listen) -> str:
        """Listen for the gRPC port that `add_port` adds; the address for clients. Failed."""
        address = listen(self._path, self._bind)
        self._bound = identity(self._path.path)
        self._private = _private_port(add_port, os.path.dirname(self._path.path))
        return address

    async def serve(self) -> None:
        """Let clients in."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Visitor(self), sock=self._public, backlog=BACKLOG)

    def shut(self) -> None:
        """Let nobody in any more; the socket is removed, unless it is a successor's."""
        if self._server is not None:
            self._server.close()
        self._public.close()
        if self._private >= 0:
            os.close(self._private)
            self._private = -1
        if self._bound is not None and identity(self._path.path) == self._bound:
            os.unlink(self._path.path)

    async def close(self) -> None:
        """Wait a moment until everybody has heard the last words, then cut who is left."""
        try:
            async with asyncio.timeout(FAREWELL_S):
                while self.connections:
                    self._empty.clear()
                    await self._empty.wait()
        except TimeoutError:
            for connection in tuple(self.connections.values()):
                connection.abort()

    def admit(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has connected, and nothing was read of it yet."""
        assert isinstance(transport, asyncio.Transport)
        if transport.is_closing():
            return
        origin, name = self._origin(transport.get_extra_info("socket")), f"nodeagent-{secrets.token_hex(16)}"
        inner = self._connect(name) if self._has_room(origin) else None
        if inner is None:
            transport.abort()
            return
        connection = Connection(origin, self._leave)
        name = f"unix-abstract:{name}"
        self.connections[name] = connection
        self._names[connection] = name
        transport.set_protocol(connection.ends.client)
        connection.ends.client.connection_made(transport)
        loop = asyncio.get_running_loop()
        task = loop.create_task(loop.create_connection(lambda: connection.ends.server, sock=inner))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: connection.abort() if done.exception() else None)

    def _bind(self, address: str) -> int:
        """As gRPC's add_port."""
        self._public.bind(address.removeprefix("unix:"))
        self._public.listen(BACKLOG)
        self._public.setblocking(False)
        return 1

    def _origin(self, client: socket.socket) -> Origin:
        packed = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _gid = _CREDENTIALS.unpack(packed)
        return Origin(uid=uid, pid=pid, cgroup=self._cgroup_of(pid))

    def _has_room(self, origin: Origin) -> bool:
        if origin.uid in (0, os.geteuid()):  # these could take all that there is anyway
            return len(self.connections) < self._room
        theirs = sum(each.origin.uid == origin.uid for each in self.connections.values())
        return theirs < self._room - len(self.connections)

    def _connect(self, name: str) -> socket.socket | None:
        """A connection to gRPC from this name; None when that cannot be."""
        try:
            inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:  # no descriptors are left
            return None
        try:
            inner.bind(f"\0{name}")
            inner.connect(f"/proc/self/fd/{self._private}")
        except OSError:
            inner.close()
            return None
        return inner

    def _leave(self, connection: Connection) -> None:
        del self.connections[self._names.pop(connection)]
        self._empty.set()


class _Visitor(asyncio.Protocol):
    """Somebody who has just connected."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not at once: before CPython 3.11.4 (gh-103607) what is paused in here is read all the same.
        asyncio.get_running_loop().call_soon(self._door.admit, transport)


def _private_port(add_port: Listen, home: str) -> int:
    """Let gRPC listen on a socket of its own and take the path away; a descriptor to connect by."""
    near = home if len(os.fsencode(home)) + 20 <= MAX_PATH_BYTES else None
    with tempfile.TemporaryDirectory(prefix=".rpc-", dir=near) as private:
        path = os.path.join(private, "s")
        add_port(f"unix:{path}")
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
