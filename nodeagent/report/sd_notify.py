"""What the agent tells systemd of itself (sd_notify(3)): ready, reloading, stopping, alive, and one line.

Invariant: a send never waits, and what must arrive (READY=1) is sent again until it was taken; a process that
this one starts finds no socket in its environment, and can say nothing in its name.
"""

from __future__ import annotations

import contextlib
import faulthandler
import math
import os
import socket
import time
from collections.abc import MutableMapping

FEEDS = 4  # times per watchdog period; systemd asks for two
STATUS_S = 5.0  # the line changes at most this often
SOON_S = 0.1  # after a message that was not taken
MAX_LINE = 400


class Supervisor:
    """The one that `env` names, which is taken out of it; where it names none, all of this does nothing."""

    def __init__(self, env: MutableMapping[str, str]) -> None:
        address, usec = env.pop("NOTIFY_SOCKET", ""), env.pop("WATCHDOG_USEC", "")
        pid = env.pop("WATCHDOG_PID", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = None
        if address.startswith(("/", "@")):  # AF_VSOCK is for virtual machines
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        watched = self._socket is not None and pid in ("", str(os.getpid())) and usec.isdecimal()
        self.feed_s = int(usec) / 1e6 / FEEDS if watched and int(usec) else None
        self._fed_at = -math.inf
        if self.feed_s is not None:
            faulthandler.enable()  # what hung is in the log when the watchdog ends it
        self._ready = self._reloading = False
        self._refused = ""
        self._line, self._line_at = "", -math.inf

    @property
    def listens(self) -> bool:
        """Whether there is anybody to tell."""
        return self._socket is not None

    def alive(self) -> float:
        """The loop has come round: feeds the watchdog. Seconds until it wants to hear that again, or inf."""
        if self.feed_s is None:
            return math.inf
        now = time.monotonic()
        if now >= self._fed_at + self.feed_s and self._send("WATCHDOG=1"):
            self._fed_at = now
        return max(SOON_S, self._fed_at + self.feed_s - now)

    def ready(self, line: str) -> None:
        """A tick is complete, and this is how the agent does."""
        line += self._refused and f"; configuration refused: {self._refused}"
        if self._ready:
            self.status(line)
        elif self._send(f"READY=1\nSTATUS={_one_line(line)}"):
            self._ready, self._line = True, line  # the next line need not wait: it is the first with rates

    def status(self, line: str) -> None:
        """The line that `systemctl status` shows: sent when it is another one, at most each STATUS_S."""
        now = time.monotonic()
        if line != self._line and now >= self._line_at + STATUS_S and self._send(f"STATUS={_one_line(line)}"):
            self._line, self._line_at = line, now

    def reloading(self) -> None:
        """The configuration is read again; `reloaded` ends that, or the next complete tick."""
        if self._ready and self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}"):
            self._ready, self._reloading = False, True

    def reloaded(self, refused: str = "") -> None:
        """Taken, or `refused` for a reason, which stays in the line until another one is taken."""
        self._refused = refused
        if self._reloading:
            self._ready = self._send("READY=1")
            self._reloading = False

    def stopping(self, line: str) -> None:
        """From now on values are given back."""
        self._send(f"STOPPING=1\nSTATUS={_one_line(line)}")

    def close(self) -> None:
        """Say no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> bool:
        """False when it was not taken, for now or for good."""
        if self._socket is None:
            return False
        with contextlib.suppress(OSError):
            self._socket.sendto(text.encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, self._address)
            return True
        return False


def _one_line(text: str) -> str:
    return " ".join(text.split())[:MAX_LINE]
