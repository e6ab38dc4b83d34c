"""/metrics, /livez and /readyz over HTTP, on threads of their own, for clients that may be slow or silent.

Invariant: at most MAX_CONNECTIONS threads, each for at most 2 x TIMEOUT_S, whatever the clients send or leave
unsent; the agent's loop only ever sets a time stamp here.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import socket
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, NamedTuple

from nodeagent.model.errors import Failed, Misconfigured
from nodeagent.report.text import CONTENT_TYPE

MAX_CONNECTIONS = 8
TIMEOUT_S = 5.0
MAX_HEAD_BYTES = 8 << 10
MIN_STALE_S = 10.0
STALE_TICKS = 5
LONG_S = 3600.0  # serve_forever wakes this often for nothing
HINT = 'http address: an IP address and a port, such as "127.0.0.1:9464" or "[::1]:9464"'
INDEX = b"""nodeagent

/metrics  Prometheus text format
/livez    503 when the last tick is too old
/readyz   503 until the first complete tick
"""
BUSY = b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 1\r\n\r\ntoo many connections\n"
TOO_LONG = b"HTTP/1.0 431 Request Header Fields Too Large\r\n\r\n"


class Page(NamedTuple):
    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


class HttpServer:
    """Serves at `address` ("HOST:PORT"; port 0 = any free one, see `address` after start()).

    `render` makes the page /metrics on the thread of a scrape; `tick_s` is the tick's period in seconds.
    Misconfigured at once for a bad address.
    """

    def __init__(self, address: str, render: Callable[[], bytes], *, tick_s: float = 1.0) -> None:
        self.address = address
        self._where = _parse(address)
        self._render = render
        self._stale_s = max(MIN_STALE_S, STALE_TICKS * tick_s)
        self._last = time.monotonic()
        self._ready = False
        self._server: _Server | None = None

    def start(self) -> None:
        """Listen and answer from now on; Failed when the address cannot be had."""
        host, port = self._where
        try:
            self._server = _Server(host, port, self.page)
        except OSError as error:
            raise Failed(
                f"http: cannot listen on {self.address}: {error.strerror}",
                "is the port in use? (ss -ltnp) Choose another http address",
            ) from None
        bound = self._server.server_address[1]
        self.address = f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}"
        self._last = time.monotonic()
        serve = self._server.serve_forever
        threading.Thread(target=serve, args=(LONG_S,), name="http", daemon=True).start()

    def tick_finished(self, *, complete: bool = True) -> None:
        """The loop is alive; `complete` when the tick was not skipped: from the first such on it is ready."""
        self._last = time.monotonic()
        self._ready = self._ready or complete

    def stop(self) -> None:
        """Close the listener; answers under way end by themselves."""
        if self._server is not None:
            self._server.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for clients
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def page(self, path: str) -> Page:
        """The answer to GET `path`."""
        match path.partition("?")[0]:
            case "/metrics":
                return Page(HTTPStatus.OK, self._render(), CONTENT_TYPE)
            case "/livez":
                return self._livez()
            case "/readyz":
                return self._readyz()
            case "/":
                return Page(HTTPStatus.OK, INDEX)
        return Page(HTTPStatus.NOT_FOUND, b"not found; see /\n")

    def _livez(self) -> Page:
        age_s = time.monotonic() - self._last
        alive = age_s <= self._stale_s
        line = f"{'ok' if alive else 'stalled'}: last tick {age_s:.1f} s ago (limit {self._stale_s:g} s)\n"
        return Page(HTTPStatus.OK if alive else HTTPStatus.SERVICE_UNAVAILABLE, line.encode())

    def _readyz(self) -> Page:
        if self._ready:
            return Page(HTTPStatus.OK, b"ok\n")
        return Page(HTTPStatus.SERVICE_UNAVAILABLE, b"not ready: no complete tick yet\n")


class _Server(ThreadingHTTPServer):
    """A thread per connection, but never more than MAX_CONNECTIONS."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, host: str, port: int, page: Callable[[str], Page]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.page = page
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's asks the resolver for a name that nobody needs

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer on a thread of its own, or turn the client away at once."""
        if not self._free.acquire(blocking=False):
            request.setblocking(False)
            with contextlib.suppress(OSError):  # it need not listen
                request.send(BUSY)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread to be had
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news; anything else is a bug, and its traceback goes to stderr."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "nodeagent"
    sys_version = ""
    timeout = TIMEOUT_S

    def setup(self) -> None:
        """Read the whole head first, within one time limit for all of it: bytes may come one by one."""
        super().setup()
        head = _read_head(self.connection)
        if len(head) >= MAX_HEAD_BYTES:
            self.wfile.write(TOO_LONG)
            head = b""
        self.rfile = io.BufferedReader(io.BytesIO(head))  # an empty one ends the connection

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Requests are not logged: a client must not be able to fill the agent's log."""

    def _answer(self, *, with_body: bool) -> None:
        page = self.server.page(self.path)
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.end_headers()
        if with_body:
            self.wfile.write(page.body)


def _read_head(connection: socket.socket) -> bytes:
    """The request up to the empty line; too long: MAX_HEAD_BYTES of it, too late or cut off: nothing."""
    end, head = time.monotonic() + TIMEOUT_S, b""
    while b"\r\n\r\n" not in head and b"\n\n" not in head and len(head) < MAX_HEAD_BYTES:
        connection.settimeout(max(0.001, end - time.monotonic()))
        try:
            data = connection.recv(MAX_HEAD_BYTES - len(head))
        except OSError:
            return b""
        if not data:
            return b""
        head += data
    connection.settimeout(TIMEOUT_S)
    return head


def _parse(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise Misconfigured(f"http address {address!r}: {host!r} is not an IP address", HINT) from None
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise Misconfigured(f"http address {address!r}: {port!r} is not a port", HINT)
    return host, int(port)
