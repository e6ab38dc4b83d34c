"""Who waited for CPU in the last moment, and whether that is worth a tick before its time.

Between ticks only totals are looked at: of a pod, and of the cgroup above it. A pod that was not looked at
when the moment began is judged by its looks before:

    its wait in the moment >= its wait since that look - what all above it waited from then to the moment

PSI "some" of a cgroup grows whenever that of a cgroup inside does (Linux Documentation/accounting/psi.rst),
so nobody waits longer than the cgroup above: that gives this bound, and shuts the gate to all pods in it.
A moment is SPAN_S, as in `waits`: what is over the threshold here is what the detector calls hurt.

Invariant: more waiting in the moment never wakes less; what is not known wakes nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from nodeagent.core import waits
from nodeagent.core.limit import HALVE_GAP_S
from nodeagent.core.waits import SPAN_S
from nodeagent.model.decision import BatchLimit, Memory, Wait
from nodeagent.model.policy import Policy
from nodeagent.model.snapshot import Stalled

HINT = 0.5  # of what is worth a tick is worth another look soon


class Look(NamedTuple):
    """us that a cgroup waited until `at` (monotonic s), all above it by then, and it for its own quota."""

    at: float
    waited_us: int
    above_us: int = 0
    own_us: int = 0


Trail = tuple[Look, ...]  # oldest first


def noted(trail: Trail, look: Look) -> Trail:
    """`trail` with one look more: what reaches SPAN_S back, and the last look before that."""
    first = 0
    while first < len(trail) and look.at - trail[first].at > SPAN_S:
        first += 1
    return (*trail[max(0, first - 1) :], look)


def began(trail: Trail) -> Look | None:
    """The first look of the moment that ends with the last one; where all are older, the one before it."""
    if len(trail) < 2:
        return None
    now = trail[-1].at
    return next((each for each in trail[:-1] if now - each.at <= SPAN_S), trail[-2])


def lately(trail: Trail, above: Look | None = None) -> tuple[float, float] | None:
    """(seconds, of which waited at least so many) until the last look; None before the second look.

    `above` is where the moment began for the cgroup above, whose last look was at the same time.
    """
    start = began(trail) if above is None else above
    if len(trail) < 2 or start is None:
        return None
    now, most_us = trail[-1], 0
    for look in trail[:-1]:
        if look.at >= start.at:
            before_us = 0
        elif above is not None:
            before_us = max(0, above.waited_us - look.above_us)
        else:
            continue
        own_us = max(0, now.own_us - look.own_us)
        most_us = max(most_us, now.waited_us - look.waited_us - own_us - before_us)
    return now.at - start.at, most_us / 1e6


def share(span_s: float, waited_s: float) -> float:
    """Of wall time, and of SPAN_S at least: within [0, 1]."""
    return min(1.0, waited_s / max(span_s, SPAN_S))


def grave(stalled: Stalled, usual: Wait | None, most_ratio: float, part: float = 1.0) -> bool:
    """It waits longer than it may, on top of what it waited in the last tick: short spans vary more.

    With `part` that share of it is enough.
    """
    before = 0.0 if usual is None else min(waits.ratio(usual), most_ratio)
    return share(stalled.span_s, stalled.waited_s) > part * (most_ratio + before)


def overlaid(
    after: Mapping[str, Wait], last: Mapping[str, Wait], stalled: Iterable[Stalled], policy: Policy
) -> dict[str, Wait]:
    """The waits `after` this tick; a surge counts with its own short span, not thinned out by the tick's."""
    waited = dict(after)
    for s in stalled:
        whole = waited.get(s.uid)
        if whole is None or not grave(s, last.get(s.uid), policy.pressure.ls_cpu_stall_ratio):
            continue
        if share(s.span_s, s.waited_s) > waits.ratio(whole):
            waited[s.uid] = Wait(s.span_s, s.waited_s, whole.source)
    return waited


def to_lose(memory: Memory, policy: Policy) -> bool:
    """Batch may use more than its floor: else an early tick could do nothing."""
    seen, limit = memory.previous, memory.batch.cores
    if seen is None or limit is None:
        return False
    return limit > min(policy.cpu.floor_cores, float(seen.topology.cores))


def lowered(before: BatchLimit, after: BatchLimit) -> bool:
    """The tick between them has cut Batch."""
    return after.cores is not None and (before.cores is None or after.cores < before.cores)


def just_cut(at: float, memory: Memory) -> bool:
    """What was cut has not shown yet (`limit.HALVE_GAP_S`)."""
    return memory.batch.hurt_at is not None and at - memory.batch.hurt_at < HALVE_GAP_S


def worth_a_tick(
    stalled: Iterable[Stalled],
    memory: Memory,
    directed: Collection[str],
    policy: Policy,
    part: float = 1.0,
) -> bool:
    """Somebody waits for whose sake Batch would be cut; `part` as for `grave`.

    `directed` are the pods for whose sake one antagonist is held (`limit.undirected`).
    """
    most = policy.pressure.ls_cpu_stall_ratio
    return any(s.uid not in directed and grave(s, memory.waits.get(s.uid), most, part) for s in stalled)
