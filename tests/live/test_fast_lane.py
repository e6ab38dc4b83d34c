"""The fast lane on the real kernel: a surge of LS work is answered long before the tick is due."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.model.pod import OWN_TIER
from tests.live.running import (
    NODEAGENT,
    SLOWNESS,
    SPIN,
    RunningAgent,
    executed,
    quota_cores,
    running,
    unique,
    until,
)

pytestmark = pytest.mark.live
CPUS = os.cpu_count() or 1
TICK_S = 6.0 * SLOWNESS


def _spin(count: int) -> str:
    return " & ".join([f"sh -c '{SPIN}'"] * count) + " & wait"


def _early(agent: RunningAgent) -> int:
    line = next(x for x in agent.get("/metrics").splitlines() if 'ticks_total{woken_by="pressure"}' in x)
    return int(float(line.split()[-1]))


@contextlib.contextmanager
def _waiting_ls(agent: RunningAgent, home: Path) -> Iterator[Path]:
    """An LS pod that sleeps until something is written to the pipe, and then wants twice the CPUs."""
    pipe = home / "go"
    os.mkfifo(pipe)
    with executed(agent.runtime, "ls", unique("surge"), f"read go < {pipe}; {_spin(2 * CPUS)}"):
        yield pipe


def _bounded(agent: RunningAgent) -> float:
    until(lambda: (quota_cores(OWN_TIER) or 0.0) > 0.5, "a quota on the tier", 30.0)
    return quota_cores(OWN_TIER) or 0.0


@pytest.fixture
def pressure_of_pods() -> None:
    if find_hierarchies().unified is None:
        pytest.skip("no v2 hierarchy: pods have no pressure of their own")


def test_a_surge_is_answered_long_before_the_tick_is_due_and_not_for_ever(
    tmp_path: Path, pressure_of_pods: None
) -> None:
    with (
        running(
            tmp_path, agent__tick_s=TICK_S, agent__slow_tick_s=TICK_S, http__address="127.0.0.1:0"
        ) as agent,
        _waiting_ls(agent, tmp_path) as go,
        executed(agent.runtime, "batch", unique("hogs"), _spin(CPUS)),
    ):
        full = _bounded(agent)
        go.write_text("now\n")
        began = time.monotonic()
        until(lambda: (quota_cores(OWN_TIER) or 9.0) <= 0.75 * full, "Batch is cut", TICK_S / SLOWNESS / 2)
        assert time.monotonic() - began < TICK_S / 2
        until(lambda: (quota_cores(OWN_TIER) or 9.0) <= 0.11, "down to its floor")
        cuts = _early(agent)
        assert cuts >= 1
        time.sleep(2.0)  # of pressure as before: there is nothing left to cut
        assert _early(agent) - cuts <= 1
        agent.stop()
        words = [*NODEAGENT, "replay", "-o", "json", str(agent.state)]
        done = subprocess.run(words, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout
        assert json.loads(done.stdout)["ticks"] > cuts


def test_with_the_lane_off_no_tick_comes_early_for_it(tmp_path: Path, pressure_of_pods: None) -> None:
    with (
        running(tmp_path, agent__tick_s=1.0, agent__fast_lane_s=0, http__address="127.0.0.1:0") as agent,
        _waiting_ls(agent, tmp_path) as go,
        executed(agent.runtime, "batch", unique("hogs"), _spin(CPUS)),
    ):
        full = _bounded(agent)
        go.write_text("now\n")
        until(lambda: (quota_cores(OWN_TIER) or 9.0) <= 0.75 * full, "Batch is cut by ticks alone", 10.0)
        assert _early(agent) == 0


def test_early_ticks_that_may_not_cut_batch_come_once_a_second_at_most(
    tmp_path: Path, pressure_of_pods: None
) -> None:
    with (
        running(
            tmp_path,
            agent__tick_s=TICK_S,
            agent__slow_tick_s=TICK_S,
            pressure__rise_s=600,  # pressure counts only after ten minutes
            http__address="127.0.0.1:0",
        ) as agent,
        _waiting_ls(agent, tmp_path) as go,
        executed(agent.runtime, "batch", unique("hogs"), _spin(CPUS)),
    ):
        _bounded(agent)
        go.write_text("now\n")
        until(lambda: _early(agent) >= 1, "the first one", TICK_S / SLOWNESS)
        before, began = _early(agent), time.monotonic()
        time.sleep(4.0)
        more = _early(agent) - before
        assert more <= time.monotonic() - began + 1
