"""Interference in numbers: how often, how long, what stopped alarms, what trials showed, who is held back.

Invariant: labels are channels, gates, results and steps, never pods, so that the number of series is fixed.
"""

from __future__ import annotations

from collections import Counter as Count

from prometheus_client import CollectorRegistry, Counter, Histogram

from nodeagent.model.decision import Tick
from nodeagent.model.interference import Gate, Rung, State, TrialResult
from nodeagent.model.interference_changes import closed, episodes, opened, rejected, tried
from nodeagent.model.interference_told import step
from nodeagent.model.symptom import Channel
from nodeagent.report.text import Label, family

DURATION_BUCKETS_S = (1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0, 3600.0)
STATES = (State.SUSPECT, State.CONFIRMED)
ENDED = tuple(result for result in TrialResult if result is not TrialResult.RUNNING)


class InterferenceCounters:
    """What has happened since the agent began; `observe` each tick."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._episodes = Counter(
            "nodeagent_interference_episodes", "Episodes that began", ["channel"], registry=registry
        )
        self._durations = Histogram(
            "nodeagent_interference_duration_seconds",
            "Duration of episodes that have ended",
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self._rejected = Counter(
            "nodeagent_interference_alarms_rejected",
            "Alarms that were not a neighbour's doing, by what stopped them",
            ["gate"],
            registry=registry,
        )
        self._trials = Counter(
            "nodeagent_interference_trials",
            "Trials that have ended, by result",
            ["result"],
            registry=registry,
        )
        for channel in Channel:
            self._episodes.labels(channel.value)
        for gate in Gate:
            self._rejected.labels(gate.value)
        for result in ENDED:
            self._trials.labels(result.value)

    def observe(self, before: Tick | None, now: Tick) -> None:
        """Count what began and ended between two ticks."""
        for episode in opened(before, now):
            self._episodes.labels(episode.channel.value).inc()
        for episode in closed(before, now):
            self._durations.observe(max(0.0, (episode.cleared_unix or 0.0) - episode.opened_unix))
        for _, each in rejected(before, now):
            self._rejected.labels(each.gate.value).inc()
        for trial in tried(before, now):
            self._trials.labels(trial.result.value).inc()


def interference_text(tick: Tick) -> str:
    """What is open and who is held back now; a pod that is held for several victims counts once a step."""
    state = Count(each.state for each in episodes(tick).values() if each.cleared_unix is None)
    rungs = Count({(each.cgroup, each.rung) for each in tick.decision.interference.restraints})
    held = Count(rung for _, rung in rungs)
    is_open: dict[Label | None, float] = {("state", each.value): state[each] for each in STATES}
    others = sum(state.values()) - sum(state[each] for each in STATES)
    is_open["state", "calm"] = others  # well again, and still watched
    steps: dict[Label | None, float] = {("rung", step(r)): held[r] for r in Rung if r is not Rung.FREE}
    text = family("nodeagent_interference_open", "gauge", "Episodes that are open, by state", is_open)
    return text + family(
        "nodeagent_interference_restraints", "gauge", "Batch pods that are held back, by step", steps
    )
