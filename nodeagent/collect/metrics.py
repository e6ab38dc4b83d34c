"""/metrics of the controller: a custom collector over the view of the moment: lost nodes leave no series.

Invariant: labels are bounded: NUMA node ids below 1024, states, kinds, and at most `max_nodes` nodes by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec import Struct
from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nodeagent.collect.tally import Tally
from nodeagent.collect.told import Summary, ZoneLine
from nodeagent.collect.view import Node, State, View

Labels = tuple[str, ...]
PREFIX = "nodeagent_collect"


class NodeSample(Struct, frozen=True):
    """What one node offers, 0 when that does not count."""

    name: str
    cores: float
    bytes: int


class Sample(Struct, frozen=True):
    """All that a scrape shows, taken on the event loop at once."""

    version: str
    summary: Summary
    reports: dict[str, int]
    endings: dict[str, int]
    streams: int
    watchers: int
    resyncs: int
    directives: int
    nodes: tuple[NodeSample, ...]
    nodes_left_out: int
    refused: dict[str, int] = {}
    tls_not_after_unix: float | None = None


def sample(view: View, tally: Tally, summary: Summary, version: str, max_nodes: int) -> Sample:
    """Of this moment, with at most `max_nodes` nodes by name, in the order of their names."""
    names = sorted(view.nodes)[:max_nodes] if max_nodes else []
    return Sample(
        version=version,
        summary=summary,
        reports=dict(tally.reports),
        endings=dict(tally.endings),
        streams=tally.streams,
        watchers=tally.watchers,
        resyncs=tally.resyncs,
        directives=tally.directives,
        nodes=tuple(_node(view.nodes[name]) for name in names),
        nodes_left_out=len(view.nodes) - len(names) if max_nodes else 0,
    )


class ClusterMetrics(Collector):
    """`take` gives the Sample of the moment; it may be called by any thread."""

    def __init__(self, take: Callable[[], Sample]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._take = take
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def render(self) -> bytes:
        """The page /metrics."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is depends on the view."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client asks for it at every scrape."""
        now = self._take()
        yield _gauge("build_info", "What is running; always 1", {(now.version,): 1.0}, "version")
        yield from _offers(now.summary)
        yield from _nodes(now)
        yield _gauge("streams", "Agents that are connected", {(): now.streams})
        yield _gauge("watchers", "Clients of WatchView", {(): now.watchers})
        yield _counter("reports", "Messages from agents by kind", _by(now.reports), "kind")
        yield _counter("streams_ended", "Streams by what ended them", _by(now.endings), "reason")
        yield _counter("resyncs", "Times that a full status was asked for", {(): now.resyncs})
        yield _counter("directives", "Directives sent to nodes", {(): now.directives})
        yield _counter("calls_refused", "Calls refused, by reason", _by(now.refused), "reason")
        if now.tls_not_after_unix is not None:
            until: dict[Labels, float] = {(): now.tls_not_after_unix}
            yield _gauge("tls_not_after_seconds", "End of the certificate, in Unix time", until)


def _offers(summary: Summary) -> Iterator[Metric]:
    yield _gauge("available_cores", "Offered to Batch by all nodes", {(): summary.available_cores})
    yield _gauge("available_bytes", "Memory offered to Batch by all nodes", {(): summary.available_bytes})
    zones: dict[Labels, ZoneLine] = {(str(zone.numa_node),): zone for zone in summary.zones}
    cores = {key: zone.available_cores for key, zone in zones.items()}
    sizes = {key: zone.available_bytes for key, zone in zones.items()}
    counts = {key: zone.nodes for key, zone in zones.items()}
    yield _gauge("zone_available_cores", "The same by NUMA node id", cores, "numa_node")
    yield _gauge("zone_available_bytes", "The same by NUMA node id", sizes, "numa_node")
    yield _gauge("zone_nodes", "Nodes that offer something there", counts, "numa_node")


def _nodes(now: Sample) -> Iterator[Metric]:
    found = now.summary
    states: dict[Labels, float] = {
        (State.OFFERING.value,): found.fresh_nodes - found.withdrawn_nodes,
        (State.WITHDRAWN.value,): found.withdrawn_nodes,
        (State.STALE.value,): found.stale_nodes,
    }
    yield _gauge("nodes", "Nodes by state", states, "state")
    if not now.nodes:
        return
    cores: dict[Labels, float] = {(node.name,): node.cores for node in now.nodes}
    sizes: dict[Labels, float] = {(node.name,): node.bytes for node in now.nodes}
    yield _gauge("node_available_cores", "Offered to Batch by one node", cores, "node")
    yield _gauge("node_available_bytes", "Memory offered to Batch by one node", sizes, "node")
    yield _gauge("nodes_left_out", "Nodes beyond the cap of series by node", {(): now.nodes_left_out})


def _node(node: Node) -> NodeSample:
    if node.state is not State.OFFERING or node.offer is None:
        return NodeSample(node.name, 0.0, 0)
    return NodeSample(node.name, node.offer.micro_cores / 1e6, node.offer.bytes)


def _by(counts: dict[str, int]) -> dict[Labels, float]:
    return {(key,): float(count) for key, count in counts.items()}


def _gauge(name: str, text: str, samples: Mapping[Labels, float], *labels: str) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=labels)
    for values, number in samples.items():
        family.add_metric(values, number)
    return family


def _counter(name: str, text: str, samples: Mapping[Labels, float], *labels: str) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=labels)
    for values, number in samples.items():
        family.add_metric(values, number)
    return family
