"""Prometheus' node_exporter, scraped once a tick: it has nothing per pod; it is here for what that costs.

That of this machine, else Debian's, unpacked into a cache: nothing is installed and no service started.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import urllib.request
from pathlib import Path

from tests.bench.cost import clock
from tests.live.running import until

PACKAGE = PROGRAM = "prometheus-node-exporter"
_LIMIT_S = 120.0


class Exporter:
    """It, listening on the loopback; `close` it. OSError or SubprocessError where it cannot be had."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._address = f"127.0.0.1:{free.getsockname()[1]}"
        self._process = subprocess.Popen(
            [program(), f"--web.listen-address={self._address}"], stderr=subprocess.DEVNULL
        )
        try:
            until(self._answers, "node_exporter")
        except AssertionError as error:
            self.close()
            raise OSError(str(error)) from error

    def tick(self) -> float:
        """CPU seconds that a scrape takes it."""
        before = clock.cpu_s(self._process.pid)
        self._scrape()
        return clock.cpu_s(self._process.pid) - before

    def resident_mib(self) -> float:
        return clock.resident_mib(self._process.pid)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            return bool(self._scrape())
        except OSError:
            return False

    def _scrape(self) -> bytes:
        with urllib.request.urlopen(f"http://{self._address}/metrics", timeout=10) as answer:
            body: bytes = answer.read()
        return body


def program() -> str:
    """Where it is, fetched the first time."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "nodeagent-tests")
    place = home / "node-exporter"
    here = shutil.which(PROGRAM) or str(place / "usr/bin" / PROGRAM)
    if not Path(here).exists():
        home.mkdir(parents=True, exist_ok=True)
        with (home / "node-exporter-lock").open("w") as lock, tempfile.TemporaryDirectory(dir=home) as made:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not place.exists():
                _said("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", PACKAGE, cwd=made)
                _said("dpkg", "-x", str(next(Path(made).glob("*.deb"))), f"{made}/unpacked")
                Path(made, "unpacked").rename(place)
    return here


def _said(*words: str, cwd: str | None = None) -> None:
    subprocess.run(words, cwd=cwd, capture_output=True, timeout=_LIMIT_S, check=True)
