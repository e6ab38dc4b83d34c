"""Tools that come in packages are asked for once, and where they cannot be had that is said soon."""

from __future__ import annotations

import http.server
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaged import NotToBeHad, Wheel, unpacked


class Index(http.server.BaseHTTPRequestHandler):
    """A package index that has nothing."""

    asked: int = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Index]]:
    """The only one that pip knows, and a cache that is empty."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield Index
    server.shutdown()
    server.server_close()


def test_a_package_that_cannot_be_had_is_asked_for_once(index: type[Index]) -> None:
    def unpack(_wheel: zipfile.ZipFile, _into: Path) -> None:
        raise AssertionError("there is none")

    wheel = Wheel("nodeagent-has-no-such-package", "1.0", "0" * 64, unpack)
    with pytest.raises(NotToBeHad, match="pip has no nodeagent-has-no-such-package") as first:
        unpacked(wheel)
    asked = index.asked
    assert asked > 0
    with pytest.raises(NotToBeHad) as second:
        unpacked(wheel)
    assert str(second.value) == str(first.value)
    assert index.asked == asked
