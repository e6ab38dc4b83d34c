"""The link over TLS: with the right certificates, with wrong ones, and with files that are replaced."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import grpc
from structlog.testing import capture_logs

from nodeagent.config import load
from nodeagent.doctor.controller import controller
from nodeagent.doctor.finding import Finding, Host, Status
from nodeagent.rpc.tls import TlsFiles
from tests.unit.certificates import Authority, Secret, needs_openssl
from tests.unit.collectors import collecting, linked
from tests.unit.rpc_clients import eventually, offering
from tests.unit.test_link_trouble import lost_logs

pytestmark = needs_openssl


def server_credentials(authority: Authority, san: str) -> grpc.ServerCredentials:
    return credentials_of(authority.issue(san))


def credentials_of(files: TlsFiles) -> grpc.ServerCredentials:
    certificate, key, ca = (Path(path).read_bytes() for path in files)
    return grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=True)


def client_files(authority: Authority) -> dict[str, Any]:
    return settings_of(authority.issue("URI:spiffe://cluster/node-7"))


def settings_of(files: TlsFiles) -> dict[str, Any]:
    """Of the link."""
    return {"tls_ca": files.ca, "tls_cert": files.certificate, "tls_key": files.key}


def examined(address: str, **values: str) -> Finding:
    overrides = {"controller.address": address, **{f"controller.{k}": v for k, v in values.items()}}
    config = load(None, env={}, overrides=overrides)
    (finding,) = controller(Host("/", config, None))
    return finding


def test_both_sides_know_each_other(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = client_files(authority)
    with collecting("127.0.0.1:0", None, server_credentials(authority, "IP:127.0.0.1")) as (
        collector,
        address,
    ):
        with linked(address, **files) as link:
            link.publish(offering(1, 3.0))
            assert eventually(lambda: link.seen().connected)
            assert collector.streams[0].cores() == 3.0
        found = examined(address, **files)
    assert found.status is Status.OK
    assert "TLSv1.3, certificate valid until" in found.found


def test_a_server_of_another_name_is_not_talked_to_unless_that_name_is_expected(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = client_files(authority)
    with collecting("127.0.0.1:0", None, server_credentials(authority, "DNS:batch")) as (collector, address):
        with lost_logs() as whys, linked(address, **files) as link:
            link.publish(offering(1, 3.0))
            assert eventually(lambda: len(whys) >= 2)
        assert collector.streams == []
        assert "UNAVAILABLE" in whys[0]
        assert examined(address, **files).status is Status.WARN
        with linked(address, **files, server_name="batch") as link:
            link.publish(offering(1, 3.0))
            assert eventually(lambda: link.seen().connected)
        assert examined(address, **files, server_name="batch").status is Status.OK


def test_neither_a_stranger_s_server_nor_a_stranger_s_certificate_is_taken(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    mixed = {**client_files(theirs), "tls_ca": str(ours.ca)}
    with collecting("127.0.0.1:0", None, server_credentials(ours, "IP:127.0.0.1")) as (collector, address):
        for files in (client_files(theirs), mixed):
            with lost_logs() as whys, linked(address, **files) as link:
                link.publish(offering(1, 3.0))
                assert eventually(lambda here=whys: len(here) >= 2)  # type: ignore[misc]
                assert link.seen().connects == 0
        assert collector.streams == []
        assert "unable to get local issuer" in examined(address, **client_files(theirs)).found
        assert examined(address, **mixed).fix.startswith("the controller must trust who signed")
        assert examined(address).fix.startswith("does it want TLS?")


def issued(authority: Authority, *trusted: Authority) -> TlsFiles:
    """A certificate of an agent that trusts these, or who has signed it."""
    files = authority.issue("URI:spiffe://cluster/node-7")
    Path(files.ca).write_bytes(b"".join(each.ca.read_bytes() for each in trusted or (authority,)))
    return files


def test_a_new_certificate_is_used_as_soon_as_it_is_there_and_no_half_of_one(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    secret = Secret(tmp_path / "secret", issued(authority))
    files = settings_of(secret.files)
    with (
        collecting("127.0.0.1:0", None, server_credentials(authority, "IP:127.0.0.1")) as (
            collector,
            address,
        ),
        capture_logs() as logs,
        linked(address, **files) as link,
    ):
        link.publish(offering(1, 3.0))
        assert eventually(lambda: link.seen().connected)
        before = link.seen().tls_not_after_unix
        assert before is not None and before > time.time() + 86_400
        good = issued(authority)
        secret.swap(good._replace(key=authority.issue("DNS:other").key))
        assert eventually(lambda: bool(named(logs, "tls.refused")))
        for path in (files["tls_cert"], files["tls_key"]):
            os.unlink(path)
        time.sleep(0.3)  # several looks at the files
        link.publish(offering(2, 4.0))
        assert eventually(lambda: collector.streams[0].cores() == 4.0)
        for path, name in ((files["tls_cert"], "certificate"), (files["tls_key"], "key")):
            os.symlink(f"..data/{name}", path)
        secret.swap(good)
        assert eventually(lambda: link.seen().connects == 2)
        refused, reloaded = named(logs, "tls.refused"), named(logs, "tls.reloaded")
    assert len(collector.streams) == 2
    assert "is not the key of" in refused[0]["why"] and len(refused) == 2  # that, and a file that is missing
    assert len(reloaded) == 1 and reloaded[0]["of"] == "controller"
    assert [each["why"] for each in named(logs, "link.lost")] == ["the files of TLS are others now"]


def test_a_link_whose_files_are_missing_waits_for_them(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files: dict[str, Any] = {f"tls_{name}": str(tmp_path / "later" / name) for name in ("ca", "cert", "key")}
    credentials = server_credentials(authority, "IP:127.0.0.1")
    with (
        collecting("127.0.0.1:0", None, credentials) as (_, address),
        lost_logs() as whys,
        linked(address, **files) as link,
    ):
        link.publish(offering(1, 3.0))
        assert eventually(lambda: len(whys) >= 3)
        assert set(whys) == {whys[0]} and "No such file or directory" in whys[0]
        assert link.seen().tls_not_after_unix is None
        (tmp_path / "later").mkdir()
        for key, path in client_files(authority).items():
            shutil.copy(path, files[key])
        assert eventually(lambda: link.seen().connected)


def test_a_controller_whose_ca_is_trusted_no_more_is_left(tmp_path: Path) -> None:
    old = Authority(tmp_path, "old")
    new = Authority(tmp_path, "new")
    secret = Secret(tmp_path / "secret", issued(old))
    files = settings_of(secret.files)
    both = old.issue("IP:127.0.0.1")
    Path(both.ca).write_bytes(old.ca.read_bytes() + new.ca.read_bytes())
    credentials = credentials_of(both)
    with (
        collecting("127.0.0.1:0", None, credentials) as (collector, address),
        linked(address, **files) as link,
    ):
        link.publish(offering(1, 3.0))
        assert eventually(lambda: link.seen().connected)
        secret.swap(issued(new, old, new))
        assert eventually(lambda: link.seen().connects == 2)
        secret.swap(issued(new))
        assert eventually(collector.streams[1].ended.is_set)
        assert eventually(lambda: link.seen().losses >= 4)  # it tries in vain
        assert len(collector.streams) == link.seen().connects == 2


def named(logs: list[Any], event: str) -> list[Any]:
    return [each for each in logs if each["event"] == event]


def test_the_doctor_says_what_is_wrong_with_a_controller(tmp_path: Path) -> None:
    with collecting(f"unix:{tmp_path}/c.sock") as (_, address):
        assert examined(address).found == f"{address} answers, plain"
    assert examined(f"unix:{tmp_path}/none.sock").found.endswith("No such file or directory")
    assert examined("127.0.0.1:1").found.endswith("Connection refused")
    files = {"tls_ca": "/no/ca", "tls_cert": "/no/cert", "tls_key": "/no/key"}
    found = examined("10.0.0.1:1", **files)
    assert found.found == "the files of TLS cannot be used: No such file or directory"
    authority = Authority(tmp_path)
    own, other = client_files(authority), client_files(authority)
    found = examined("10.0.0.1:1", **{**own, "tls_key": other["tls_key"]})
    assert "KEY_VALUES_MISMATCH" in found.found
