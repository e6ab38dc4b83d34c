"""The real agent tells a real HTTPS API server what it offers, and takes it away when it ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nodeagent.core.publish import VALID_UNTIL
from tests.live.running import RunningAgent, running, until
from tests.unit.api_server import NODE, ApiServer, api_server
from tests.unit.metric_pages import values

pytestmark = pytest.mark.live
SETTINGS: Any = {
    "agent__mode": "observe",
    "grpc__address": "",
    "http__address": "127.0.0.1:0",
    "publish__enabled": True,
    "publish__node_name": NODE,
}


PUBLISHES = "nodeagent_publishes_total"


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    with api_server(tmp_path) as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig()))
        yield api


def _told(api: ApiServer) -> bool:
    return None not in api.offered


def _offered_bytes(agent: RunningAgent) -> float:
    return values(agent.get("/metrics"), "nodeagent_offline_available_bytes")[""]


def test_what_is_offered_is_what_the_node_has_until_the_agent_ends(api: ApiServer, tmp_path: Path) -> None:
    before = api.node
    with running(tmp_path, **SETTINGS) as agent:
        until(lambda: _told(api), "an offer on the node")
        until(lambda: values(agent.get("/metrics"), PUBLISHES)["outcome=ok"] >= 1, "that it is counted")
        assert agent.stop() == 0
    assert api.node == before


def test_what_a_killed_agent_left_ends_with_the_next_one(api: ApiServer, tmp_path: Path) -> None:
    before = api.node
    with running(tmp_path, **SETTINGS) as agent:
        until(lambda: _told(api), "an offer on the node")
        agent.stop(signal.SIGKILL)
    assert _told(api)
    assert VALID_UNTIL in api.node["metadata"]["annotations"]
    told = len(api.patches)
    with running(tmp_path, **SETTINGS) as agent:
        until(lambda: len(api.patches) > told, "the next agent's first patch")
        assert agent.stop() == 0
    assert api.node == before


def test_an_api_server_that_is_away_is_said_and_delays_no_tick(api: ApiServer, tmp_path: Path) -> None:
    api.silent_s = 600.0
    with running(tmp_path, **SETTINGS) as agent:
        until(lambda: bool(agent.named("publish.failed")), "that it fails", timeout_s=30.0)
        page = agent.get("/metrics")
        assert values(page, "nodeagent_publish_failing") == {"": 1}
        assert sum(values(page, "nodeagent_ticks_total").values()) >= 8  # of 0.25 s, while 3 s were waited
        api.silent_s = 0.0
        until(lambda: _told(api), "an offer on the node", timeout_s=30.0)
        assert int(api.offered[1] or 0) == pytest.approx(_offered_bytes(agent), rel=0.3)
        until(lambda: bool(agent.named("publish.resumed")), "that it is said to be over")
