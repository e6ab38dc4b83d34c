"""What happened between two ticks, as events with keys: once per change, not once per tick."""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.model.decision import Tick
from nodeagent.model.plan import Kind
from nodeagent.report.event import Event, Value
from nodeagent.report.pages import page_events

NOTABLE_FALL = 0.8  # a limit that falls below this share of the last one is worth a line
UNITS = {
    Kind.CPU_QUOTA: "cores",
    Kind.CPU_WEIGHT: "weight",
    Kind.CPUS: "cpus",
    Kind.MEMS: "mems",
    Kind.MIGRATE: "switch",
}


def events(before: Tick | None, now: Tick) -> Iterator[Event]:
    """Pods, signals, the Batch limit, pages, failed writes, drift and a withdrawn or restored offer."""
    yield from _pods(before, now)
    yield from _signals(before, now)
    yield from _limit(before, now)
    yield from _unplaced(before, now)
    yield from page_events(before, now)
    yield from _writes(before, now)
    yield from _drifts(before, now)
    yield from _offer(before, now)


def _pods(before: Tick | None, now: Tick) -> Iterator[Event]:
    old = {(p.spec.uid, p.spec.inode): p.spec for p in before.snapshot.pods} if before else {}
    new = {(p.spec.uid, p.spec.inode): p.spec for p in now.snapshot.pods}
    for key in sorted(new.keys() - old.keys()):
        spec = new[key]
        keys: dict[str, Value] = {"pod": spec.name, "qos": spec.qos.value, "cgroup": spec.cgroup}
        yield Event("info", "pod.appeared", keys)
    for key in sorted(old.keys() - new.keys()):
        yield Event("info", "pod.vanished", {"pod": old[key].name, "qos": old[key].qos.value})


def _signals(before: Tick | None, now: Tick) -> Iterator[Event]:
    old = {(s.name, s.subject): s for s in before.decision.signals} if before else {}
    new = {(s.name, s.subject): s for s in now.decision.signals}
    for key in sorted(new.keys() - old.keys()):
        yield Event("info", f"{key[0]}.began", {"subject": key[1], "evidence": new[key].evidence})
    for key in sorted(old.keys() - new.keys()):
        lasted_s = round(now.snapshot.at - old[key].since, 1)
        yield Event("info", f"{key[0]}.ended", {"subject": key[1], "lasted_s": lasted_s})


def _limit(before: Tick | None, now: Tick) -> Iterator[Event]:
    old = before.decision.batch_limit_cores if before else None
    new = now.decision.batch_limit_cores
    if new is not None and new != old:
        keys: dict[str, Value] = {"cores": round(new, 3), "why": now.decision.limit_why}
        if old is not None:
            keys["was_cores"] = round(old, 3)
        notable = old is None or new < NOTABLE_FALL * old
        yield Event("info" if notable else "debug", "batch.limit", keys)


def _unplaced(before: Tick | None, now: Tick) -> Iterator[Event]:
    old = before.decision.placement if before else None
    told = dict(old.unplaced) if old else {}
    found = now.decision.placement
    for uid, why in found.unplaced if found else ():
        if told.get(uid) != why:
            yield Event("warning", "pod.unplaced", {"pod": uid, "why": why})


def _writes(before: Tick | None, now: Tick) -> Iterator[Event]:
    told = {(o.change.knob, o.error) for o in before.outcomes} if before else set()
    for outcome in now.outcomes:
        change = outcome.change
        unit = UNITS[change.knob.kind]
        keys: dict[str, Value] = {
            "knob": str(change.knob),
            f"old_{unit}": change.old,
            f"new_{unit}": change.new,
        }
        if outcome.ok:
            yield Event("debug", "knob.written", {**keys, "why": change.why})
        else:
            level = "debug" if (change.knob, outcome.error) in told else "warning"
            yield Event(level, "knob.refused", {**keys, "error": outcome.error})


def _drifts(before: Tick | None, now: Tick) -> Iterator[Event]:
    old = {d.knob: d.count for d in before.decision.drifts} if before else {}
    for drift in now.decision.drifts:
        if drift.count != old.get(drift.knob, 0):
            wait_s = round(max(0.0, drift.quiet_until - now.snapshot.at), 1)
            keys: dict[str, Value] = {"knob": str(drift.knob), "found": drift.found, "count": drift.count}
            yield Event("warning", "knob.drift", {**keys, "next_write_s": wait_s})


def _offer(before: Tick | None, now: Tick) -> Iterator[Event]:
    old = before.decision.capacity.withdrawn if before else ""
    new = now.decision.capacity.withdrawn
    if new and not old:
        yield Event("warning" if before else "info", "offer.withdrawn", {"why": new})
    elif old and not new:
        yield Event("info", "offer.restored", {"was": old})
