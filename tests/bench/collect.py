"""`make bench-collect`: one controller, 2,000 simulated agents that report each second; 1 if one was missed.

    python -m tests.bench.collect [--agents 2000] [--seconds 60] [--connections N] [--processes 2]

Propagation is from an agent's tick (its stamp, made before it serialises and sends) to the controller's view.
It is taken twice: for all agents, from the time at which the controller heard of them, and for a few that a
client, which asks for the sums every 10 ms, sees change. --connections: over how many the agents share
themselves; without it, each has its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any, NamedTuple

import grpc
from prometheus_client.parser import text_string_to_metric_families

from nodeagent.v1 import collector_pb2 as pb
from nodeagent.v1.collector_pb2_grpc import ClusterStub
from tests.bench.collect_agents import FIRST_MARKER_ZONE
from tests.bench.table import Figure, show

POLL_S = 0.01
NODES_EVERY_S = 5.0
START_S = 30.0
SETTLE_S = 5.0


class Usage(NamedTuple):
    at: float
    cpu_s: float
    rss_bytes: int


class Probe:
    """What a client of the controller sees, and when."""

    def __init__(self, address: str, base_unix: float) -> None:
        limit = [("grpc.max_receive_message_length", -1)]
        self.channel = grpc.insecure_channel(address, options=limit)
        self.stub = ClusterStub(self.channel)
        self.base_unix = base_unix
        self.seen_s: list[float] = []
        self.heard_s: list[float] = []
        self._last: dict[int, int] = {}

    def look(self) -> None:
        """Ask once for the sums."""
        view = self.stub.GetView(pb.GetViewRequest(), timeout=START_S).view
        now = time.time()
        for zone in view.zones:
            if zone.numa_node >= FIRST_MARKER_ZONE and zone.available_bytes:
                if zone.available_bytes > self._last.get(zone.numa_node, zone.available_bytes):
                    self.seen_s.append(now - self.base_unix - zone.available_bytes / 1e6)
                self._last[zone.numa_node] = zone.available_bytes

    def look_at_nodes(self, end: float) -> None:
        """Ask for all nodes, now and then until `end`; on a thread, for there is much to receive."""
        while time.monotonic() < end:
            nodes = self.stub.GetView(pb.GetViewRequest(nodes=True), timeout=START_S).view.nodes
            self.heard_s += [_unix(node.heard_at) - _unix(node.status.capacity.observed_at) for node in nodes]
            time.sleep(NODES_EVERY_S)

    def held(self) -> int:
        """Nodes that are connected and fresh."""
        nodes = self.stub.GetView(pb.GetViewRequest(nodes=True), timeout=START_S).view.nodes
        return sum(node.connected and not node.stale for node in nodes)


def measure(agents: int, seconds: float, connections: int, processes: int) -> list[Figure]:
    """Start all, wait until all agents are there, watch for `seconds`, stop all."""
    ramp_s = max(5.0, agents / processes / 200)
    life_s = ramp_s + seconds + 2 * SETTLE_S
    base_unix = time.time() - 1.0
    with controller() as (process, address, http):
        probe = Probe(address, base_unix)
        shares = [agents // processes + (number < agents % processes) for number in range(processes)]
        firsts = [sum(shares[:number]) for number in range(processes)]
        loads = [
            generator(address, first, share, max(1, connections // processes), life_s, base_unix)
            for first, share in zip(firsts, shares, strict=True)
        ]
        wait_until(lambda: metric(http, "nodeagent_collect_streams") >= agents, ramp_s + START_S)
        time.sleep(SETTLE_S)
        first, before = usage(process.pid), metric(http, "nodeagent_collect_reports_total")
        end = time.monotonic() + seconds
        beside = threading.Thread(target=probe.look_at_nodes, args=(end - NODES_EVERY_S,))
        beside.start()
        while time.monotonic() < end:
            probe.look()
            time.sleep(POLL_S)
        beside.join()
        held = probe.held()
        last, after = usage(process.pid), metric(http, "nodeagent_collect_reports_total")
        done = [json.loads(load.communicate(timeout=life_s + START_S)[0]) for load in loads]
        wait_until(lambda: metric(http, "nodeagent_collect_streams") == 0, START_S)
        received = metric(http, "nodeagent_collect_reports_total")
    span_s = last.at - first.at
    sent = sum(sum(each["sent"].values()) for each in done)
    return [
        Figure("streams held", held, "streams", least=agents),
        Figure("reports", (after - before) / span_s, "1/s", least=0.995 * agents),
        Figure("reports that were sent and did not count", sent - received, "reports", most=0.0),
        Figure("streams that broke", sum(sum(each["lost"].values()) for each in done), "streams", most=0.0),
        Figure("full status asked for again", sum(each["resyncs"] for each in done), "times", most=0.0),
        *spread("tick to view, all agents", probe.heard_s, 1.0),
        *spread("tick to a client's eyes", probe.seen_s, 1.0),
        Figure("lateness of the agents' own ticks, p99", max(d["late_p99_s"] for d in done) * 1e3, "ms"),
        Figure("CPU of the controller", (last.cpu_s - first.cpu_s) / span_s, "cores", most=1.0),
        Figure("CPU of the agents", sum(each["cpu_s"] for each in done) / life_s, "cores"),
        Figure("resident memory of the controller", last.rss_bytes / (1 << 20), "MiB"),
    ]


def spread(name: str, values_s: list[float], most_s: float) -> list[Figure]:
    """p50 and p99, in milliseconds."""
    values = sorted(values_s)
    return [
        Figure(f"{name}, p50", values[len(values) // 2] * 1e3, "ms"),
        Figure(f"{name}, p99", values[len(values) * 99 // 100] * 1e3, "ms", most=most_s * 1e3),
    ]


@contextlib.contextmanager
def controller() -> Iterator[tuple[subprocess.Popen[bytes], str, str]]:
    """The real command, as anybody would start it, with its addresses."""
    address, http = (f"127.0.0.1:{free_port()}" for _ in range(2))
    words = ["collect", "--listen", address, "--http", http, "--refresh", "5"]
    process = subprocess.Popen([sys.executable, "-m", "nodeagent", *words], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: reachable(http), START_S)
        yield process, address, http
    finally:
        process.terminate()
        process.wait(START_S)


def generator(
    address: str, first: int, count: int, channels: int, seconds: float, base_unix: float
) -> subprocess.Popen[str]:
    words = [address, *map(str, (first, count, channels, seconds, base_unix))]
    command = [sys.executable, "-m", "tests.bench.collect_agents", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def usage(pid: int) -> Usage:
    """CPU time so far, of all threads, and resident memory."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return Usage(time.monotonic(), (int(fields[11]) + int(fields[12])) / ticks, int(fields[21]) * 4096)


def metric(http: str, name: str) -> float:
    """The sum over its series."""
    with urllib.request.urlopen(f"http://{http}/metrics", timeout=START_S) as answer:
        page = answer.read().decode()
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == name)


def reachable(http: str) -> bool:
    host, _, port = http.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(true: Any, timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout_s:g} s in vain")
        time.sleep(0.2)


def _unix(stamp: Any) -> float:
    return float(stamp.seconds + stamp.nanos * 1e-9)


def main(words: list[str]) -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="tests.bench.collect", description=__doc__)
    parser.add_argument("--agents", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--connections", type=int, default=0, help="0: one for each agent")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args(words)
    connections = asked.connections or asked.agents
    figures = measure(asked.agents, asked.seconds, connections, asked.processes)
    title = f"{asked.agents} agents over {connections} connections, {asked.seconds:g} s"
    return 0 if show(title, figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
