"""Extended resources reach a real HTTPS server, by the real client, and leave it again."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from msgspec.structs import replace

from nodeagent.core.publish import VALID_UNTIL
from nodeagent.model.decision import Tick
from nodeagent.model.errors import Failed, Misconfigured
from nodeagent.model.publish import PublishSettings
from nodeagent.publish import Publisher, node_name
from nodeagent.publish import api_server as connecting
from tests.live.running import SLOWNESS, until
from tests.unit import samples
from tests.unit.api_server import NODE, ApiServer, api_server

SETTINGS = PublishSettings(enabled=True, node_name=NODE)


def test_without_its_package_it_is_a_wrong_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightkube", None)
    with pytest.raises(Misconfigured, match="lightkube") as refused:
        connecting(SETTINGS)
    assert refused.value.exit_code == 78, "systemd shall not start it again"
    assert "nodeagent[kubernetes]" in refused.value.hint


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    with api_server(tmp_path) as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig()))
        yield api


def offering(cores: float, gib: float, *, valid_s: float = 60.0, withdrawn: str = "") -> Tick:
    tick = samples.tick(1)
    capacity = tick.decision.capacity
    capacity = replace(
        capacity,
        cpu=replace(capacity.cpu, available=cores),
        memory=replace(capacity.memory, available=gib * (1 << 30)),
        valid_until_unix=time.time() + valid_s,
        withdrawn=withdrawn,
    )
    return replace(tick, decision=replace(tick.decision, capacity=capacity))


class Published:
    """A publisher that runs, with how its attempts went."""

    def __init__(self, settings: PublishSettings = SETTINGS) -> None:
        self.went: list[bool] = []
        self.publisher = Publisher(settings, connecting(settings, 1.0), self._count)
        self.publisher.start()
        self.publish, self.stop = self.publisher.publish, self.publisher.stop

    def _count(self, *, ok: bool) -> None:
        self.went.append(ok)


@pytest.fixture
def published(api: ApiServer) -> Iterator[Published]:
    running = Published()
    yield running
    running.stop()


def test_an_offer_reaches_the_node_and_leaves_with_the_agent(api: ApiServer, published: Published) -> None:
    before = api.node
    published.publish(offering(3.2, 4))
    until(lambda: bool(api.patches), "the first patch")
    assert api.offered == ("3200", str(4 << 30))
    annotations = api.node["metadata"]["annotations"]
    assert annotations["kept"] == "yes"
    assert annotations[VALID_UNTIL].endswith("Z")
    published.stop()
    assert api.node == before
    assert set(published.went) == {True}


def test_a_withdrawal_is_told_at_once_and_small_changes_are_not(api: ApiServer, published: Published) -> None:
    published.publish(offering(3.0, 4))
    until(lambda: api.offered[0] == "3000", "the first patch")
    published.publish(offering(2.9, 4))
    published.publish(offering(3.0, 4, withdrawn="the pods cannot be listed"))
    until(lambda: api.offered == ("0", "0"), "the withdrawal", timeout_s=5.0)
    assert len(api.patches) == 2


def test_an_offer_that_is_not_renewed_is_told_as_nothing(api: ApiServer, published: Published) -> None:
    published.publish(offering(3.0, 4, valid_s=1.0))
    until(lambda: api.offered[0] == "3000", "the first patch")
    until(lambda: api.offered == ("0", "0"), "the end of its time")


def test_of_many_offers_while_a_patch_is_under_way_the_newest_is_told(
    api: ApiServer, published: Published
) -> None:
    api.silent_s = 0.5
    published.publish(offering(4.0, 4))
    until(lambda: bool(api.requests), "the first patch")
    began = time.monotonic()
    for cores in range(3000, 1000, -1):
        published.publish(offering(cores / 1000, 4))
    published.publish(offering(0.5, 4))
    assert time.monotonic() - began < 5.0  # nobody waits for the API server
    until(lambda: api.offered[0] == "500", "the newest")
    assert len(api.patches) <= 4


def test_a_token_that_was_renewed_is_taken_from_its_file(api: ApiServer, published: Published) -> None:
    published.publish(offering(3.0, 4))
    until(lambda: api.offered[0] == "3000", "the first patch")
    api.token = "second-token"
    api.kubeconfig()
    published.publish(offering(1.0, 4))
    until(lambda: api.offered[0] == "1000", "a patch with the new token")
    assert set(published.went) == {True}


def test_what_fails_is_said_once_tried_again_and_said_to_be_over(api: ApiServer, tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        api.refusing = 403
        running = Published()
        running.publish(offering(3.0, 4))
        until(lambda: running.went[:2] == [False, False], "two attempts")
        api.refusing = 0
        until(lambda: api.offered[0] == "3000", "the patch")
        running.stop()
    said = [log for log in logs if log["event"].startswith("publish.")]
    assert [log["event"] for log in said] == ["publish.failed", "publish.resumed"]
    assert "403" in said[0]["why"] and NODE in said[0]["why"]
    assert "nodes/status" in said[0]["hint"]


def test_a_withdrawal_waits_for_no_pause_after_failures(api: ApiServer, published: Published) -> None:
    published.publish(offering(3.0, 4))
    until(lambda: api.offered[0] == "3000", "the first patch")
    api.refusing = 503
    published.publish(offering(1.0, 4))
    until(lambda: published.went.count(False) == 3, "pauses of 1 s, 2 s, then of 2 s to 4 s")
    api.refusing = 0
    began = time.monotonic()
    published.publish(offering(1.0, 4, withdrawn="recalled"))
    until(lambda: api.offered == ("0", "0"), "the withdrawal")
    assert api.patches[-1][0] - began < 1.5 * SLOWNESS


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",  # of a load balancer, that names no type
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\nnull",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ],
)
def test_whatever_answers_instead_of_an_api_server_is_one_failure(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        api.url = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig()))
        threading.Thread(target=_answer, args=(server, answer), daemon=True).start()
        send = connecting(SETTINGS, 5.0)()
        with pytest.raises(Failed, match="API server"):
            send({})


def _answer(server: socket.socket, answer: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(answer)


@pytest.mark.parametrize("text", ["[]", "null", "{", '{"clusters": 5}', "\0"])
def test_a_garbled_kubeconfig_is_one_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    (tmp_path / "kubeconfig").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with pytest.raises(Failed, match="no way to an API server"):
        connecting(SETTINGS, 1.0)()


def test_without_an_api_server_the_agent_stops_all_the_same(api: ApiServer, tmp_path: Path) -> None:
    api.silent_s = 600.0
    with structlog.testing.capture_logs() as logs:
        running = Published()
        running.publish(offering(3.0, 4))
        until(lambda: bool(running.went), "that it fails", timeout_s=30.0)
        began = time.monotonic()
        running.stop()
    assert time.monotonic() - began < 5.0
    assert running.went[0] is False
    failed = next(log for log in logs if log["event"] == "publish.failed")
    assert "no answer" in failed["why"] and "Timeout" in failed["why"]
    assert "token" not in str(logs)


def test_no_credentials_are_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    with structlog.testing.capture_logs() as logs:
        running = Published()
        running.publish(offering(3.0, 4))
        until(lambda: bool(running.went), "that it fails")
        running.stop()
    failed = next(log for log in logs if log["event"] == "publish.failed")
    assert "absent" in failed["why"] and "KUBECONFIG" in failed["hint"]


def test_the_node_is_the_configured_one_else_that_of_kubernetes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NODE_NAME", "from-kubernetes")
    assert node_name(SETTINGS) == NODE
    assert node_name(PublishSettings()) == "from-kubernetes"
