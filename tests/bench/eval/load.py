"""A program: sends requests to several servers when each is due, and keeps how long every answer took.

Argument: a JSON file with begin, targets (name, protocol, port, seed, rates), into, statsd. `begin` is
CLOCK_MONOTONIC; `rates` are [[seconds, requests/s], ...], each from its second on, the last one 0. A latency
counts from the instant the request was due (no coordinated omission); what is never answered is `inf`. Of
each target the file INTO/NAME has pairs of doubles, in seconds: when it was due since `begin`, its latency.
Where `statsd` is the path of a socket, each latency is also sent there, as NAME.latency.
"""

from __future__ import annotations

import array
import contextlib
import itertools
import json
import math
import os
import random
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

PATIENCE_S = 3.0
REDIAL_S = 0.05
TOLD_LINES = 20
_REQUESTS = {
    "udp": b"ping",
    "redis": b"*2\r\n$8\r\nBITCOUNT\r\n$4\r\nbits\r\n",
    "redis-write": b"*3\r\n$3\r\nSET\r\n$4\r\nwhat\r\n$64\r\n" + b"x" * 64 + b"\r\n",
    "http": b"GET /page.html HTTP/1.1\r\nHost: eval\r\nAccept-Encoding: gzip\r\n\r\n",
}
_ENDS = {"redis": b"\r\n", "redis-write": b"\r\n", "http": b"\r\n0\r\n\r\n"}  # of one answer


def arrivals(rates: Sequence[Sequence[float]], seed: int) -> list[float]:
    """Instants of a Poisson process whose rate is constant between the instants of `rates`."""
    luck = random.Random(seed)
    due: list[float] = []
    for (begin, per_s), (end, _) in itertools.pairwise(rates):
        at = begin
        while per_s > 0.0 and (at := at + luck.expovariate(per_s)) < end:
            due.append(at)
    return due


class Target:
    """One server: what is due, what is under way (in the order of the answers), and what came of it."""

    def __init__(self, protocol: str, port: int, due: list[float], tell: Callable[[float], None]) -> None:
        self.due, self.sent = due, 0
        self._tell = tell
        self.told = array.array("d")
        self._protocol, self._port = protocol, port
        self._waiting: deque[float] = deque()
        self._tail = b""
        self._redial_at = 0.0
        self.socket: socket.socket | None = None

    def next_due(self) -> float:
        """When the next request is due, `inf` after the last."""
        return self.due[self.sent] if self.sent < len(self.due) else math.inf

    @property
    def done(self) -> bool:
        return self.sent == len(self.due) and not self._waiting

    def send_due(self, now: float) -> None:
        """Send what is due; without a connection it is lost."""
        if self.socket is None and now >= self._redial_at:
            self._dial(now)
        while self.next_due() <= now:
            at = self.due[self.sent]
            self.sent += 1
            if self.socket is None:
                self.told.extend((at, math.inf))
                continue
            try:
                self.socket.send(_REQUESTS[self._protocol])
                self._waiting.append(at)
            except OSError:  # gone, or so far behind that its buffer is full
                self.told.extend((at, math.inf))

    def receive(self, now: float) -> None:
        """Take the answers that are here."""
        assert self.socket is not None
        try:
            data = self.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.hang_up(now)
            return
        for _ in range(min(self._answers(data), len(self._waiting))):
            at = self._waiting.popleft()
            self.told.extend((at, now - at))
            self._tell(now - at)

    def hang_up(self, now: float) -> None:
        """What is under way is lost."""
        if self.socket is not None:
            self.socket.close()
        self.socket, self._tail, self._redial_at = None, b"", now + REDIAL_S
        while self._waiting:
            self.told.extend((self._waiting.popleft(), math.inf))

    def _answers(self, data: bytes) -> int:
        end = _ENDS.get(self._protocol)
        if end is None:
            return 1
        data = self._tail + data
        parts = data.split(end)
        self._tail = parts[-1][-len(end) :]  # no more is needed to find an end that is cut in two
        return len(parts) - 1

    def _dial(self, now: float) -> None:
        kind = socket.SOCK_DGRAM if self._protocol == "udp" else socket.SOCK_STREAM
        dialled = socket.socket(socket.AF_INET, kind)
        try:
            dialled.connect(("127.0.0.1", self._port))
        except OSError:
            dialled.close()
            self._redial_at = now + REDIAL_S
            return
        if kind == socket.SOCK_STREAM:
            dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        dialled.setblocking(False)
        self.socket = dialled


class Teller:
    """StatsD timers to a datagram socket (docs/metric_types.md of statsd/statsd), many lines at a time."""

    def __init__(self, path: str, name: str) -> None:
        self._path, self._name = path, name
        self._lines: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __call__(self, latency_s: float) -> None:
        """One more; nobody is waited for, and nobody need be there."""
        self._lines.append(f"{self._name}.latency:{latency_s * 1e3:.3f}|ms")
        if self._path and len(self._lines) >= TOLD_LINES:
            with contextlib.suppress(OSError):
                self._socket.sendto("\n".join(self._lines).encode(), socket.MSG_DONTWAIT, self._path)
        if len(self._lines) >= TOLD_LINES:
            self._lines.clear()


def drive(begin: float, targets: Sequence[Target]) -> None:
    """Send until all is sent and answered, at most PATIENCE_S longer than the last request is due."""
    last = max((target.due[-1] for target in targets if target.due), default=0.0)
    while not all(target.done for target in targets):
        now = time.monotonic() - begin
        if now > last + PATIENCE_S:
            break
        for target in targets:
            target.send_due(now)
        by_socket = {target.socket: target for target in targets if target.socket is not None}
        due = min(*(target.next_due() for target in targets), now + REDIAL_S)
        ready, _, _ = select.select(list(by_socket), [], [], max(0.0, due - (time.monotonic() - begin)))
        now = time.monotonic() - begin
        for each in ready:
            by_socket[each].receive(now)
    for target in targets:
        target.hang_up(last)


def main(plan_path: str) -> None:
    """Do what the plan says."""
    plan = json.loads(Path(plan_path).read_text())
    with contextlib.suppress(OSError):  # real clients are on other machines: before all others on its CPU
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    made = {
        each["name"]: Target(
            each["protocol"],
            each["port"],
            arrivals(each["rates"], each["seed"]),
            Teller(plan["statsd"], each["name"]),
        )
        for each in plan["targets"]
    }
    drive(plan["begin"], list(made.values()))
    for name, target in made.items():
        Path(plan["into"], name).write_bytes(target.told.tobytes())


if __name__ == "__main__":
    main(sys.argv[1])
