"""What the whole agent costs: `nodeagent run` on 100 real pods, with journal, scrapes and a gRPC watcher."""

from __future__ import annotations

import contextlib
import os
import shlex
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import grpc
import psutil

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.kernel.place import make_pod_cgroup, remove_pod_cgroup
from nodeagent.model.pod import OWN_ROOT
from nodeagent.v1 import nodeagent_pb2 as pb
from nodeagent.v1.nodeagent_pb2_grpc import NodeAgentStub
from tests.bench.own_pods import own_pods
from tests.bench.table import Figure, show
from tests.live.running import RunningAgent, running, until

PODS = 100
WARM_S = 6.0
MEASURED_S = 30.0
SCRAPE_EVERY_S = 10.0
ARRIVALS = 20
MIB = 1 << 20


def main() -> bool:
    """Print the tables; True when all targets were held."""
    with tempfile.TemporaryDirectory(prefix="na-bench-") as directory:
        return all([cost(Path(directory)), notice(Path(directory))])


def cost(home: Path) -> bool:
    """CPU, memory and descriptors of a running agent."""
    with (
        own_pods(PODS),
        _memory_cgroup() as (through, kernel_file),
        running(
            home, through=through, agent__tick_s=1, http__address="127.0.0.1:0", log__level="info"
        ) as agent,
        _watching(agent) as answers,
    ):
        process = psutil.Process(agent.process.pid)
        time.sleep(WARM_S)
        ticks, cpu_s, began = _ticks(agent), _cpu_s(process), time.monotonic()
        while time.monotonic() - began < MEASURED_S:
            time.sleep(min(SCRAPE_EVERY_S, MEASURED_S))
            _ticks(agent)
        spent_s, passed_s = _cpu_s(process) - cpu_s, time.monotonic() - began
        ticks = _ticks(agent) - ticks
        assert answers, "the watcher heard nothing"
        memory = process.memory_info()
        kernel = int(kernel_file.read_text()) / MIB if kernel_file is not None else None
        figures = [
            Figure("ticks, early ones (PSI, cgroup) too", ticks, "ticks"),
            Figure("CPU share of one core", spent_s / passed_s * 100, "%", 1.0),
            Figure("CPU time per tick, all threads", spent_s / ticks * 1e3, "ms"),
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


def _ticks(agent: RunningAgent) -> float:
    """The number of ticks so far, from a scrape."""
    lines = agent.get("/metrics").splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("nodeagent_ticks_total{"))


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _appeared(agent: RunningAgent, name: str) -> float | None:
    found = (event for event in agent.named("pod.appeared") if event["pod"] == name)
    return next((datetime.fromisoformat(event["timestamp"]).timestamp() for event in found), None)


@contextlib.contextmanager
def _watching(agent: RunningAgent) -> Iterator[list[object]]:
    """A client that watches the capacity until the context ends; its answers."""
    answers: list[object] = []
    until(lambda: bool(agent.named("pod.appeared")), "the first tick")
    with grpc.insecure_channel(f"unix:{agent.runtime}/nodeagent.sock") as channel:
        stream = NodeAgentStub(channel).WatchCapacity(pb.WatchCapacityRequest())

        def listen() -> None:
            with contextlib.suppress(grpc.RpcError):
                answers.extend(iter(stream))

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            yield answers
        finally:
            stream.cancel()
            listener.join()


@contextlib.contextmanager
def _memory_cgroup() -> Iterator[tuple[list[str], Path | None]]:
    """Words that execute a command in a memory cgroup of its own, and the file of its kernel memory in bytes.

    Without a v1 memory controller that tells it: no words and None.
    """
    memory = find_hierarchies().roots.get("memory")
    if memory is None or memory.version != 1 or not Path(memory.root, "memory.kmem.usage_in_bytes").exists():
        yield [], None
        return
    own = Path(memory.root, f"na-bench-agent-{os.getpid()}")
    own.mkdir()
    try:
        enter = f'echo 0 > {shlex.quote(str(own / "cgroup.procs"))} && exec "$@"'
        yield ["sh", "-c", enter, "sh"], own / "memory.kmem.usage_in_bytes"
    finally:
        until(lambda: not (own / "cgroup.procs").read_text(), "the agent has left")
        own.rmdir()


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
