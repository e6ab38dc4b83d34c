"""One client's connection, passed on to gRPC's own socket and back.

Invariant: an end is not read while the other does not take what came before, so what is kept is bounded.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from typing import NamedTuple

from nodeagent.rpc.caller import Caller, Origin

LAST_WORDS_S = 5.0  # for what a client has not taken yet when gRPC has hung up
UNREAD_S = (
    10.0  # HTTP/2 has its own way to slow a server down: who leaves the socket unread is gone, or hostile
)


class Paused(enum.Enum):
    """Why an end is not read."""

    CONNECTING = enum.auto()
    BEHIND = enum.auto()  # the other end takes no more for now
    HELD = enum.auto()  # it calls too often


class Connection:
    """Both ends. `caller` is who it is, once that is known; `ended` is called when both are closed."""

    def __init__(self, origin: Origin, ended: Callable[[Connection], None]) -> None:
        self.origin = origin
        self.caller: Caller | None = None
        self.ends = Ends(_End(self), _End(self))
        self._ended = ended
        self._open = 0
        self._over = False

    def hold(self, seconds: float) -> None:
        """Read nothing from the client for so long: what it sends then waits on its side."""
        client = self.ends.client
        if client.pause(Paused.HELD):
            asyncio.get_running_loop().call_later(seconds, client.go_on, Paused.HELD)

    def opened(self) -> None:
        """One more end is connected; with the second one it begins."""
        self._open += 1
        if self._over:  # the client did not wait
            self.abort()
        elif self._open == 2:
            self.ends.client.go_on(Paused.CONNECTING)
        else:
            self.ends.client.pause(Paused.CONNECTING)

    def closed(self, end: _End) -> None:
        """An end is gone: the other one is closed when it has taken what was sent before."""
        self._open -= 1
        self.other(end).finish()
        if self._open == 0 and not self._over:
            self._over = True
            self._ended(self)

    @property
    def held(self) -> bool:
        """Nothing is read from the client for now."""
        return self.ends.client.paused(Paused.HELD)

    @property
    def unread(self) -> bool:
        """The client has stopped taking what is sent."""
        return self.ends.server.paused(Paused.BEHIND)

    def cut_if_unread(self) -> None:
        """Cut a client that takes nothing."""
        if self.unread:
            self.abort()

    def abort(self) -> None:
        """Cut both ends now."""
        for end in self.ends:
            if end.transport is not None:
                end.transport.abort()

    def other(self, end: _End) -> _End:
        """The end opposite of this one."""
        return self.ends.server if end is self.ends.client else self.ends.client


class _End(asyncio.Protocol):
    def __init__(self, connection: Connection) -> None:
        self.transport: asyncio.Transport | None = None
        self._connection = connection
        self._paused: set[Paused] = set()
        self._patience: asyncio.TimerHandle | None = None

    def paused(self, why: Paused) -> bool:
        """Not read, for this reason."""
        return why in self._paused

    def pause(self, why: Paused) -> bool:
        """Do not read; False when it was paused for this reason already."""
        if self.transport is None or why in self._paused:
            return False
        self._paused.add(why)
        self.transport.pause_reading()
        return True

    def go_on(self, why: Paused) -> None:
        """This reason is gone."""
        self._paused.discard(why)
        if self.transport is not None and not self._paused:
            self.transport.resume_reading()

    def finish(self) -> None:
        """Close when all is sent, or after LAST_WORDS_S."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()
            asyncio.get_running_loop().call_later(LAST_WORDS_S, self.transport.abort)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._connection.opened()

    def data_received(self, data: bytes) -> None:
        other = self._connection.other(self).transport
        assert other is not None  # nothing is read before both are connected
        other.write(data)

    def pause_writing(self) -> None:
        self._connection.other(self).pause(Paused.BEHIND)
        self._patience = asyncio.get_running_loop().call_later(UNREAD_S, self._connection.cut_if_unread)

    def resume_writing(self) -> None:
        self._connection.other(self).go_on(Paused.BEHIND)
        if self._patience is not None:
            self._patience.cancel()

    def connection_lost(self, _error: Exception | None) -> None:
        self._connection.closed(self)


class Ends(NamedTuple):
    """The two ends of a connection."""

    client: _End
    server: _End
