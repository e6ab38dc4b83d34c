"""How the Batch limit is split: to each Batch pod by weighted max-min fairness, to each tier its pods' sum.

A pod's weight is its CPU request (1 core when it has none) times its priority's factor. A pod that does
not use its quota leaves the rest to the others; one that is throttled gets its full fair share back in
the next tick. A pod outside the scope, itself and its tier, is not bounded: what it uses is taken off first.
What a restrained pod must do without goes to the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from msgspec import Struct

from nodeagent.core.fair import max_min
from nodeagent.core.rates import PodRates, View
from nodeagent.core.restrained import NONE, in_force
from nodeagent.model.interference import Restraint
from nodeagent.model.plan import Kind, Knob, KnobReading, numeric
from nodeagent.model.pod import PodSpec, Priority

PRIORITY_FACTOR = {Priority.HIGH: 4.0, Priority.MEDIUM: 2.0, Priority.LOW: 1.0}
DEFAULT_REQUEST_CORES = 1.0
HUNGRY_RATIO = 0.8  # a pod that uses this much of its quota wants more
SPARE_FACTOR, SPARE_CORES = 1.5, 0.05  # room left to a pod that does not
SETTLED_FACTOR = 2.0  # what such a pod holds is left alone up to this share of what it wants


class Shares(Struct, frozen=True, gc=False):
    """Cores by cgroup in scope: of every Batch pod, and of every tier."""

    pods: dict[str, float]
    tiers: dict[str, float]


class Claims(Struct, frozen=True, gc=False):
    """`left` is shared, after what Batch pods out of scope use (`outside`) and what a trial keeps back.

    By pod: weight, what it could use now, and the most that it may have, in cores.
    """

    outside: float
    withheld: float
    left: float
    pods: list[PodRates]
    weights: list[float]
    demands: list[float]
    roofs: list[float]


def weight(spec: PodSpec) -> float:
    """Request in cores times the priority's factor."""
    return (spec.cpu_request_cores or DEFAULT_REQUEST_CORES) * PRIORITY_FACTOR[spec.priority]


def own_limit(reading: KnobReading | None) -> float:
    """The quota a cgroup has or had without us, in cores; inf when it has none."""
    if reading is None:
        return math.inf
    return numeric(reading.actual if reading.original is None else reading.original)


def split(
    view: View,
    limit_cores: float,
    floor_cores: float,
    scope: frozenset[str],
    knobs: Mapping[Knob, KnobReading],
    restraints: Mapping[str, Restraint] = NONE,
) -> Shares:
    """Shares of `limit_cores` for the Batch pods and tiers whose cgroup is in `scope`."""
    c = claims(view, limit_cores, floor_cores, scope, knobs, restraints)
    pods = {p.pod.spec.cgroup: first + rest for p, (first, rest) in zip(c.pods, granted(c), strict=True)}
    tiers = _tiers(view, c.pods, pods, c.left, scope)
    return Shares({cgroup: cores for cgroup, cores in pods.items() if cgroup in scope}, tiers)


def claims(
    view: View,
    limit_cores: float,
    floor_cores: float,
    scope: frozenset[str],
    knobs: Mapping[Knob, KnobReading],
    restraints: Mapping[str, Restraint] = NONE,
) -> Claims:
    """What there is to share, and who asks for how much of it."""
    held = in_force(view, scope, restraints)
    batch = [p for p in view.pods if not p.pod.spec.online]
    outside = sum(p.cores or 0.0 for p in batch if not _bounded(p.pod.spec, scope))
    bounded = [p for p in batch if _bounded(p.pod.spec, scope)]
    quotas = [knobs.get(Knob(Kind.CPU_QUOTA, p.pod.spec.cgroup)) for p in bounded]
    withheld = sum(restraint.withheld_cores for restraint in held.values())
    caps = [cap_cores(held.get(p.pod.spec.cgroup)) for p in bounded]
    return Claims(
        outside,
        withheld,
        max(floor_cores, limit_cores - outside - withheld),
        bounded,
        [weight(p.pod.spec) for p in bounded],
        [min(_demand(p, q), cap) for p, q, cap in zip(bounded, quotas, caps, strict=True)],
        [min(_roof(p, q), cap) for p, q, cap in zip(bounded, quotas, caps, strict=True)],
    )


def cap_cores(restraint: Restraint | None) -> float:
    """The most that a restraint leaves a pod; inf without one."""
    return math.inf if restraint is None or restraint.quota_cores is None else restraint.quota_cores


def granted(c: Claims) -> list[tuple[float, float]]:
    """Cores for each pod, by what it could use, and of what then nobody wants.

    When nobody could use more than its fair share of all, that is what everybody gets, as the second part.
    """
    shares = max_min(c.left, c.weights, c.roofs)
    if not any(wanted > fair for wanted, fair in zip(c.demands, shares, strict=True)):
        return [(0.0, share) for share in shares]
    first = max_min(c.left, c.weights, c.demands)
    return list(zip(first, _spread(c, first), strict=True))


def _bounded(spec: PodSpec, scope: frozenset[str]) -> bool:
    return spec.cgroup in scope or spec.tier in scope


def _demand(rates: PodRates, quota: KnobReading | None) -> float:
    """Cores that the pod could use now: all it may have when it is throttled, at its quota, or not known."""
    roof = _roof(rates, quota)
    if rates.cores is None or quota is None or (rates.throttled_ratio or 0.0) > 0.0:
        return roof
    found = numeric(quota.actual)
    if math.isinf(found) or rates.cores >= HUNGRY_RATIO * found:
        return roof
    wanted = min(roof, rates.cores * SPARE_FACTOR + SPARE_CORES)
    held = math.inf if quota.written is None else numeric(quota.written)
    if wanted < roof and wanted / SPARE_FACTOR <= held <= wanted * SETTLED_FACTOR:
        return min(roof, held)
    return wanted


def _roof(rates: PodRates, quota: KnobReading | None) -> float:
    """The most a pod may have: its own limit, and while its use is not known no more than it holds."""
    if rates.cores is None and quota is not None and quota.written is not None:
        return min(own_limit(quota), numeric(quota.written))
    return own_limit(quota)


def _spread(c: Claims, shares: list[float]) -> list[float]:
    """Nobody wants the rest now: hand it out by weight all the same, so that no quota binds needlessly."""
    rest = c.left - sum(shares)
    if rest <= 0.0 or not shares:
        return [0.0] * len(shares)
    return max_min(rest, c.weights, [r - s for r, s in zip(c.roofs, shares, strict=True)])


def _tiers(
    view: View, bounded: list[PodRates], pods: dict[str, float], left: float, scope: frozenset[str]
) -> dict[str, float]:
    """A tier gets its pods' sum; alone, or without pods, it gets all."""
    sums: dict[str, float] = {}
    for p in bounded:
        home = p.pod.spec.tier or ""
        sums[home] = sums.get(home, 0.0) + pods[p.pod.spec.cgroup]
    here = [t for t in view.snapshot.tiers if t in scope]
    return {t: left if t not in sums or len(sums) == 1 else sums[t] for t in here}
