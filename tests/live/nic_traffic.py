"""A program: one end of some traffic. It says "ready", and a line of JSON for each line that it is told.

    serve PORT                                  answers requests: 200 bytes say how many shall come back
    ask HOST PORT PER_S ANSWER_BYTES            open loop: a request's latency counts from when it was due
    sink PORT                                   swallows TCP streams, counts their bytes
    send HOST PORT FLOWS MBIT_PER_S             fills TCP streams; 0 Mbit/s = as much as there is room
    emit HOST PORT PER_S                        numbered datagrams of 200 bytes
    collect PORT                                counts them, and the numbers that are missing

`ask` tells the requests since the last "count"; the words "pause" and "go" stop and start it. What the client
was late with is counted apart. Standard library only, for a quick start; times are CLOCK_MONOTONIC, which
namespaces share.
"""

from __future__ import annotations

import collections
import contextlib
import json
import math
import os
import select
import selectors
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable

REQUEST_BYTES = 200
CONNECTIONS = 8
CHUNK = bytes(1 << 18)
LOST_AFTER_S = 3.0
LATE_S = 0.5e-3  # a client that is itself so late measures its machine, not the network
_WANTED = struct.Struct("<I")
_NUMBER = struct.Struct("<Q")

Answer = dict[str, float]


def serve(port: int) -> None:
    """Answer for ever: each request names the bytes that it wants."""
    _first_in_line()
    waiting = selectors.DefaultSelector()
    listener = _listening(port)
    waiting.register(listener, selectors.EVENT_READ)
    parts: dict[socket.socket, bytearray] = {}
    _ready()
    while True:
        for key, _ in waiting.select():
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            if connection is listener:
                accepted = _prompt(listener.accept()[0])
                parts[accepted] = bytearray()
                waiting.register(accepted, selectors.EVENT_READ)
            elif not _answer(connection, parts[connection]):
                waiting.unregister(connection)
                connection.close()


def _answer(connection: socket.socket, part: bytearray) -> bool:
    """Answer the requests that are whole; False when the other end has gone."""
    with contextlib.suppress(OSError):
        received = connection.recv(1 << 16)
        part += received
        while len(part) >= REQUEST_BYTES:
            (wanted,) = _WANTED.unpack_from(part)
            del part[:REQUEST_BYTES]
            connection.sendall(CHUNK[:wanted])
        return bool(received)
    return False


class Asking:
    """The client. Answers on one connection come in order: the oldest request owns the next bytes."""

    def __init__(self, host: str, port: int, per_s: float, answer_bytes: int) -> None:
        self._every_s, self._bytes = 1 / per_s, answer_bytes
        self._request = _WANTED.pack(answer_bytes).ljust(REQUEST_BYTES, b"\0")
        self._connections = [
            _prompt(socket.create_connection((host, port), timeout=10)) for _ in range(CONNECTIONS)
        ]
        self._due: dict[int, collections.deque[tuple[float, float]]] = {
            connection.fileno(): collections.deque() for connection in self._connections
        }
        self._got = dict.fromkeys(self._due, 0)
        self._buffer = bytearray(1 << 18)
        self._took_s: list[float] = []
        self._late = 0
        self._going = True

    def run(self) -> None:
        """Ask until the input ends; select(2), because epoll's waits are whole milliseconds."""
        _first_in_line()
        by_fd = {connection.fileno(): connection for connection in self._connections}
        _ready()
        due, asked = time.monotonic(), 0
        while True:
            now = time.monotonic()
            while self._going and due <= now:
                connection = self._connections[asked % CONNECTIONS]
                connection.sendall(self._request)
                self._due[connection.fileno()].append((due, now))
                due, asked = due + self._every_s, asked + 1
            if not self._going:
                due = now + self._every_s
            for fd in select.select([0, *by_fd], [], [], max(0.0, due - time.monotonic()))[0]:
                if fd == 0:
                    if not (line := os.read(0, 64).decode()):
                        return
                    self._told(line.strip())
                else:
                    self._hear(by_fd[fd])

    def _hear(self, connection: socket.socket) -> None:
        fd = connection.fileno()
        self._got[fd] += connection.recv_into(self._buffer)
        while self._got[fd] >= self._bytes and self._due[fd]:
            self._got[fd] -= self._bytes
            due, sent = self._due[fd].popleft()
            if sent - due > LATE_S:
                self._late += 1
            else:
                self._took_s.append(time.monotonic() - due)

    def _told(self, word: str) -> None:
        self._going = word != "pause" and (self._going or word == "go")
        now = time.monotonic()
        lost = sum(now - due > LOST_AFTER_S for dues in self._due.values() for due, _ in dues)
        took_s = sorted(self._took_s)
        _say(
            {
                "at": now,
                "answers": len(took_s),
                "lost": lost,
                "late": self._late,
                **{f"p{ratio * 100:g}_ms": _quantile(took_s, ratio) * 1e3 for ratio in (0.5, 0.99, 1.0)},
            }
        )
        if word == "count":
            self._took_s, self._late = [], 0


def sink(port: int) -> None:
    """Swallow what comes (MSG_TRUNC: without copying it), tell the bytes."""
    counts: list[list[int]] = []
    listener = _listening(port)

    def swallow(connection: socket.socket, count: list[int]) -> None:
        buffer = bytearray(1 << 20)
        with contextlib.suppress(OSError):
            while received := connection.recv_into(buffer, 0, socket.MSG_TRUNC):
                count[0] += received

    def accept() -> None:
        while True:
            counts.append([0])
            threading.Thread(target=swallow, args=(listener.accept()[0], counts[-1]), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    _tell(lambda: {"bytes": sum(count[0] for count in counts)})


def send(host: str, port: int, flows: int, mbit_per_s: float) -> None:
    """Fill `flows` streams, together at most at the rate; a stream that breaks is begun anew."""
    breaks = [0]
    chunk = CHUNK if not mbit_per_s else CHUNK[: 1 << 14]
    every_s = len(chunk) * 8 * flows / (mbit_per_s * 1e6) if mbit_per_s else 0.0

    def stream() -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=10) as out:
                due = time.monotonic()
                while True:
                    out.sendall(chunk)
                    due = max(due + every_s, time.monotonic() - 0.1)
                    if (wait_s := due - time.monotonic()) > 0.0:
                        time.sleep(wait_s)
            breaks[0] += 1
            time.sleep(0.1)

    for _ in range(flows):
        threading.Thread(target=stream, daemon=True).start()
    _tell(lambda: {"breaks": breaks[0]})


def emit(host: str, port: int, per_s: float) -> None:
    """Datagrams 0, 1, 2 ... at a steady rate."""
    sent = [0]

    def stream() -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as out:
            out.connect((host, port))
            begin = time.monotonic()
            while True:
                while sent[0] < (time.monotonic() - begin) * per_s:
                    with contextlib.suppress(OSError):  # no route for a moment: the number is missing then
                        out.send(_NUMBER.pack(sent[0]).ljust(REQUEST_BYTES, b"\0"))
                    sent[0] += 1
                time.sleep(1 / per_s)

    threading.Thread(target=stream, daemon=True).start()
    _tell(lambda: {"sent": sent[0]})


def collect(port: int) -> None:
    """Which numbers came: the highest, how many are missing below it, how many came after a higher one."""
    seen: set[int] = set()
    state = {"highest": -1, "late": 0}

    def listen() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as listener:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            listener.bind(("::", port))
            while True:
                (number,) = _NUMBER.unpack_from(listener.recv(2048))
                seen.add(number)
                state["late"] += number < state["highest"]
                state["highest"] = max(state["highest"], number)

    def count() -> Answer:
        came = set(seen)  # more come meanwhile
        expected = max(came) - min(came) + 1 if came else 0
        return {**state, "received": len(came), "missing": expected - len(came)}

    threading.Thread(target=listen, daemon=True).start()
    _tell(count)


def _listening(port: int) -> socket.socket:
    return socket.create_server(("::", port), family=socket.AF_INET6, backlog=64, dualstack_ipv6=True)


def _prompt(connection: socket.socket) -> socket.socket:
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _first_in_line() -> None:
    """Before all others on its CPU: what is measured is the network, and clients are on other machines."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def _quantile(ordered: list[float], ratio: float) -> float:
    return ordered[math.ceil(ratio * len(ordered)) - 1] if ordered else math.nan


def _ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def _say(answer: Answer) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _tell(count: Callable[[], Answer]) -> None:
    """Answer each line until the input ends."""
    _ready()
    while os.read(0, 64):
        _say({"at": time.monotonic(), **count()})


def main(role: str, *arguments: str) -> None:
    """Be one of the above."""
    match role, arguments:
        case "serve", (port,):
            serve(int(port))
        case "ask", (host, port, per_s, answer_bytes):
            Asking(host, int(port), float(per_s), int(answer_bytes)).run()
        case "sink", (port,):
            sink(int(port))
        case "send", (host, port, flows, mbit_per_s):
            send(host, int(port), int(flows), float(mbit_per_s))
        case "emit", (host, port, per_s):
            emit(host, int(port), float(per_s))
        case "collect", (port,):
            collect(int(port))
        case _:
            sys.exit(f"no such traffic: {role} {arguments}")


if __name__ == "__main__":
    main(*sys.argv[1:])
