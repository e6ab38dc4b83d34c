"""Why Batch as a whole may use what it may: what online work leaves, halved under pressure, growing slowly.

The law's own word for what it did (`limit_why`) tells which of its rules it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from nodeagent.core import directives, limit, rise, yields
from nodeagent.core.explain.ground import Ground
from nodeagent.core.explain.law import Given, Unit, reason
from nodeagent.model.directive import DirectiveStatus, Hold, Recall
from nodeagent.model.explanation import Reason

BY = "batch limit"
ROOM = "max(0, total * ceiling_ratio - max(reserved, system) - online_recent)"
THERE = "max(0, min(total, reach) * ceiling_ratio - max(reserved, system) - reach_online)"
YIELDING = "max(0, total * yielding_ratio - max(reserved, system))"
YIELDING_THERE = "max(0, min(total, reach) * yielding_ratio - max(reserved, system))"
KEPT = frozenset({limit.UNKNOWN, limit.UNSEEN, limit.HURT_LATELY, limit.DEAD_BAND})
GROWN = frozenset({limit.RECOVERS, limit.GROWS})


def reasons(ground: Ground) -> Iterator[Reason]:
    """The ceiling by what online work uses now, then the limit."""
    yield _ceiling(ground)
    yield from _roof(ground)
    yield _limit(ground)


def _cores(name: str, value: float, source: str) -> Given:
    return Given(name, value, source, Unit.CORES)


def _ceiling(ground: Ground) -> Reason:
    name, t = "batch.ceiling", ground.thought
    ceiling, steal, system = t.ceiling_cores, t.sight.view.steal_cores, t.use.system_cores
    seen = ground.tick.snapshot
    recent = rise.most_cores(t.window, seen.outside_cores, system, seen.topology.cores)
    if ceiling is None or steal is None or system is None or recent is None:
        return Reason(name=name, result="not known", by=BY, why="what online work or the system uses is not")
    policy = t.formula
    if t.use.online_cores is None:  # the use of some pods is in the system's
        recent += min(policy.reserved_cpu_cores, system)
    total = max(0.0, seen.topology.cores - steal)
    given = [
        _cores("total", total, "online CPUs less steal in /proc/stat"),
        Given("ceiling_ratio", policy.cpu_ceiling_ratio, "policy: capacity.cpu_ceiling_ratio"),
        _cores("reserved", policy.reserved_cpu_cores, "policy: capacity.reserved_cpu_cores"),
        _cores("system", system, "/proc/stat minus all pods"),
        _cores("online_recent", recent, f"most of LS and MID in {ground.policy.cpu.window_s:g} s, or now"),
    ]
    rule = ROOM
    if t.within is not None:
        elsewhere = max(0.0, (t.use.told_cores or 0.0) - t.within.online_cores)
        there = max(t.within.online_cores, recent - elsewhere)
        given += [
            _cores("reach", t.within.cores, "CPUs that no pod owns"),
            _cores("reach_online", there, "of online_recent, on these CPUs"),
        ]
        rule = f"min({ROOM}, {THERE})"
    cpu = ground.policy.cpu
    if yields.ceiling_cores(t.sight.view, t.scene.knobs, t.use, (policy, cpu), t.within) is not None:
        ratio = Given(
            "yielding_ratio",
            cpu.yielding_ceiling_ratio,
            "policy: cpu.yielding_ceiling_ratio; Batch gives way",
        )
        given, rule = [*given, ratio], f"max({rule}, {YIELDING if t.within is None else YIELDING_THERE})"
    return reason(name, rule, given, ceiling, Unit.CORES, by=BY)


def _limit(ground: Ground) -> Reason:
    name, decision = "batch.limit", ground.tick.decision
    cores, why = decision.batch_limit_cores, decision.limit_why
    if cores is None:
        return Reason(name=name, result="not known", by=BY, why=f"nothing is limited yet: {why}")
    rule, given = _law(ground, why)
    return reason(name, rule, given, cores, Unit.CORES, by=BY, why=why)


def _roof(ground: Ground) -> Iterator[Reason]:
    """What directives leave: a hold, or the way down of a recall."""
    t = ground.thought
    if math.isinf(t.roof.cores):
        return
    floor = _cores("floor", _least(ground), "policy: cpu.floor_cores")
    held = t.orders.hold
    if held is not None and isinstance(held.directive.order, Hold) and t.roof.why.startswith("hold "):
        asked = _cores("hold", held.directive.order.cpu_cores or 0.0, directives.named(held))
        rule, given = "max(floor, hold)", [floor, asked]
    else:
        rule, given = _recall(ground, t.orders.recall, floor)
    yield reason("batch.roof", rule, given, t.roof.cores, Unit.CORES, by="directive", why=t.roof.why)


def _recall(ground: Ground, status: DirectiveStatus | None, floor: Given) -> tuple[str, list[Given]]:
    """On a straight line from what it was to the floor, step by step."""
    now, before, last = ground.tick.snapshot.unix, ground.before.previous, ground.thought.last.cores
    order = None if status is None else status.directive.order
    if status is None or not isinstance(order, Recall) or now >= order.deadline_unix:
        return "floor", [floor]
    was = _cores("last", last or 0.0, "in force in the tick before")
    since = now if before is None else max(status.taken_unix, before.unix)
    if since >= now:
        return "last", [was]
    left = Given("left_s", order.deadline_unix - now, "until the deadline", Unit.SECONDS, fine=True)
    span = Given("span_s", order.deadline_unix - since, "the same a tick ago", Unit.SECONDS, fine=True)
    return "floor + max(0, last - floor) * left_s / span_s", [floor, was, left, span]


def _least(ground: Ground) -> float:
    return min(ground.policy.cpu.floor_cores, float(ground.tick.snapshot.topology.cores))


def _law(ground: Ground, why: str) -> tuple[str, list[Given]]:
    t, total = ground.thought, float(ground.tick.snapshot.topology.cores)
    floor = _cores("floor", _least(ground), "policy: cpu.floor_cores")
    last = [] if t.last.cores is None else [_cores("last", t.last.cores, "in force in the tick before")]
    if why in KEPT or why.startswith(limit.JUST_HALVED):
        return "max(floor, last)", [floor, *last]
    if why == t.roof.why and why:
        return "roof", [_cores("roof", t.roof.cores, "batch.roof")]
    capped = directives.capped(t.ceiling_cores, t.roof)
    source = "batch.ceiling" if capped == t.ceiling_cores else "batch.ceiling, at most batch.roof"
    ceiling = [] if capped is None else [_cores("ceiling", capped, source)]
    if why == limit.CEILING:
        return "max(floor, ceiling)", [floor, *ceiling]
    if why in GROWN:
        rule = "min(max(floor, ceiling), max(floor, last) + recover_ratio_per_s * total * elapsed_s)"
        return rule, [floor, *ceiling, *last, *_growth(ground, total)]
    used = limit.batch_cores(t.sight.view)
    use = [] if used is None else [_cores("used", used, "what Batch uses now")]
    node = _cores("total", total, "online CPUs")
    bounds = [node, *last, *ceiling, *use]
    names = ", ".join("max(floor, last)" if g.name == "last" else g.name for g in bounds)
    return f"max(floor, min({names}) / 2)", [floor, *bounds, *_pressure(ground)]


def _pressure(ground: Ground) -> list[Given]:
    told = ground.tick.decision
    signals = limit.undirected(told.signals, told.interference.directed)
    hurt = next((s for s in signals if s.name == limit.LS_PRESSURE), None)
    if hurt is None:
        return []
    ratio = ground.policy.pressure.ls_cpu_stall_ratio
    return [
        Given("waits", hurt.level, hurt.evidence),
        Given("may_wait", ratio, "policy: pressure.ls_cpu_stall_ratio"),
    ]


def _growth(ground: Ground, total: float) -> list[Given]:
    ratio = ground.policy.cpu.recover_ratio_per_s
    elapsed_s = limit.step_s(ground.thought.sight.view)
    return [
        Given("recover_ratio_per_s", ratio, "policy: cpu.recover_ratio_per_s"),
        _cores("total", total, "online CPUs"),
        Given("elapsed_s", elapsed_s, "since the tick before", Unit.SECONDS, fine=True),
    ]
