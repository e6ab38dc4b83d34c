"""The keys of [grpc] that give access, and the files and options of TLS on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from nodeagent.cli import cli
from nodeagent.config import load
from nodeagent.doctor.finding import Host, Status
from nodeagent.doctor.process import certificate
from nodeagent.model.errors import AgentError, Misconfigured
from nodeagent.rpc.caller import Access
from nodeagent.rpc.server import RpcServer
from nodeagent.rpc.tls import Identity
from tests.unit.certificates import Authority, needs_openssl
from tests.unit.nic_samples import nic_tick
from tests.unit.rpc_clients import serving

TLS = {"tls_address": "[::]:9466", "tls_cert": "/c", "tls_key": "/k", "tls_ca": "/a", "readers": "a.example"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tls_key": ""}, "grpc.tls_address needs grpc.tls_key too"),
        ({"tls_cert": "relative"}, "grpc.tls_cert takes an absolute path"),
        ({"tls_ca": "/a/../b"}, "grpc.tls_ca takes an absolute path"),
        ({"readers": ""}, "grpc.tls_address lets nobody in without grpc.readers or grpc.directors"),
        ({"directors": "CN=controller"}, "a common name is no identity"),
        ({"readers": '["/"]'}, "grpc.readers has an empty glob"),
        ({"tls_address": "localhost:9466"}, "grpc.tls_address takes ADDRESS:PORT"),
        ({"tls_address": ":9466"}, "grpc.tls_address takes ADDRESS:PORT"),
        ({"address": "0.0.0.0:9465"}, "grpc.address is plain TCP, so it takes a loopback address only"),
        ({"peer_calls_per_s": "700"}, "grpc.peer_calls_per_s = 700 is more than grpc.calls_per_s = 600"),
        ({"director_uids": "root"}, "takes a whole number"),
        ({"director_uids": "-1"}, "0 to 4294967294"),
    ],
)
def test_access_that_cannot_be_meant_is_refused(change: dict[str, str], says: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        load(None, env={}, overrides={f"grpc.{key}": value for key, value in {**TLS, **change}.items()})
    assert says in str(caught.value)


def test_lists_of_names_and_of_user_ids_are_taken_from_a_text() -> None:
    given = {"grpc.director_uids": "0, 1000", "grpc.reader_uids": "[7]", "grpc.readers": "a.b,spiffe://c/*"}
    grpc = load(None, env={}, overrides=given).settings.grpc
    assert (grpc.director_uids, grpc.reader_uids) == ((0, 1000), (7,))
    assert grpc.readers == ("a.b", "spiffe://c/*")


@needs_openssl
def test_a_command_asks_by_tls_and_says_what_is_wrong(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    node, reader, other = (authority.issue(name) for name in ("IP:127.0.0.1", "DNS:a.b", "DNS:other"))
    tls = Identity(node)
    access = Access(readers=("a.b",))
    with serving("", tls=tls, tls_address="127.0.0.1:0", access=access) as server:
        server.publish(nic_tick())
        assert '"nics"' in asked(server, *reader)
        assert "has no role here" in asked(server, *other)
        assert "is not the key of" in asked(server, reader.certificate, other.key, reader.ca)
        assert "no TLS with the agent" in asked(server, *reader, host="localhost")
        assert '"nics"' in asked(server, *reader, "--tls-name", "127.0.0.1", host="localhost")


def asked(server: RpcServer, cert: str, key: str, ca: str, *more: str, host: str = "127.0.0.1") -> str:
    """What `nodeagent nic` says, or how it fails."""
    port = server.tls_address.rpartition(":")[2]
    words = ["nic", "-o", "json", "--address", f"{host}:{port}", *more]
    done = CliRunner().invoke(cli, [*words, "--tls-cert", cert, "--tls-key", key, "--tls-ca", ca])
    if isinstance(done.exception, AgentError):
        assert done.exception.hint
        return str(done.exception)
    return done.output


@needs_openssl
@pytest.mark.parametrize(("days", "status"), [(30, Status.OK), (-1, Status.FAIL)])
def test_the_doctor_looks_at_the_certificate(tmp_path: Path, days: int, status: Status) -> None:
    cert, key, ca = Authority(tmp_path).issue("IP:127.0.0.1", days=days)
    files = {"tls_cert": cert, "tls_key": key, "tls_ca": ca}
    config = load(None, env={}, overrides={f"grpc.{k}": v for k, v in {**TLS, **files}.items()})
    (finding,) = certificate(Host("/", config, None))
    assert finding.status is status
    assert bool(finding.fix) == (status is Status.FAIL)
