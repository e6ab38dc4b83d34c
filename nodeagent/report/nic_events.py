"""What happened to NICs between two ticks: how each is shaped, what tells whose a packet is, what failed."""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.model.decision import Tick
from nodeagent.model.nic import Classifier, Scheduler
from nodeagent.model.nic_told import NetTold, NicTold, Untold, told
from nodeagent.model.pod import Qos
from nodeagent.report.event import Event, Value, gist

NOTABLE_STEP = 1.2  # a ceiling that rises or falls by less is not worth a line, even for those who debug
NAMED = 5  # pods in one line; the rest is counted


def nic_events(before: Tick | None, now: Tick) -> Iterator[Event]:
    """NICs shaped, let be, up, down or no longer looked after; the classifier; pods that it cannot tell."""
    old, new = (told(before) if before else None), told(now)
    was = {nic.name: nic for nic in old.nics} if old else {}
    there = {nic.name: nic for nic in new.nics} if new else {}
    for name, nic in there.items():
        yield from _shaped(was.get(name), nic)
        yield from _link(was.get(name), nic)
        yield from _ceiling(was.get(name), nic)
    for name in sorted(was.keys() - there.keys()):
        yield Event("info", "nic.left", {"nic": name})
    if new is not None:
        yield from _marks(old, new)
        yield from _failed(old, new)


def _shaped(old: NicTold | None, new: NicTold) -> Iterator[Event]:
    if old is not None and _way(old) == _way(new):
        return
    keys: dict[str, Value] = {"nic": new.name, "role": new.role.value, "step": new.scheduler.value}
    if new.egress is None:
        level = "info" if old is None or old.egress is None else "warning"
        yield Event(level, "nic.let_be", {**keys, "why": new.why})
        return
    keys |= {"top_bps": new.egress.top_bps, "ingress": new.ingress is not None}
    yield Event("info", "nic.shaped", {**keys, "why": new.why} if new.why else keys)


def _way(nic: NicTold) -> tuple[str, Scheduler, float | None, bool, str]:
    top_bps = None if nic.egress is None else nic.egress.top_bps
    return nic.role, nic.scheduler, top_bps, nic.ingress is not None, gist(nic.why)


def _link(old: NicTold | None, new: NicTold) -> Iterator[Event]:
    """Only changes: at the start a NIC that is down is seen in its absence of traffic."""
    if old is None or old.up == new.up:
        return
    if new.up:
        speed: dict[str, Value] = {} if new.link_bps is None else {"link_bps": new.link_bps}
        yield Event("info", "nic.up", {"nic": new.name, **speed})
    else:
        gone = new.up is None
        yield Event("warning", "nic.down", {"nic": new.name, "why": "not there" if gone else "down"})


def _ceiling(old: NicTold | None, new: NicTold) -> Iterator[Event]:
    was, now = _batch_bps(old), _batch_bps(new)
    if was is None or now is None or 1 / NOTABLE_STEP < (now + 1) / (was + 1) < NOTABLE_STEP:
        return
    yield Event("debug", "nic.ceiling", {"nic": new.name, "ceiling_bps": now, "was_bps": was})


def _batch_bps(nic: NicTold | None) -> float | None:
    classes = nic.egress.classes if nic is not None and nic.egress is not None else ()
    return next((each.ceiling_bps for each in classes if each.qos is Qos.BATCH), None)


def _marks(old: NetTold | None, new: NetTold) -> Iterator[Event]:
    if old is None or (old.classifier, gist(old.why)) != (new.classifier, gist(new.why)):
        level = "warning" if new.classifier is Classifier.NONE else "info"
        keys: dict[str, Value] = {"classifier": new.classifier.value}
        yield Event(level, "nic.classifier", {**keys, "why": new.why} if new.why else keys)
    known = {(each.uid, gist(each.why)) for each in old.unclassified} if old else set()
    fresh: dict[str, list[Untold]] = {}
    for each in new.unclassified:
        if (each.uid, gist(each.why)) not in known:
            fresh.setdefault(gist(each.why), []).append(each)
    for pods in fresh.values():
        more = f" +{len(pods) - NAMED}" if len(pods) > NAMED else ""
        names = ", ".join(each.name for each in pods[:NAMED]) + more
        yield Event("warning", "nic.unclassified", {"pods": names, "count": len(pods), "why": pods[0].why})


def _failed(old: NetTold | None, new: NetTold) -> Iterator[Event]:
    known = {gist(line) for line in old.failed} if old else set()
    for line in new.failed:
        if gist(line) not in known:
            yield Event("warning", "nic.failed", {"what": line})
