"""Real HTTP servers on loopback that answer scrapes: well, slowly, endlessly, wrongly."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from nodeagent.apps.applications import Applications
from nodeagent.model.app import AppRule, AppSettings, AppWish
from nodeagent.model.pod import Member, PodSpec, Qos
from nodeagent.model.snapshot import Pod, Reading
from nodeagent.model.symptom import AppReading

Answer = Callable[[socket.socket, threading.Event], None]


class Endpoint:
    """`answer` has the connection after the request was read; `requests` are those texts."""

    def __init__(self, answer: Answer, host: str = "127.0.0.1") -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.ended = threading.Event()
        self._socket = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=64
        )
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.ended.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5.0)

    def _serve(self) -> None:
        while not self.ended.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10.0)
            text = b""
            while b"\r\n\r\n" not in text and (piece := connection.recv(4096)):
                text += piece
            self.requests.append(text)
            self.answer(connection, self.ended)


@contextlib.contextmanager
def endpoint(answer: Answer, host: str = "127.0.0.1") -> Iterator[Endpoint]:
    """One that lives as long as the context."""
    made = Endpoint(answer, host)
    try:
        yield made
    finally:
        made.close()


def sends(*parts: bytes) -> Answer:
    """Send that and hang up."""
    return lambda connection, _ended: connection.sendall(b"".join(parts))


def page(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """A whole answer."""
    head = (b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers)
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def histogram(counts: tuple[int, int, int], name: str = "w", labels: str = "") -> bytes:
    """Cumulative counts up to 10 ms, 100 ms and beyond."""
    told = zip(("0.01", "0.1", "+Inf"), counts, strict=True)
    return b"".join(f'{name}_bucket{{{labels}le="{le}"}} {count}\n'.encode() for le, count in told)


class Rising:
    """Answers with a histogram that has `more` in each bucket at each scrape."""

    def __init__(self, *more: int) -> None:
        self.more = more
        self.total = [0] * len(more)

    def __call__(self, connection: socket.socket, _ended: threading.Event) -> None:
        self.total = [a + b for a, b in zip(self.total, self.more, strict=True)]
        low, middle, high = self.total
        connection.sendall(page(histogram((low, low + middle, low + middle + high))))


def pod(name: str, *, qos: Qos = Qos.LS, app: AppWish = AppWish(), inode: int = 7) -> Member:  # noqa: B008
    """An online pod in a cgroup of that name."""
    spec = PodSpec(uid=f"uid-{name}", name=name, cgroup=f"pods/{name}", inode=inode, qos=qos, source="rule")
    return Member(spec, app=app)


def app_of(applications: Applications, member: Member, at: float) -> AppReading | None:
    """What is told of it."""
    (found,) = applications.told((Pod(member.spec, Reading()),), at)
    return found.app


@contextlib.contextmanager
def applications(
    members: tuple[Member, ...], *rules: AppRule, cgroups: dict[int, str] | None = None, **settings: Any
) -> Iterator[Applications]:
    """Running, for these pods; `cgroups` are those of processes."""
    made = Applications(
        AppSettings(**settings),
        rules,
        lambda pid: (cgroups or {}).get(pid, ""),
    )
    try:
        made.sync(members)
        yield made
    finally:
        made.close()
