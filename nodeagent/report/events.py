"""What happened between two ticks, as events with keys: once per change, not once per tick."""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.model.decision import Tick
from nodeagent.model.plan import BURST, Kind, Setting, shown
from nodeagent.model.pod import PodSpec
from nodeagent.report.directive_events import directive_events
from nodeagent.report.event import Event, Value, gist
from nodeagent.report.interference_events import interference_events
from nodeagent.report.nic_events import nic_events
from nodeagent.report.pages import page_events
from nodeagent.report.pod_list_events import pod_list_events

NOTABLE_FALL = 0.8  # a limit that falls below this share of the last one is worth a line
UNITS = {
    Kind.CPU_QUOTA: "cores",
    Kind.CPU_WEIGHT: "weight",
    Kind.CPU_BURST: "cores",
    Kind.CPUS: "cpus",
    Kind.MEMS: "mems",
    Kind.MIGRATE: "switch",
    Kind.MEMORY_HIGH: "bytes",
    Kind.IO_WEIGHT: "weight",
    Kind.FREEZE: "frozen",
    Kind.NET_CLASS: "class",
    Kind.NIC_RATE: "bps",
    Kind.NIC_CEIL: "bps",
}


def events(before: Tick | None, now: Tick) -> Iterator[Event]:
    """The list, pods, directives, signals, interference, limits, places, pages, NICs, writes, the offer."""
    yield from pod_list_events(before, now)
    yield from _pods(before, now)
    yield from directive_events(before, now)
    yield from _signals(before, now)
    yield from interference_events(before, now)
    yield from _limit(before, now)
    yield from _places(before, now)
    yield from _others(before, now)
    yield from _bursts(before, now)
    yield from page_events(before, now)
    yield from nic_events(before, now)
    yield from _absent(before, now)
    yield from _writes(before, now)
    yield from _drifts(before, now)
    yield from _offer(before, now)


def _pods(before: Tick | None, now: Tick) -> Iterator[Event]:
    if before is not None and _same_pods(before, now):
        return
    old = {(p.spec.uid, p.spec.inode): p.spec for p in before.snapshot.pods} if before else {}
    new = {(p.spec.uid, p.spec.inode): p.spec for p in now.snapshot.pods}
    for key in sorted(new.keys() - old.keys()):
        spec = new[key]
        keys: dict[str, Value] = {"pod": spec.name, "qos": spec.qos.value, "cgroup": spec.cgroup}
        yield Event("info", "pod.appeared", keys)
    for key in sorted(old.keys() - new.keys()):
        yield Event("info", "pod.vanished", {"pod": old[key].name, "qos": old[key].qos.value})
    for key in sorted(key for key in old.keys() & new.keys() if old[key] is not new[key]):
        yield from _renamed(old[key], new[key])


def _same_pods(before: Tick, now: Tick) -> bool:
    """As in most ticks; False may be wrong."""
    old, new = before.snapshot.pods, now.snapshot.pods
    return len(old) == len(new) and all(was.spec is pod.spec for was, pod in zip(old, new, strict=True))


def _renamed(old: PodSpec, new: PodSpec) -> Iterator[Event]:
    """Kubernetes has told who it is, or its label has changed."""
    if (old.name, old.qos) != (new.name, new.qos):
        keys: dict[str, Value] = {"pod": new.name, "qos": new.qos.value, "cgroup": new.cgroup}
        yield Event("info", "pod.known", {**keys, "was": old.name, "was_qos": old.qos.value})


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


def _places(before: Tick | None, now: Tick) -> Iterator[Event]:
    """Who got CPUs of its own or other ones, and who asks for them in vain."""
    old = before.decision.placement if before else None
    new = now.decision.placement
    told, sat = ({u: gist(w) for u, w in old.unplaced}, set(old.bound)) if old else ({}, set())
    names = {p.spec.uid: p.spec.name for p in now.snapshot.pods}
    for uid, why in new.unplaced if new else ():
        if told.get(uid) != gist(why):
            yield Event("warning", "pod.unplaced", {"pod": names.get(uid, uid), "why": why})
    for placed in new.bound if new else ():
        if placed not in sat:
            pod = names.get(placed.uid, placed.uid)
            yield Event("info", "pod.bound", {"pod": pod, "cpus": placed.cpus, "mems": placed.mems})


def _others(before: Tick | None, now: Tick) -> Iterator[Event]:
    """Whose CPUs are in no pool, and when that can no longer be read."""
    old = before.decision.placement if before else None
    new = now.decision.placement
    known = set(old.owned) if old else set()
    for owned in new.owned if new else ():
        if owned not in known:
            yield Event("info", "cpus.hands_off", {"cpus": owned.cpus, "pod": owned.uid, "why": owned.why})
    for gone in sorted(known.difference(new.owned if new else ()), key=lambda o: (o.uid, o.cpus)):
        yield Event("info", "cpus.returned", {"cpus": gone.cpus, "pod": gone.uid})
    for why in now.snapshot.foreign.unknown:
        if before is None or why not in before.snapshot.foreign.unknown:
            yield Event("warning", "owners.unknown", {"why": why})


def _bursts(before: Tick | None, now: Tick) -> Iterator[Event]:
    old, new = _bursting(before), _bursting(now)
    for cgroup in sorted(new.keys() - old.keys()):
        keys: dict[str, Value] = {"cgroup": cgroup, "quota_cores": new[cgroup].value, "why": new[cgroup].why}
        yield Event("info", "burst.began", keys)
    for cgroup in sorted(old.keys() - new.keys()):
        yield Event("info", "burst.ended", {"cgroup": cgroup})


def _bursting(tick: Tick | None) -> dict[str, Setting]:
    plan = tick.decision.plan if tick else ()
    return {s.knob.target: s for s in plan if s.by == BURST and s.knob.kind is Kind.CPU_QUOTA}


def _absent(before: Tick | None, now: Tick) -> Iterator[Event]:
    """Steps against an antagonist that cannot be taken on this node."""
    told = before.snapshot.absent if before else ()
    for knob in now.snapshot.absent:
        if knob not in told:
            keys: dict[str, Value] = {"knob": str(knob), "why": "not on this node, or not of this pod"}
            yield Event("warning", "knob.absent", keys)


def _writes(before: Tick | None, now: Tick) -> Iterator[Event]:
    told = {(o.change.knob, o.error) for o in before.outcomes} if before else set()
    for outcome in now.outcomes:
        change = outcome.change
        unit = UNITS[change.knob.kind]
        keys: dict[str, Value] = {
            "knob": str(change.knob),
            f"old_{unit}": _told(change.knob.kind, change.old),
            f"new_{unit}": _told(change.knob.kind, change.new),
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
            keys: dict[str, Value] = {
                "knob": str(drift.knob),
                "found": _told(drift.knob.kind, drift.found),
                "count": drift.count,
            }
            yield Event("warning", "knob.drift", {**keys, "next_write_s": wait_s})


def _told(kind: Kind, value: Value) -> Value:
    """A number or a set as it is; a network class as people write it."""
    return shown(value, kind) if kind is Kind.NET_CLASS and isinstance(value, float) else value


def _offer(before: Tick | None, now: Tick) -> Iterator[Event]:
    old = before.decision.capacity.withdrawn if before else ""
    new = now.decision.capacity.withdrawn
    if new and not old:
        yield Event("warning" if before else "info", "offer.withdrawn", {"why": new})
    elif old and not new:
        yield Event("info", "offer.restored", {"was": old})
