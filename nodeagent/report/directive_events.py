"""Directives as events: taken, ended, expired, refused; each with who asked."""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.model.decision import Tick
from nodeagent.model.directive import DirectiveStatus, End, Hold, State
from nodeagent.model.settings import Mode
from nodeagent.report.event import Event, Value


def directive_events(before: Tick | None, now: Tick) -> Iterator[Event]:
    """What was taken and what is over since the tick before, what was refused, and the mode that came of it.

    At the agent's start, what is in force from before is "resumed".
    """
    known = {s.directive.id: s.state for s in before.snapshot.directives} if before else {}
    for status in now.snapshot.directives:
        of = status.directive
        if of.id not in known and (before is not None or status.state is State.IN_FORCE):
            name = "directive.resumed" if before is None else "directive.taken"
            lasts_s = round(status.ends_unix - now.snapshot.unix, 1)
            lease: dict[str, Value] = {} if isinstance(of.order, End) else {"lasts_s": lasts_s}
            yield Event("info", name, {**_keys(status), **lease, **_amounts(status), "reason": of.reason})
        if status.state is not State.IN_FORCE and not isinstance(of.order, End):
            name = "directive.expired" if status.state is State.EXPIRED else "directive.ended"
            yield Event("info", name, {**_keys(status), "state": status.state.value})
    for refusal in now.snapshot.refused:
        keys: dict[str, Value] = {"id": refusal.id, "issuer": refusal.issuer, "code": refusal.code.name}
        yield Event("warning", "directive.refused", {**keys, "why": refusal.message})
    yield from _mode(before, now)


def _mode(before: Tick | None, now: Tick) -> Iterator[Event]:
    """An agent that may write begins or ceases to."""
    was = before.decision.mode if before else now.snapshot.mode
    mode = now.decision.mode
    if mode is not was and mode is not None and now.snapshot.mode is Mode.ENFORCE:
        yield Event("info", "mode.changed", {"mode": mode.value})


def _keys(status: DirectiveStatus) -> dict[str, Value]:
    of = status.directive
    return {"id": of.id, "kind": of.kind, "issuer": status.issuer}


def _amounts(status: DirectiveStatus) -> dict[str, Value]:
    order = status.directive.order
    if isinstance(order, End):
        return {"ends": order.id}
    if not isinstance(order, Hold):
        return {}
    told = {"cpu_cores": order.cpu_cores, "memory_bytes": order.memory_bytes}
    return {name: value for name, value in told.items() if value is not None}
