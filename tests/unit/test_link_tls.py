"""The link over TLS: with the right certificates, with wrong ones, and with files that are replaced."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest

from nodeagent.config import load
from nodeagent.doctor.controller import controller
from nodeagent.doctor.finding import Finding, Host, Status
from tests.unit.collectors import collecting, linked
from tests.unit.rpc_clients import eventually, offering
from tests.unit.test_link_trouble import lost_logs

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


class Authority:
    """A CA and what it has signed, as PEM files."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self.directory = directory
        self.ca = directory / f"{name}.pem"
        self.key = directory / f"{name}.key"
        request = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
        openssl("req", "-x509", *request, "-keyout", self.key, "-out", self.ca, "-subj", f"/CN={name}")

    def sign(self, name: str, san: str) -> tuple[Path, Path]:
        """(certificate, key) for a subjectAltName such as "DNS:node-7"."""
        cert, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        request = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
        signer = ("-CA", self.ca, "-CAkey", self.key, "-addext", f"subjectAltName={san}")
        plain = ("-addext", "basicConstraints=critical,CA:FALSE")
        openssl(
            "req", "-x509", *request, *signer, *plain, "-keyout", key, "-out", cert, "-subj", f"/CN={name}"
        )
        return cert, key


def openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def server_credentials(authority: Authority, san: str) -> grpc.ServerCredentials:
    cert, key = authority.sign("server", san)
    pair = [(key.read_bytes(), cert.read_bytes())]
    return grpc.ssl_server_credentials(pair, authority.ca.read_bytes(), require_client_auth=True)


def client_files(authority: Authority, name: str = "agent") -> dict[str, Any]:
    cert, key = authority.sign(name, "URI:spiffe://cluster/node-7")
    return {"tls_ca": str(authority.ca), "tls_cert": str(cert), "tls_key": str(key)}


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
        for files in (client_files(theirs, "other"), mixed):
            with lost_logs() as whys, linked(address, **files) as link:
                link.publish(offering(1, 3.0))
                assert eventually(lambda here=whys: len(here) >= 2)  # type: ignore[misc]
                assert link.seen().connects == 0
        assert collector.streams == []
        assert "unable to get local issuer" in examined(address, **client_files(theirs, "other")).found
        assert examined(address, **mixed).fix.startswith("the controller must trust who signed")
        assert examined(address).fix.startswith("does it want TLS?")


def test_files_that_are_replaced_are_used_and_missing_ones_told_of(tmp_path: Path) -> None:
    """As Kubernetes does it: a link to a directory is pointed at another directory."""
    (tmp_path / "one").mkdir()
    authority = Authority(tmp_path)
    files = client_files(authority)
    for key, name in (("tls_ca", "ca.pem"), ("tls_cert", "cert.pem"), ("tls_key", "key.pem")):
        shutil.copy(files[key], tmp_path / "one" / name)
        files[key] = str(tmp_path / "data" / name)
    (tmp_path / "data").symlink_to("one")
    with (
        collecting("127.0.0.1:0", None, server_credentials(authority, "IP:127.0.0.1")) as (
            collector,
            address,
        ),
        lost_logs() as whys,
        linked(address, **files) as link,
    ):
        link.publish(offering(1, 3.0))
        assert eventually(lambda: link.seen().connected)
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        (tmp_path / "new").symlink_to("two")
        os.replace(tmp_path / "new", tmp_path / "data")
        assert eventually(lambda: link.seen().connects == 2)
        assert whys == ["the files of TLS are others now"]
        shutil.rmtree(tmp_path / "two")
        assert eventually(lambda: "ca.pem: No such file or directory" in whys[-1])
    assert len(collector.streams) == 2


def test_the_doctor_says_what_is_wrong_with_a_controller(tmp_path: Path) -> None:
    with collecting(f"unix:{tmp_path}/c.sock") as (_, address):
        assert examined(address).found == f"{address} answers, plain"
    assert examined(f"unix:{tmp_path}/none.sock").found.endswith("No such file or directory")
    assert examined("127.0.0.1:1").found.endswith("Connection refused")
    files = {"tls_ca": "/no/ca", "tls_cert": "/no/cert", "tls_key": "/no/key"}
    found = examined("10.0.0.1:1", **files)
    assert found.found == "the files of TLS cannot be used: No such file or directory"
    authority = Authority(tmp_path)
    own, other = client_files(authority), client_files(authority, "other")
    found = examined("10.0.0.1:1", **{**own, "tls_key": other["tls_key"]})
    assert "KEY_VALUES_MISMATCH" in found.found
