"""What a scrape and a report cost: /metrics against gauges, and gRPC bytes that are made once a tick."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import grpc
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from nodeagent.model.decision import Tick
from nodeagent.report.metrics import Metrics, OwnCost
from nodeagent.rpc.posted import Posted
from nodeagent.rpc.server import RpcServer
from nodeagent.v1 import nodeagent_pb2 as pb
from nodeagent.v1.nodeagent_pb2_grpc import NodeAgentStub
from tests.bench.table import Figure, cpu_s, in_turns, show
from tests.unit import samples

ROUNDS = 20
CLIENTS = 20
OWN = OwnCost(12.5, 40 << 20)

Series = list[tuple[str, dict[str, str], float]]


def series(page: bytes) -> Series:
    """All series of what a tick shows, by name, labels and value (the agent's own histogram is not in it)."""
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
        if not family.name.startswith("nodeagent_tick_duration")
    ]


class Gauges:
    """The peer: the same series as labelled gauges, set and rendered by prometheus-client."""

    def __init__(self, wanted: Series) -> None:
        self.registry = CollectorRegistry()
        labels = {name: tuple(labels) for name, labels, _ in wanted}
        self._gauges = {
            name: Gauge(name, "help", keys, registry=self.registry) for name, keys in labels.items()
        }

    def render(self, values: Series) -> bytes:
        for name, labels, value in values:
            gauge = self._gauges[name]
            (gauge.labels(**labels) if labels else gauge).set(value)
        return generate_latest(self.registry)


def scrape(pods: int) -> list[Figure]:
    """A scrape of a new tick, by both; each in turn, the median of all rounds."""
    ticks = [samples.tick(seq, pods=pods) for seq in range(1, ROUNDS + 2)]
    metrics = Metrics("0.1")

    def ours(tick: Tick) -> bytes:
        metrics.observe_tick(tick, 0.004, OWN)
        return metrics.render()

    values = [series(ours(tick)) for tick in ticks]
    peer = Gauges(values[0])
    same = {(name, *labels.items()) for name, labels, _ in values[-1]}
    assert same == {(name, *labels.items()) for name, labels, _ in series(peer.render(values[-1]))}
    left = {"nodeagent": iter(ticks[1:]), "gauges": iter(values[1:])}
    work: dict[str, Callable[[], float]] = {
        "nodeagent": lambda: cpu_s(lambda: ours(next(left["nodeagent"]))),  # type: ignore[arg-type]
        "gauges": lambda: cpu_s(lambda: peer.render(next(left["gauges"]))),  # type: ignore[arg-type]
    }
    costs = {name: statistics.median(each) for name, each in in_turns(work, ROUNDS).items()}
    return [
        Figure(f"/metrics, {pods} pods: {len(values[0])} series", costs["nodeagent"] * 1e3, "ms CPU"),
        Figure(f"the same as gauges, {pods} pods", costs["gauges"] * 1e3, "ms CPU"),
        Figure(f"ratio, {pods} pods", costs["nodeagent"] / costs["gauges"], "x", 0.1),
    ]


def serialise(pods: int) -> list[Figure]:
    """Build and serialise capacity and report of a tick, as the first client to ask makes it happen."""
    posted = [Posted(samples.tick(seq, pods=pods), 0.0) for seq in range(ROUNDS)]
    report_s = statistics.median(cpu_s(lambda each=each: each.report("node", "0.1")) for each in posted)  # type: ignore[misc]
    offer_s = statistics.median(cpu_s(lambda each=each: each.offer(0.0)) for each in posted)  # type: ignore[misc]
    return [
        Figure(f"report, {pods} pods: build and serialise", report_s * 1e3, "ms CPU"),
        Figure(f"report, {pods} pods: size", len(posted[0].report("node", "0.1")) / 1024, "KiB"),
        Figure(f"capacity, {pods} pods: build and serialise", offer_s * 1e3, "ms CPU"),
    ]


def clients(pods: int) -> list[Figure]:
    """CLIENTS clients ask for capacity and report, and watch, through five ticks of a real server."""
    ticks, made = 5, []
    with tempfile.TemporaryDirectory(prefix="na-bench-") as directory:
        server = RpcServer(f"unix:{Path(directory, 'rpc.sock')}", hostname="node", version="0.1")
        server.start()
        with closing(grpc.insecure_channel(server.address)) as channel:
            stub = NodeAgentStub(channel)
            for seq in range(1, ticks + 1):
                server.publish(samples.tick(seq, pods=pods))
                calls = [stub.GetNodeReport.future(pb.GetNodeReportRequest()) for _ in range(CLIENTS)]
                calls += [stub.GetCapacity.future(pb.GetCapacityRequest()) for _ in range(CLIENTS)]
                watches = [stub.WatchCapacity(pb.WatchCapacityRequest()) for _ in range(CLIENTS)]
                answers = [call.result() for call in calls] + [next(watch) for watch in watches]
                assert len(answers) == 3 * CLIENTS
                posted = server.service.latest
                made.append(0 if posted is None else posted.serialised)
                for watch in watches:
                    watch.cancel()
        server.stop()
    return [Figure(f"messages made per tick for {3 * CLIENTS} answers", max(made), "messages", 2)]


def main() -> bool:
    """Print the table; True when the targets were held."""
    figures = [*scrape(100), *scrape(300), *serialise(100), *serialise(300), *clients(300)]
    return show("Reports", figures)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
