"""What became of Kubernetes' list of pods between two ticks, and what pods say that cannot be understood."""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.model.decision import Tick
from nodeagent.model.kubernetes import ListState, PodList
from nodeagent.report.event import Event, Value

HOLDS = {
    ListState.WAITING: "until it comes no pod of Kubernetes is Batch",
    ListState.STALE: "the last list holds for now",
    ListState.EXPIRED: "pods stay what they were while they live, new ones are not Batch",
    ListState.NEVER: "the paths of cgroups tell alone: no names, requests or labels",
}


def pod_list_events(before: Tick | None, now: Tick) -> Iterator[Event]:
    """The list came, does not come, is stale, has ended; labels that are wrong. Once per change."""
    old = before.snapshot.pod_list if before else None
    new = now.snapshot.pod_list
    if new is None:
        return
    if old is None or _kind(old) != _kind(new):
        yield _changed(new, now.snapshot.at)
    told = set(old.wrong) if old else set()
    for pod, why in new.wrong:
        if (pod, why) not in told:
            yield Event("warning", "pod.label", {"pod": pod, "why": why})


def _kind(of: PodList) -> tuple[str, ListState, bool]:
    return of.source, of.state, of.state is ListState.WAITING and bool(of.error)


def _changed(new: PodList, at: float) -> Event:
    keys: dict[str, Value] = {"source": new.source}
    if new.at is not None and new.state is not ListState.FRESH:
        keys["age_s"] = round(at - new.at, 1)
    if new.error:
        keys["why"] = new.error
    if new.state is ListState.FRESH:
        return Event("warning" if new.error else "info", "pods.listed", {**keys, "pods": new.pods})
    level = "debug" if new.state is ListState.WAITING and not new.error else "warning"
    return Event(level, f"pods.{new.state.value}", {**keys, "so": HOLDS[new.state]})
