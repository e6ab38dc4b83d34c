"""A client that sends when the schedule says so, not when the last answer came.

A request's latency counts from the instant it was due, so that no wait hides the waits behind it (Tene,
"coordinated omission"). What is never answered counts with `inf`.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import select
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

PATIENCE_S = 3.0
_REQUEST = struct.Struct("<I")


@dataclass(frozen=True)
class Latencies:
    """Seconds of each request, sorted; `late_s` is by how much the client itself was late, sorted."""

    answer_s: list[float]
    late_s: list[float]

    def quantile_ms(self, ratio: float) -> float:
        """The latency in ms that this share of the requests did not exceed."""
        return _quantile(self.answer_s, ratio) * 1e3

    def late_ms(self, ratio: float) -> float:
        """The same of the client's own lateness."""
        return _quantile(self.late_s, ratio) * 1e3


def schedule(per_s: float, seconds: float, seed: int = 7) -> list[float]:
    """Instants of Poisson arrivals, the same in every run."""
    luck = random.Random(seed)
    times, at = [], luck.expovariate(per_s)
    while at < seconds:
        times.append(at)
        at += luck.expovariate(per_s)
    return times


def send(port: int, due_s: list[float]) -> Latencies:
    """Send each request when it is due, to the server on this port; wait PATIENCE_S for the last answers."""
    answers, late = [math.inf] * len(due_s), [0.0] * len(due_s)
    sent = 0
    with _server(port) as server, first_in_line():
        began = time.monotonic()
        while sent < len(due_s) or math.inf in answers[-100:]:
            now = time.monotonic() - began
            if now > due_s[-1] + PATIENCE_S:
                break
            while sent < len(due_s) and due_s[sent] <= now:
                server.send(_REQUEST.pack(sent))
                late[sent] = now - due_s[sent]
                sent += 1
            until = due_s[sent] if sent < len(due_s) else now + 0.1
            if select.select([server], [], [], max(0.0, until - now))[0]:
                (number,) = _REQUEST.unpack(server.recv(64))
                answers[number] = time.monotonic() - began - due_s[number]
    return Latencies(sorted(answers), sorted(late))


@contextlib.contextmanager
def first_in_line() -> Iterator[None]:
    """This process before all others on its CPU: real clients are on other machines.

    Without the right to it, it waits like everybody; `late_s` shows it.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextlib.contextmanager
def _server(port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        server.connect(("127.0.0.1", port))
        yield server


def _quantile(ordered: list[float], ratio: float) -> float:
    return ordered[min(len(ordered) - 1, math.ceil(ratio * len(ordered)) - 1)]
