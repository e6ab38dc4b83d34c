"""The real agent reports to a controller, which comes and goes; nothing is written on the node."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.live.running import SLOWNESS, running, until
from tests.unit.collectors import Collector, collecting

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="the agent needs root"),
]

OBSERVE = {
    "agent.mode": "observe",
    "agent.tick_s": 0.25,
    "controller.report_s": 0.25,
    "controller.backoff_s": 0.1,
    "controller.backoff_max_s": 0.5,
    "controller.node_name": "node-7",
    "http.address": "127.0.0.1:0",
}


def fresh(collector: Collector) -> bool:
    """The last stream knows an offer that holds now."""
    status = collector.streams[-1].status if collector.streams else None
    return status is not None and status.capacity.valid_until.seconds > time.time()


@pytest.mark.parametrize("server", [True, False], ids=["with a server", "without one"])
def test_a_controller_that_comes_late_and_goes_and_comes_back_knows_the_node(
    server: bool, tmp_path: Path
) -> None:
    at = f"unix:{tmp_path}/c.sock"
    off = {} if server else {"grpc.address": ""}
    with running(tmp_path, None, (), **OBSERVE, **off, **{"controller.address": at}) as agent:
        until(lambda: bool(agent.named("link.failed")), "link.failed")
        for number in range(1, 3):
            with collecting(at) as (collector, _):
                until(lambda here=collector: fresh(here), "a report")  # type: ignore[misc]
                full = collector.streams[0].requests[0].full
                assert (full.node_name, full.total_cores) == ("node-7", os.cpu_count())
                assert full.capacity.cpu.terms
                until(lambda n=number: len(agent.named("link.connected")) == n, "link.connected")  # type: ignore[misc]
                until(
                    lambda: "nodeagent_controller_connected 1" in agent.get("/metrics").split("\n"),
                    "the metric",
                )
            until(lambda n=number: len(agent.named("link.lost")) == n, "link.lost")  # type: ignore[misc]
        assert "nodeagent_controller_connects_total 2" in agent.get("/metrics").split("\n")
        with collecting(at) as (collector, _):
            until(lambda: fresh(collector), "a report")
            begin = time.monotonic()
            assert agent.stop() == 0
            assert time.monotonic() - begin < 5.0 * SLOWNESS
            heard = collector.streams[-1]
            assert heard.ended.wait(5.0 * SLOWNESS)
            assert heard.status is not None
            assert heard.status.capacity.withdrawn == "nodeagent is stopping"
            assert heard.cores() == 0.0


def test_an_agent_that_is_stopped_in_its_tracks_is_zero_when_its_word_is_over(tmp_path: Path) -> None:
    """What a controller goes by is valid_until: it hears nothing, and the connection stays open."""
    at = f"unix:{tmp_path}/c.sock"
    settings = {**OBSERVE, "agent.slow_tick_s": 0.5, "capacity.stale_after_s": 1.0}
    with (
        collecting(at) as (collector, _),
        running(tmp_path, None, (), **settings, **{"controller.address": at}) as agent,
    ):
        until(lambda: fresh(collector), "a report")
        agent.process.send_signal(signal.SIGSTOP)
        try:
            until(lambda: not fresh(collector), "the end of its validity")
            assert len(collector.streams) == 1 and not collector.streams[0].ended.is_set()
        finally:
            agent.process.send_signal(signal.SIGCONT)
        until(lambda: fresh(collector), "a report again")
        assert len(collector.streams) == 1
