"""The servers that are disturbed: each one process on one CPU, on loopback, with a directory of its own."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.eval.places import Place
from tests.bench.eval.tools import Tools
from tests.live.running import until

SERVER = Path(__file__).parent.parent / "request_server.py"
BITS_BYTES = 1 << 20  # read whole for each request
PAGE_BYTES = 48 << 10  # compressed anew for each request
WORK_MS = 1.5
_NGINX = """
daemon off; master_process off; worker_processes 1; pid {home}/nginx.pid; error_log {home}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1d;
  gzip on; gzip_types text/html; gzip_comp_level 6; default_type text/html;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  server {{ listen 127.0.0.1:{port}; root {home}; }}
}}
"""


@dataclass(frozen=True)
class Program:
    """How a victim is started and asked. `needs` is of tools.PACKAGES, "" for what is bundled.

    `request_cores` is what it says that it needs: about twice what it uses at this load.
    """

    needs: str
    protocol: str
    per_s: float
    request_cores: float
    words: Callable[[Tools, Path, int], list[str]]


def _redis(tools: Tools, home: Path, port: int) -> list[str]:
    return [tools.path("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(home),
            "--save", "", "--daemonize", "no"]  # fmt: skip


def _redis_write(tools: Tools, home: Path, port: int) -> list[str]:
    return [*_redis(tools, home, port), "--appendonly", "yes", "--appendfsync", "always",
            "--auto-aof-rewrite-percentage", "0"]  # fmt: skip


def _nginx(tools: Tools, home: Path, port: int) -> list[str]:
    luck = random.Random(7)
    words = "".join(luck.choice("aeinorst ") for _ in range(PAGE_BYTES // 8)) * 8
    (home / "page.html").write_text(words)
    (home / "nginx.conf").write_text(_NGINX.format(home=home, port=port))
    return [
        tools.path("nginx"),
        "-p",
        str(home),
        "-c",
        str(home / "nginx.conf"),
        "-e",
        str(home / "error.log"),
    ]


def _python(tools: Tools, home: Path, port: int) -> list[str]:
    return [sys.executable, "-I", "-S", str(SERVER), "1", str(WORK_MS), str(port)]


PROGRAMS = {
    "redis": Program("redis-server", "redis", 400.0, 0.2, _redis),
    "redis-write": Program("redis-server", "redis-write", 200.0, 0.1, _redis_write),
    "nginx": Program("nginx", "http", 350.0, 0.2, _nginx),
    "python": Program("", "udp", 100.0, 0.3, _python),
}


def serve(name: str, where: Place, tools: Tools, home: Path, port: int) -> None:
    """Start a victim in its pod and wait until it answers; it ends with the pod."""
    home.mkdir(exist_ok=True)
    process = where.run(PROGRAMS[name].words(tools, home, port), tools.environment(), home / "said")
    until(lambda: _ready(name, port) or process.poll() is not None, f"{name} on port {port}")
    assert process.poll() is None, (home / "said").read_text()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now, for TCP and for UDP."""
    with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        port = int(tcp.getsockname()[1])
        udp.bind(("127.0.0.1", port))
        return port


def _ready(name: str, port: int) -> bool:
    """True when it answers; a redis is given what it will be asked for."""
    protocol = PROGRAMS[name].protocol
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, kind) as client:
        client.settimeout(1.0)
        client.connect(("127.0.0.1", port))
        if protocol == "udp":
            client.send(b"ping")
            return client.recv(64) == b"ping"
        if protocol == "redis":
            client.sendall(
                b"*3\r\n$3\r\nSET\r\n$4\r\nbits\r\n$%d\r\n" % BITS_BYTES + os.urandom(BITS_BYTES) + b"\r\n"
            )
            return client.recv(64) == b"+OK\r\n"
        return True
    return False
