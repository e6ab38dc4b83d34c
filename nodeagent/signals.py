"""Signals as data: a list of what came, and a socket that turns readable, so that a poll wakes."""

from __future__ import annotations

import contextlib
import signal
import socket
from types import FrameType

TAKEN = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """Takes SIGTERM, SIGINT and SIGHUP between `__enter__` and `__exit__`; only in the main thread."""

    def __init__(self, *, hangup_stops: bool = False) -> None:
        self._hangup_stops = hangup_stops
        self._came: list[int] = []
        self._old: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Signals:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in TAKEN:
            self._old[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()

    def fileno(self) -> int:
        """Readable as soon as a signal came."""
        return self._reader.fileno()

    @property
    def stop(self) -> bool:
        """True once SIGTERM or SIGINT came, or SIGHUP where the terminal is what we run for."""
        ends = {signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if self._hangup_stops else [])}
        return not ends.isdisjoint(self._came)

    @property
    def came(self) -> bool:
        """True while one of those that are taken waits to be looked at; others, too, wake a poll."""
        return bool(self._came)

    def take_hangup(self) -> bool:
        """True when SIGHUP came since the last call."""
        came = False
        while signal.SIGHUP in self._came:  # one by one: a signal that comes meanwhile must not be lost
            self._came.remove(signal.SIGHUP)
            came = True
        return came

    def drain(self) -> None:
        """Make the socket unreadable again."""
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self._came.append(number)
