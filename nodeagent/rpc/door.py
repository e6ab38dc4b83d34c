"""The public sockets: who connects is counted and asked for its user id, then passed on to gRPC.

    client -- public socket [accept, SO_PEERCRED] == splice == private socket -- gRPC

gRPC tells its handlers only the name of who connected to it. So each connection to its private socket is made
from an abstract name of its own, under which `connections` has what is known of the client.

Invariant: only this process can reach the private socket: it has no path (a descriptor of it is kept).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
import tempfile
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from nodeagent.rpc.address import MAX_PATH_BYTES, Listen, Tcp, Unix, identity, listen
from nodeagent.rpc.caller import Origin
from nodeagent.rpc.splice import Connection

BACKLOG = 128
FAREWELL_S = 1.0
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


class Room(NamedTuple):
    """How many connections a door takes, in all and from one TCP address (or user id)."""

    connections: int
    per_peer: int


class Doors:
    """All public sockets of one server. `connections` are those inside, by the name that gRPC calls them."""

    def __init__(self) -> None:
        self.connections: dict[str, Connection] = {}
        self._doors: list[_Door] = []
        self._empty = asyncio.Event()

    def open(self, where: Unix | Tcp, add_port: Listen, room: Room) -> str:
        """Listen there, for the gRPC port that `add_port` adds; the address for clients. Failed."""
        door = _Door(self.connections, room, self._left)
        address = door.listen(where, add_port)
        self._doors.append(door)
        return address

    async def serve(self) -> None:
        """Let clients in."""
        for door in self._doors:
            await door.serve()

    def cut(self, address: str) -> int:
        """Cut all connections that came in there; how many."""
        doomed = [door for door in self._doors if door.address == address]
        return sum(door.cut() for door in doomed)

    def shut(self) -> None:
        """Let nobody in any more; the sockets are removed."""
        for door in self._doors:
            door.shut()

    async def close(self) -> None:
        """Wait a moment until everybody has heard the last words, then cut who is left."""
        self._left()
        try:
            async with asyncio.timeout(FAREWELL_S):
                await self._empty.wait()
        except TimeoutError:
            for door in self._doors:
                door.cut()

    def _left(self) -> None:
        if self.connections:
            self._empty.clear()
        else:
            self._empty.set()


class _Door:
    def __init__(self, connections: dict[str, Connection], room: Room, left: Callable[[], None]) -> None:
        self.address = ""
        self._connections = connections
        self._left = left
        self._room = room
        self._prefix = f"nodeagent-{secrets.token_hex(8)}-"
        self._serial = 0
        self._inside: dict[Connection, str] = {}
        self._peers: Counter[str] = Counter()
        self._private = -1
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._bound: tuple[str, tuple[int, int] | None] = ("", None)
        self._tasks: set[asyncio.Task[object]] = set()

    def listen(self, where: Unix | Tcp, add_port: Listen) -> str:
        home = os.path.dirname(where.path) if isinstance(where, Unix) else None
        self.address = listen(where, self._bind)
        if isinstance(where, Unix):
            self._bound = (where.path, identity(where.path))
        self._private = _private_port(add_port, home)
        return self.address

    async def serve(self) -> None:
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Visitor(self), sock=self._socket, backlog=BACKLOG)

    def cut(self) -> int:
        doomed = tuple(self._inside)
        for connection in doomed:
            connection.abort()
        return len(doomed)

    def shut(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._socket is not None:
            self._socket.close()
        if self._private >= 0:
            os.close(self._private)
            self._private = -1
        path, bound = self._bound
        if bound is not None and identity(path) == bound:
            os.unlink(path)

    def _bind(self, address: str) -> int:
        """As gRPC's add_port."""
        if address.startswith("unix:"):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.bind(address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            try:
                self._socket = socket.create_server(
                    (host.strip("[]"), int(port)),
                    family=socket.AF_INET6 if ":" in host else socket.AF_INET,
                    dualstack_ipv6=host == "[::]",
                )
            except OSError as error:
                raise RuntimeError(str(error)) from None
        self._socket.listen(BACKLOG)
        self._socket.setblocking(False)
        return 1 if address.startswith("unix:") else int(self._socket.getsockname()[1])

    def admit(self, transport: asyncio.Transport) -> None:
        """Somebody has connected."""
        origin = _origin(transport.get_extra_info("socket"))
        peer = _peer(origin)
        full = len(self._inside) >= self._room.connections or self._peers[peer] >= self._room.per_peer
        inner = None if full else self._connect()
        if inner is None:
            transport.abort()
            return
        connection = Connection(origin, self._leave)
        name = f"unix-abstract:{self._prefix}{self._serial}"
        self._connections[name] = connection
        self._inside[connection] = name
        self._peers[peer] += 1
        transport.set_protocol(connection.ends.client)
        connection.ends.client.connection_made(transport)
        loop = asyncio.get_running_loop()
        task = loop.create_task(loop.create_connection(lambda: connection.ends.server, sock=inner))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: connection.abort() if done.exception() else None)

    def _connect(self) -> socket.socket | None:
        """A connection to gRPC from a name of its own; None when that cannot be."""
        self._serial += 1
        inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            inner.bind(f"\0{self._prefix}{self._serial}")
            inner.connect(f"/proc/self/fd/{self._private}")
        except OSError:
            inner.close()
            return None
        return inner

    def _leave(self, connection: Connection) -> None:
        name = self._inside.pop(connection)
        del self._connections[name]
        peer = _peer(connection.origin)
        self._peers[peer] -= 1
        if not self._peers[peer]:
            del self._peers[peer]
        self._left()


class _Visitor(asyncio.Protocol):
    """Somebody who has just connected."""

    def __init__(self, door: _Door) -> None:
        self._door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._door.admit(transport)


def _origin(client: socket.socket) -> Origin:
    if client.family == socket.AF_UNIX:
        packed = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _gid = _CREDENTIALS.unpack(packed)
        return Origin(uid=uid, pid=pid)
    try:
        return Origin(address=str(client.getpeername()[0]).removeprefix("::ffff:"))
    except OSError:  # gone already
        return Origin()


def _peer(origin: Origin) -> str:
    return origin.address if origin.uid is None else f"uid:{origin.uid}"


def _private_port(add_port: Listen, home: str | None) -> int:
    """Let gRPC listen on a socket of its own and take the path away; a descriptor to connect by."""
    if home is not None and len(os.fsencode(home)) + 20 > MAX_PATH_BYTES:
        home = None
    with tempfile.TemporaryDirectory(prefix=".rpc-", dir=home) as private:
        path = os.path.join(private, "s")
        add_port(f"unix:{path}")
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
