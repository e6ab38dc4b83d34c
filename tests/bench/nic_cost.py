"""What shaping costs the agent: CPU time with 200 pods that have networks of their own, and per arrival.

The same node, the same pods, the same ticks: once with nothing enforced, once with NICs. Four beats and a
tick in each second are in the steady figure; traffic of Batch goes on meanwhile.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from nodeagent.model.pod import Qos
from tests.bench.nic_ends import SWALLOW
from tests.bench.table import Figure, show
from tests.live.nic_agent import BATCH, SETTINGS, shaping, until_classified
from tests.live.nic_crowd import Crowd, Dweller, crowd
from tests.live.nic_lab import Lab, inside, lab
from tests.live.nic_loads import Place, load
from tests.live.running import RunningAgent, running, until

PODS = 200
ARRIVALS = 20
SETTLE_S = 6.0
QOS = (Qos.LS, Qos.MID, Qos.BATCH, Qos.BATCH)


class Cost(NamedTuple):
    """CPU milliseconds of the agent."""

    steady_ms_per_s: float
    arrival_ms: float


def main(rounds: int, measured_s: float) -> bool:
    """Print the table; True when all targets were held."""
    costs: dict[bool, list[Cost]] = {False: [], True: []}
    with tempfile.TemporaryDirectory(prefix="na-bench-") as directory, lab() as made, crowd(made) as there:
        for number in range(PODS):
            there.arrive(QOS[number % len(QOS)])
        for _ in range(rounds):
            for nic in (False, True):
                costs[nic].append(_cost(made, there, Path(directory), nic, 2 * measured_s))
    steady_ms, arrival_ms = (
        {nic: statistics.median(part[index] for part in costs[nic]) for nic in costs} for index in (0, 1)
    )
    return show(
        f"The agent's CPU time on {PODS} pods with networks of their own, traffic going on",
        [
            Figure("each second: nothing enforced", steady_ms[False], "ms"),
            Figure("each second: NICs", steady_ms[True], "ms"),
            Figure(
                "each second: for NICs (a tick and its beats)", steady_ms[True] - steady_ms[False], "ms", 15.0
            ),
            Figure("one pod's arrival: nothing enforced", arrival_ms[False], "ms"),
            Figure("one pod's arrival: NICs", arrival_ms[True], "ms"),
            Figure("one pod's arrival: for NICs", arrival_ms[True] - arrival_ms[False], "ms", 5.0),
        ],
    )


def _cost(made: Lab, there: Crowd, home: Path, nic: bool, seconds: float) -> Cost:
    with (
        _agent(made, home, nic) as agent,
        load(Place(made.peer), "sink", SWALLOW),
        load(Place(made.host, "batch", "batch", home / "exec"), "send", made.service().v4, SWALLOW, 4, 400),
    ):
        if nic:
            until_classified(made, BATCH)
        time.sleep(SETTLE_S)
        steady_s = _cpu_s(agent, seconds) / seconds
        begin, used_s = time.monotonic(), _used_s(agent)
        arrived = [_seen(agent, there) for _ in range(ARRIVALS)]
        time.sleep(1.5)  # a whole tick after the last
        passed_s, used_s = time.monotonic() - begin, _used_s(agent) - used_s
        for dweller in arrived:
            there.leave(dweller)
    return Cost(steady_s * 1e3, (used_s - steady_s * passed_s) / ARRIVALS * 1e3)


def _seen(agent: RunningAgent, there: Crowd) -> Dweller:
    """A pod comes, and the agent has seen it."""
    known = len(agent.named("pod.appeared"))
    dweller = there.arrive(Qos.BATCH)
    until(lambda: len(agent.named("pod.appeared")) > known, "the pod is seen")
    return dweller


@contextlib.contextmanager
def _agent(made: Lab, home: Path, nic: bool) -> Iterator[RunningAgent]:
    where = inside(made.host)
    with (
        shaping(made, home) if nic else running(home, None, where, **SETTINGS, agent__mode="observe") as agent
    ):
        yield agent


def _used_s(agent: RunningAgent) -> float:
    """CPU seconds of all threads, to the nanosecond (Documentation/scheduler/sched-stats.rst)."""
    threads = Path(f"/proc/{agent.process.pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def _cpu_s(agent: RunningAgent, seconds: float) -> float:
    begin = _used_s(agent)
    time.sleep(seconds)
    return _used_s(agent) - begin
