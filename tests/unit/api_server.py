"""A small Kubernetes API server: TLS, tokens, one node, and merge patches of its status done for real."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

NODE = "node-1"
PATH = f"/api/v1/nodes/{NODE}/status"
TOKEN = "first-token"
MERGE = "application/merge-patch+json"


def merged(target: object, patch: object) -> Any:
    """RFC 7386."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


class ApiServer:
    """`node` is what it has, `patches` what came and when; `refusing` is an answer, 0 for none."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.token = TOKEN
        self.refusing = 0
        self.silent_s = 0.0
        self.patches: list[tuple[float, dict[str, Any]]] = []
        self.requests: list[str] = []
        self.node: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": NODE, "annotations": {"kept": "yes"}},
            "status": {"capacity": {"cpu": "4"}, "allocatable": {"cpu": "4"}},
        }
        _certificate(home)
        self.url = ""

    @property
    def offered(self) -> tuple[str | None, str | None]:
        """The two resources, the same in capacity and allocatable."""
        status = self.node["status"]
        names = ("nodeagent.io/batch-cpu", "nodeagent.io/batch-memory")
        found = [tuple(status[of].get(name) for name in names) for of in ("capacity", "allocatable")]
        assert found[0] == found[1]
        cpu, memory = found[0]
        return cpu, memory

    def kubeconfig(self) -> Path:
        """A file for $KUBECONFIG, whose token is in a file of its own, as that of a service account."""
        (self.home / "token").write_text(self.token)
        user = {"tokenFile": str(self.home / "token")}
        cluster = {"server": self.url, "certificate-authority": str(self.home / "ca.crt")}
        file = self.home / "kubeconfig"
        file.write_text(
            json.dumps(
                {
                    "current-context": "test",
                    "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u"}}],
                    "clusters": [{"name": "c", "cluster": cluster}],
                    "users": [{"name": "u", "user": user}],
                }
            )
        )
        return file

    def answer(self, path: str, kind: str, auth: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """One PATCH: what the API server's authentication, authorization and node strategy would say."""
        self.requests.append(path)
        time.sleep(self.silent_s)
        if auth != f"Bearer {self.token}":
            return 401, _status(401, "Unauthorized")
        if self.refusing:
            return self.refusing, _status(self.refusing, "Forbidden")
        if path != PATH:
            return 404, _status(404, "NotFound")
        if kind != MERGE:
            return 415, _status(415, "UnsupportedMediaType")
        patch = json.loads(body)
        self.node = merged(self.node, patch)
        self.patches.append((time.monotonic(), patch))
        return 200, self.node


@contextlib.contextmanager
def api_server(home: Path, port: int = 0) -> Iterator[ApiServer]:
    """One that listens on loopback until it is left."""
    api = ApiServer(home)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PATCH(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kind, auth = self.headers["Content-Type"], self.headers.get("Authorization", "")
            code, answer = api.answer(self.path.partition("?")[0], kind, auth, body)
            data = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home / "ca.crt", home / "ca.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    api.url = f"https://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()


def _status(code: int, reason: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "reason": reason,
        "code": code,
        "message": f"{reason} here",
        "metadata": {},
    }


def _certificate(home: Path) -> None:
    if (home / "ca.crt").exists():
        return
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-days", "2", "-subj", "/CN=test"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", home / "ca.key", "-out", home / "ca.crt"]
    subprocess.run([*words, *map(str, names)], check=True, capture_output=True)
