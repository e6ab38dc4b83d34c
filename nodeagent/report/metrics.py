"""/metrics: the latest tick as text, and the agent's own counters from prometheus-client.

The loop calls the observers; a scrape, on its own thread, renders what it finds. Dead pods leave no series,
since every page is made from one tick. Invariant: at most `max_series` series; what does not fit is counted.
"""

from __future__ import annotations

import threading

from msgspec import Struct
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from nodeagent.model.app import AppFigures
from nodeagent.model.controller import LinkSeen
from nodeagent.model.decision import Tick
from nodeagent.model.plan import Kind, Knob
from nodeagent.model.rpc_told import News, RpcTold
from nodeagent.report.apps import apps_text
from nodeagent.report.interference_metrics import InterferenceCounters
from nodeagent.report.link import link_text
from nodeagent.report.node import node_text
from nodeagent.report.pages import moved_bytes
from nodeagent.report.pods import PodPage
from nodeagent.report.text import Label, family

OWN_SERIES = 150  # what the registry below and the link come to, at most
TICK_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
LATENESS_BUCKETS_S = (0.001, 0.005, 0.01, 0.05, 0.25)


class OwnCost(Struct, frozen=True, gc=False):
    """What the agent itself has used: CPU seconds since its start, resident bytes (None = not known)."""

    cpu_s: float
    rss_bytes: int | None = None


class Metrics:
    """The registry of the agent's own metrics and the page of the latest tick."""

    def __init__(self, version: str, *, revision: str = "", max_series: int = 20_000) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._max_series = max_series
        self._latest: tuple[Tick, OwnCost] | None = None
        self._told: RpcTold | None = None
        self._pods = PodPage()
        self._page: tuple[Tick, bytes] | None = None
        self._rendering = threading.Lock()  # scrapes wait for each other, the loop for none of them
        self._drifted: dict[Knob, int] = {}
        self._link: LinkSeen | None = None
        self._apps = AppFigures()
        self._make(version, revision)
        self._interference = InterferenceCounters(self.registry)

    def observe_tick(self, tick: Tick, duration_s: float, own: OwnCost) -> None:
        """Count a finished tick and show it from now on; called by the loop."""
        before, self._latest = self._latest, (tick, own)
        self._moved.inc(moved_bytes(before and before[0], tick))
        self._interference.observe(before and before[0], tick)
        self._duration.observe(duration_s)
        self._ticks.labels(tick.snapshot.woken_by).inc()
        for outcome in tick.outcomes:
            self._changes.labels(outcome.change.knob.kind.value, "ok" if outcome.ok else "error").inc()
        for kind, count in tick.snapshot.misses.items():
            self._misses.labels(kind).inc(count)
        self._count_drifts(tick)

    def paced(self, late_s: float | None, missed: int, *, first: bool) -> None:
        """How late a tick began (None: early), due times since without one, and if it is first in line."""
        if late_s is not None:
            self._lateness.observe(late_s)
        self._missed.inc(missed)
        self._realtime.set(first)

    def skip_tick(self) -> None:
        """Count a tick that changed nothing because the pods could not be listed."""
        self._skipped.inc()

    def journal(self, *, writing: bool, size_bytes: int) -> None:
        """Whether the journal is being written, and how much of it is kept."""
        self._journal_writing.set(writing)
        self._journal_bytes.set(size_bytes)

    def linked(self, seen: LinkSeen | None) -> None:
        """How the link to the controller fares, None where there is none."""
        self._link = seen

    def applications(self, figures: AppFigures) -> None:
        """How applications fare that are asked and that send."""
        self._apps = figures

    def reloaded(self, *, ok: bool) -> None:
        """Count an attempt to reload the configuration."""
        self._reloads.labels("ok" if ok else "error").inc()
        self._reload_ok.set(ok)

    def clients(self, told: RpcTold | None) -> tuple[News, ...]:
        """Show how the gRPC server's clients fare (None: there is no server); what to log of it."""
        self._told = told
        return () if told is None else told.news

    def published(self, *, ok: bool) -> None:
        """Count an attempt to tell the API server what is offered; called by the thread that tells."""
        self._publishes.labels("ok" if ok else "error").inc()
        self._publish_failing.set(not ok)

    def render(self) -> bytes:
        """The whole page; the part of the tick is made once a tick. Called by scrapes."""
        latest = self._latest
        if latest is None:
            return generate_latest(self.registry)
        tick, own = latest
        with self._rendering:
            if self._page is None or self._page[0] is not tick:
                self._page = tick, self._tick_text(tick)
            mine = _own_text(own) + _rpc_text(self._told)
            mine += link_text(self._link) if self._link is not None else ""
            mine += apps_text(self._apps)
            return b"".join([self._page[1], mine.encode(), generate_latest(self.registry)])

    def _tick_text(self, tick: Tick) -> bytes:
        node = node_text(tick)
        pods, dropped = self._pods.render(tick, self._max_series - OWN_SERIES - node.count("\n"))
        self._dropped.set(dropped)
        return (node + pods).encode()

    def _count_drifts(self, tick: Tick) -> None:
        before, self._drifted = self._drifted, {drift.knob: drift.count for drift in tick.decision.drifts}
        for knob, count in self._drifted.items():
            self._drifts.labels(knob.kind.value).inc(max(0, count - before.get(knob, 0)))

    def _make(self, version: str, revision: str) -> None:
        own = self.registry
        build = Gauge(
            "nodeagent_build_info", "What is running; always 1", ["version", "revision"], registry=own
        )
        build.labels(version, revision).set(1)
        self._make_paced(own)
        self._ticks = Counter("nodeagent_ticks", "Ticks by what started them", ["woken_by"], registry=own)
        self._skipped = Counter("nodeagent_ticks_skipped", "Ticks that could not list the pods", registry=own)
        self._changes = Counter(
            "nodeagent_changes", "Writes by kind and outcome", ["kind", "outcome"], registry=own
        )
        self._drifts = Counter(
            "nodeagent_drifts", "Writes of others to our knobs, by kind", ["kind"], registry=own
        )
        self._misses = Counter("nodeagent_misses", "Readings that failed, by kind", ["kind"], registry=own)
        self._journal_writing = Gauge("nodeagent_journal_writing", "1 while ticks are recorded", registry=own)
        self._journal_bytes = Gauge(
            "nodeagent_journal_size_bytes", "Size of the journal on disk", registry=own
        )
        self._reloads = Counter("nodeagent_config_reloads", "Reloads by outcome", ["outcome"], registry=own)
        self._reload_ok = Gauge(
            "nodeagent_config_last_reload_successful", "1 unless it was refused", registry=own
        )
        self._publishes = Counter(
            "nodeagent_publishes", "Patches of the node's status by outcome", ["outcome"], registry=own
        )
        self._publish_failing = Gauge(
            "nodeagent_publish_failing", "1 while the last patch of the node's status failed", registry=own
        )
        self._dropped = Gauge(
            "nodeagent_metrics_dropped_series", "Series of pods beyond the cap", registry=own
        )
        self._moved = Counter(
            "nodeagent_numa_pages_moved_bytes", "Pages that followed their pods", registry=own
        )
        self._reload_ok.set(1)
        self._begin_at_zero()

    def _make_paced(self, own: CollectorRegistry) -> None:
        self._duration = Histogram(
            "nodeagent_tick_duration_seconds", "Duration of a tick", buckets=TICK_BUCKETS_S, registry=own
        )
        self._lateness = Histogram(
            "nodeagent_tick_lateness_seconds",
            "From when a tick was due until it began",
            buckets=LATENESS_BUCKETS_S,
            registry=own,
        )
        self._missed = Counter(
            "nodeagent_ticks_missed", "Due times that passed while a tick was at work", registry=own
        )
        self._realtime = Gauge(
            "nodeagent_realtime",
            "1 while the loop, which was late, runs before all other threads",
            registry=own,
        )

    def _begin_at_zero(self) -> None:
        """Make the series that are sure to come, so that their first increase counts."""
        for woken_by in ("timer", "pressure", "use", "psi", "cgroup", "signal", "directive"):
            self._ticks.labels(woken_by)
        for kind in Kind:
            self._drifts.labels(kind.value)
            for outcome in ("ok", "error"):
                self._changes.labels(kind.value, outcome)
        for miss in ("garbled", "gone", "refused"):
            self._misses.labels(miss)
        for outcome in ("ok", "error"):
            self._reloads.labels(outcome)
            self._publishes.labels(outcome)


def _own_text(own: OwnCost) -> str:
    rss: dict[Label | None, float] = {} if own.rss_bytes is None else {None: own.rss_bytes}
    return family(
        "nodeagent_self_cpu_seconds_total", "counter", "CPU time of the agent", {None: own.cpu_s}
    ) + family("nodeagent_self_resident_memory_bytes", "gauge", "Resident memory of the agent", rss)


def _rpc_text(told: RpcTold | None) -> str:
    if told is None:
        return ""
    refused: dict[Label | None, float] = {("reason", why): n for why, n in sorted(told.refused.items())}
    text = family("nodeagent_grpc_calls", "gauge", "Calls that are open", {None: told.calls})
    text += family("nodeagent_grpc_refused_total", "counter", "Calls refused, by reason", refused)
    if told.not_after_unix is None:
        return text
    until: dict[Label | None, float] = {None: told.not_after_unix}
    good: dict[Label | None, float] = {None: float(told.files_ok)}
    return (
        text
        + family("nodeagent_tls_not_after_seconds", "gauge", "End of the certificate, in Unix time", until)
        + family(
            "nodeagent_tls_files_ok", "gauge", "0 while the files are unusable and the old ones serve", good
        )
    )
