"""What the files of TLS may hold, and what is told of it."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from nodeagent.model.errors import Failed, Garbled
from nodeagent.rpc.tls import Identity, TlsFiles
from nodeagent.rpc.x509 import certificates, validity_unix
from tests.unit.certificates import Authority, needs_openssl

pytestmark = needs_openssl


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def node(authority: Authority) -> TlsFiles:
    return authority.issue("IP:127.0.0.1", "DNS:node-7")


def test_no_prefix_of_a_certificate_and_no_other_bytes_have_a_time(node: TlsFiles) -> None:
    (der,) = certificates(Path(node.certificate).read_bytes())
    since, until = validity_unix(der)
    assert until - since == 30 * 86400.0
    for size in range(0, len(der), 7):
        with pytest.raises(Garbled):
            validity_unix(der[:size])


@pytest.mark.parametrize(
    ("days", "told"),
    [(60, []), (1, []), (-1, ["tls.expired"])],
)
def test_the_end_of_a_certificate_is_told_in_time(authority: Authority, days: int, told: list[str]) -> None:
    identity = Identity(authority.issue("IP:127.0.0.1", days=days))
    assert abs(identity.left_s - days * 86400.0) < 60.0
    identity.refresh()
    assert [news.name for news in identity.news] == told


def test_each_step_towards_the_end_is_told_once(node: TlsFiles) -> None:
    told, now = [], time.time()
    end = Identity(node).material.not_after_unix  # 30 days from the beginning
    identity = Identity(node, lambda: now)
    for left in range(29, -2, -1):
        now = end - left * 86400.0 + 1
        identity.refresh()
        told += [(left, identity.news.popleft().name) for _ in range(len(identity.news))]
    assert told == [(6, "tls.expires"), (1, "tls.expires"), (0, "tls.expired")]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda files: files._replace(key=files.certificate), "is not the key of"),
        (lambda files: files._replace(certificate="/none/tls.crt"), "/none/tls.crt: No such file"),
        (lambda files: files._replace(ca=files.key), "holds no CA certificates"),
        (lambda files: files._replace(certificate=files.key), "is not the key of"),
    ],
)
def test_files_that_cannot_be_used_stop_the_start_with_a_hint(node: TlsFiles, change: Any, says: str) -> None:
    with pytest.raises(Failed, match=says) as caught:
        Identity(change(node))
    assert caught.value.hint
    assert "PRIVATE" not in str(caught.value)


@pytest.mark.parametrize("left", [0, 1, 2])
def test_without_descriptors_the_files_from_before_serve_on(authority: Authority, left: int) -> None:
    files = authority.issue("DNS:node-7")
    identity = Identity(files)
    before = identity.material
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        full: list[int] = []
        with contextlib.suppress(OSError):
            while True:
                full.append(os.dup(0))
                stack.callback(os.close, full[-1])
        resource.setrlimit(resource.RLIMIT_NOFILE, (256 + left, hard))
        os.utime(files.certificate)
        assert not identity.refresh()
        assert identity.material is before
    identity.refresh()
    assert not identity.complaint


def test_a_bundle_of_cas_may_have_comments_in_any_language(node: TlsFiles, tmp_path: Path) -> None:
    bundle = tmp_path / "ca.crt"
    bundle.write_bytes("# Főtanúsítvány\n".encode() + Path(node.ca).read_bytes())
    assert len(Identity(node._replace(ca=str(bundle))).material.cas) == 1


def test_a_certificate_that_is_over_takes_no_valid_one_s_place(authority: Authority, tmp_path: Path) -> None:
    files = TlsFiles(*(str(tmp_path / name) for name in ("tls.crt", "tls.key", "ca.crt")))
    clock = [time.time() + 60.0]  # later than what is issued now

    def put(found: TlsFiles) -> TlsFiles:
        for path, source in zip(files, found, strict=True):
            shutil.copy(source, path)
        return files

    identity = Identity(put(authority.issue("DNS:node-7", days=30)), lambda: clock[0])
    before = identity.material
    put(authority.issue("DNS:node-7", days=-1))
    assert [identity.refresh() for _ in range(3)] == [False] * 3
    assert identity.material is before
    assert [(news.name, "which is not now" in str(news.keys["why"])) for news in identity.news] == [
        ("tls.refused", True)
    ]
    clock[0] += 31 * 86_400.0
    assert identity.refresh()  # no worse than the one before, by now
    assert identity.complaint == ""
