"""A server that answers GET /pods as a kubelet does, or as one should not: real sockets, real TLS."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

TOKEN = "eyJhbGciOiJSUzI1NiJ9.na-test.c2lnbmF0dXJl"


class Certificates:
    """A certificate authority of this test in a directory; needs the openssl command."""

    def __init__(self, home: Path, name: str = "ca") -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.ca, self._ca_key = home / f"{name}.crt", home / f"{name}.key"
        self._run(
            "req", "-x509", "-subj", f"/CN={name}", "-days", "1", "-keyout", self._ca_key, "-out", self.ca,
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign",
        )  # fmt: skip

    def server(self, names: str = "IP:127.0.0.1", name: str = "kubelet") -> tuple[Path, Path]:
        """(certificate, key) of a server with these subjectAltNames."""
        cert, key, extensions = (self.home / f"{name}.{end}" for end in ("crt", "key", "ext"))
        request = self.home / f"{name}.csr"
        extensions.write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth\n")
        self._run("req", "-subj", "/CN=system:node:node-7", "-keyout", key, "-out", request)
        self._run(
            "x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self._ca_key, "-days", "1",
            "-set_serial", str(time.monotonic_ns()), "-extfile", extensions, "-out", cert,
        )  # fmt: skip
        return cert, key

    def _run(self, kind: str, *words: str | Path) -> None:
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"] if kind == "req" else []
        subprocess.run(["openssl", kind, *new, *words], check=True, capture_output=True)


class Kubelet:
    """What it answers may be changed at any time; `asked` counts the requests with the right token."""

    def __init__(self) -> None:
        self.token = TOKEN
        self.body = b'{"kind":"PodList","items":[]}'
        self.status = 200
        self.announce: int | None = None  # a Content-Length that is not true
        self.drip_s = 0.0  # wait so long before each byte
        self.hang = threading.Event()  # set: nothing is answered until it is cleared
        self.asked = 0
        self.tokens: list[str] = []
        self.url = ""

    def answer(self, request: http.server.BaseHTTPRequestHandler, *, secure: bool) -> None:
        """One GET."""
        given = request.headers.get("Authorization", "")
        self.tokens.append(given)
        while self.hang.is_set():
            time.sleep(0.01)
        status, body = self.status, self.body
        if request.path != "/pods":
            status, body = 404, b"404 page not found"
        elif secure and given != f"Bearer {self.token}":
            status, body = 401, b"Unauthorized"
        self.asked += status == 200
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body) if self.announce is None else self.announce))
        request.end_headers()
        if self.drip_s:
            for byte in body:
                request.wfile.write(bytes([byte]))
                time.sleep(self.drip_s)
        else:
            request.wfile.write(body)


@contextlib.contextmanager
def kubelet(certificate: tuple[Path, Path] | None = None) -> Iterator[Kubelet]:
    """A kubelet on a port of its own: over https with this certificate, else the read-only port."""
    made = Kubelet()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                made.answer(self, secure=certificate is not None)
            self.close_connection = True

        def log_message(self, *_words: object) -> None:
            """Say nothing."""

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_words: object) -> None:
            """A client that does not trust us hangs up."""

        def finish_request(self, request: object, address: object) -> None:
            if certificate is not None:  # anew for each, so that a renewed certificate is served
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*certificate)
                request = context.wrap_socket(request, server_side=True)  # type: ignore[arg-type]
            super().finish_request(request, address)  # type: ignore[arg-type]

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    made.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_address[1]}"
    try:
        yield made
    finally:
        made.hang.clear()
        server.shutdown()
        server.server_close()
        thread.join()
