"""What the whole agent costs: `nodeagent run` on 100 real pods, with journal, scrapes and a gRPC watcher."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import psutil

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.kernel.place import make_pod_cgroup, remove_pod_cgroup
from nodeagent.model.pod import OWN_ROOT
from tests.bench.cost.clock import MIB, cpu_s
from tests.bench.cost.watched import memory_cgroup, ticks, watching
from tests.bench.own_pods import own_pods
from tests.bench.table import Figure, show
from tests.live.running import RunningAgent, running, until

PODS = 100
WARM_S = 6.0
MEASURED_S = 30.0
SCRAPE_EVERY_S = 10.0
ARRIVALS = 20


def main() -> bool:
    """Print the tables; True when all targets were held."""
    with tempfile.TemporaryDirectory(prefix="na-bench-") as directory:
        return all([cost(Path(directory)), notice(Path(directory))])


def cost(home: Path) -> bool:
    """CPU, memory and descriptors of a running agent."""
    with (
        own_pods(PODS),
        memory_cgroup() as (through, kernel_file),
        running(
            home, through=through, agent__tick_s=1, http__address="127.0.0.1:0", log__level="info"
        ) as agent,
        watching(agent) as answers,
    ):
        process = psutil.Process(agent.process.pid)
        time.sleep(WARM_S)
        counted, used_s, began = ticks(agent), cpu_s(process.pid), time.monotonic()
        while time.monotonic() - began < MEASURED_S:
            time.sleep(min(SCRAPE_EVERY_S, MEASURED_S))
            ticks(agent)
        spent_s, passed_s = cpu_s(process.pid) - used_s, time.monotonic() - began
        counted = ticks(agent) - counted
        assert answers, "the watcher heard nothing"
        memory = process.memory_info()
        kernel = int(kernel_file.read_text()) / MIB if kernel_file is not None else None
        figures = [
            Figure("ticks, early ones (PSI, cgroup) too", counted, "ticks"),
            Figure("CPU share of one core", spent_s / passed_s * 100, "%", 1.0),
            Figure("CPU time per tick, all threads", spent_s / counted * 1e3, "ms"),
            Figure("resident memory", memory.rss / MIB, "MiB", 64.0),
            Figure("  anonymous part", (memory.rss - memory.shared) / MIB, "MiB"),
            Figure("descriptors", process.num_fds(), "fds"),
            Figure("threads", process.num_threads(), "threads"),
        ]
        if kernel is not None:
            figures.append(Figure("kernel memory charged to it", kernel, "MiB"))
    title = f"The agent on {PODS} pods for {passed_s:.0f} s: 1 s ticks, journal, gRPC watcher, scrapes"
    return show(title, figures)


def notice(home: Path) -> bool:
    """From mkdir of a pod's cgroup to the agent's event, with the next tick far away."""
    places = find_hierarchies()
    delays_ms: list[float] = []
    with running(home, agent__tick_s=5, log__level="info") as agent:
        for number in range(ARRIVALS):
            name = f"na-bench-{os.getpid()}-new{number}"
            path = f"{OWN_ROOT}/mid/{name}"
            time.sleep(0.2 + 0.037 * (number % 7))  # not in step with the agent
            began = time.time()
            try:
                make_pod_cgroup(places, path)
                until(lambda name=name: _appeared(agent, name) is not None, f"{name} is noticed")  # type: ignore[misc]
            finally:
                remove_pod_cgroup(places, path)
            delays_ms.append(((_appeared(agent, name) or 0.0) - began) * 1e3)
    return show(
        f"From mkdir of a pod to pod.appeared: {ARRIVALS} pods, 5 s ticks",
        [
            Figure("median", statistics.median(delays_ms), "ms", 200.0),
            Figure("maximum", max(delays_ms), "ms", 200.0),
        ],
    )


def _appeared(agent: RunningAgent, name: str) -> float | None:
    found = (event for event in agent.named("pod.appeared") if event["pod"] == name)
    return next((datetime.fromisoformat(event["timestamp"]).timestamp() for event in found), None)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
