"""[controller]: addresses, what goes together, and what the node is called."""

from __future__ import annotations

import pytest

from nodeagent.config import load
from nodeagent.model.controller import Where, node_name, where
from nodeagent.model.errors import Misconfigured

TLS = {"tls_ca": "/ca", "tls_cert": "/cert", "tls_key": "/key"}


def complaint(**values: str) -> str:
    with pytest.raises(Misconfigured) as caught:
        load(None, env={}, overrides={f"controller.{key}": value for key, value in values.items()})
    return str(caught.value)


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("unix:/run/c.sock", Where("unix:/run/c.sock", "", 0, True)),
        ("/run/c.sock", Where("unix:/run/c.sock", "", 0, True)),
        ("127.0.0.1:9470", Where("dns:///127.0.0.1:9470", "127.0.0.1", 9470, True)),
        ("[::1]:9470", Where("dns:///[::1]:9470", "::1", 9470, True)),
        ("localhost:9470", Where("dns:///localhost:9470", "localhost", 9470, True)),
        ("10.0.0.1:1", Where("dns:///10.0.0.1:1", "10.0.0.1", 1, False)),
        ("batch.infra.svc:443", Where("dns:///batch.infra.svc:443", "batch.infra.svc", 443, False)),
        ("xds:443", Where("dns:///xds:443", "xds", 443, False)),  # a name, no scheme of gRPC
    ],
)
def test_addresses(address: str, place: Where) -> None:
    assert where(address) == place


@pytest.mark.parametrize(
    "address",
    ["", "host", "host:", ":1", "host:0", "host:65536", "host:1e3", "::1:5", "[1.2.3.4]:5", "a b:1", "-a:1",
     "unix:", "unix:c.sock", "unix:/a/", "unix:/" + "a" * 107, "https://a:1", "a_b:1", "a..b:1", "host:٣"],
)  # fmt: skip
def test_what_is_no_address(address: str) -> None:
    assert where(address) is None


def test_only_this_host_is_reached_without_tls() -> None:
    assert "needs TLS" in complaint(address="10.0.0.1:9470")
    assert "needs TLS" in complaint(address="localhost.example.org:9470")
    assert "takes HOST:PORT" in complaint(address="nowhere")
    assert "is a unix socket" in complaint(address="unix:/c.sock", **TLS)
    config = load(
        None, env={}, overrides={f"controller.{k}": v for k, v in {"address": "a:1", **TLS}.items()}
    )
    assert config.settings.controller.address == "a:1"


def test_nobody_directs_without_proving_who_it_is() -> None:
    assert "nobody proves who it is" in complaint(address="127.0.0.1:9470", directives="true")
    for rest in ({"address": "unix:/c.sock"}, {"address": "127.0.0.1:9470", **TLS}, {}):
        values = {f"controller.{k}": v for k, v in {"directives": "true", **rest}.items()}
        assert load(None, env={}, overrides=values).settings.controller.directives


def test_what_goes_together() -> None:
    assert complaint(tls_cert="/cert").endswith("controller.tls_cert needs controller.tls_ca too")
    assert complaint(tls_ca="/ca", tls_cert="/cert").endswith("needs controller.tls_key too")
    assert "absolute path" in complaint(**{**TLS, "tls_key": "key"})
    assert "is for TLS" in complaint(server_name="batch")
    assert "is shorter than" in complaint(backoff_s="5", backoff_max_s="1")
    assert "is shorter than" in complaint(report_s="5", heartbeat_s="1")


def test_a_node_is_called_what_it_is_configured_to_be_then_by_the_environment_then_by_its_host() -> None:
    env = {"NODEAGENT_NODE_NAME": "own", "NODE_NAME": "kubernetes"}
    assert node_name("set", env, "host") == "set"
    assert node_name("", env, "host") == "own"
    assert node_name("", {"NODE_NAME": "kubernetes", "NODEAGENT_NODE_NAME": ""}, "host") == "kubernetes"
    assert node_name("", {}, "host") == "host"
