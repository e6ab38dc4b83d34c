"""Why a quota is what it is: of a tier, and of a Batch pod inside it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from nodeagent.core import limit, share
from nodeagent.core.explain.ground import Ground
from nodeagent.core.explain.law import Given, Unit, amount, reason
from nodeagent.core.restrained import in_force
from nodeagent.model.explanation import Reason
from nodeagent.model.plan import Knob, Setting, numeric
from nodeagent.model.pod import PodSpec

POLICY = "policy: "
FIRST = "min(could_use, level * weight)"
REST = "min(may_have - first, rest_level * weight)"


def of_tier(ground: Ground, setting: Setting) -> Iterator[Reason]:
    """What is shared, then the tier's quota."""
    shared = _shared(ground)
    shares = ground.thought.scene.shares
    if shared is None or shares is None:
        return
    yield shared
    tier, what = setting.knob.target, "batch.shared"
    cores = shares.tiers.get(tier, math.inf)
    if cores != _claims(ground).left:
        what = "sum of the shares of its pods"
    given = (_cores("share", cores, what), _own(ground, setting.knob))
    yield _quota(setting, "min(share, own_limit)", given)


def of_pod(ground: Ground, setting: Setting, spec: PodSpec) -> Iterator[Reason]:
    """Its fair share, then its quota within its bounds; while no limit is known, its restraint."""
    if ground.tick.decision.batch_limit_cores is None:
        yield _quota(setting, "restrained_to", (_restrained(_cap(ground, setting.knob.target)),))
        return
    claims = _claims(ground)
    index = next((i for i, p in enumerate(claims.pods) if p.pod.spec.uid == spec.uid), None)
    if index is None:
        return
    yield _share(claims, index, spec)
    yield _bounded(ground, setting, sum(share.granted(claims)[index]))


def kept(ground: Ground, setting: Setting) -> Reason:
    """While the Batch limit is not known, what is held."""
    written = numeric(ground.readings[setting.knob].written or 0.0)
    given = (_cores("written", written, "what we wrote last"), _own(ground, setting.knob))
    pods = ground.tick.snapshot.pods
    batch = any(not p.spec.online and p.spec.cgroup == setting.knob.target for p in pods)
    return _quota(setting, "min(written, own_limit)" if batch else "written", given if batch else given[:1])


def _cores(name: str, value: float, source: str, *, fine: bool = False) -> Given:
    return Given(name, value, source, Unit.CORES, fine)


def _quota(setting: Setting, rule: str, given: tuple[Given, ...], why: str = "") -> Reason:
    value = numeric(setting.value)
    return reason(str(setting.knob), rule, given, value, Unit.CORES, by=setting.by, why=why or setting.why)


def _own(ground: Ground, knob: Knob) -> Given:
    own = share.own_limit(ground.readings.get(knob))
    return _cores("own_limit", own, "its quota without us")


def _grid(ground: Ground) -> float:
    total = ground.tick.snapshot.topology.cores
    return limit.grid(ground.tick.decision.batch_limit_cores or 0.0, total)


def _claims(ground: Ground) -> share.Claims:
    scene, floor = ground.thought.scene, ground.policy.cpu.floor_cores
    return share.claims(scene.view, _grid(ground), floor, scene.scope, scene.knobs, scene.restraints)


def _shared(ground: Ground) -> Reason | None:
    """The limit, rounded, less what Batch pods use that are not ours to bound."""
    if ground.tick.decision.batch_limit_cores is None:
        return None
    step, claims = limit.grid_step(ground.tick.snapshot.topology.cores), _claims(ground)
    given = [
        _cores("floor", ground.policy.cpu.floor_cores, f"{POLICY}cpu.floor_cores"),
        _cores("rounded_limit", _grid(ground), f"batch.limit in whole steps of {step:g} cores"),
        _cores("outside", claims.outside, "use of Batch pods that are not in scope"),
    ]
    rule = "max(floor, rounded_limit - outside)"
    if claims.withheld:
        given.append(_cores("withheld", claims.withheld, "what a pod on trial used above its cap"))
        rule = "max(floor, rounded_limit - outside - withheld)"
    return reason("batch.shared", rule, given, claims.left, Unit.CORES, by="share")


def _share(claims: share.Claims, index: int, spec: PodSpec) -> Reason:
    """Max-min fairness as one sees it from a claim: as much as it can use, or the level that all get."""
    granted = share.granted(claims)
    first, rest = granted[index]
    firsts, rests = [f for f, _ in granted], [r for _, r in granted]
    bounds = [r - f for r, f in zip(claims.roofs, firsts, strict=True)]
    many = f"max-min of {amount(claims.left, Unit.CORES)} over {len(granted)} pods"
    given = [_weight(claims, index, spec)]
    rule = "min(may_have, rest_level * weight)"
    level = _level(rests, claims.weights, bounds)
    spare = [
        _cores("may_have", claims.roofs[index], "its own limit, and what a restraint leaves it"),
        Given("rest_level", level, f"{many}, cores per weight", Unit.PLAIN, fine=True),
    ]
    if any(firsts):
        level = _level(firsts, claims.weights, claims.demands)
        rule = f"{FIRST} + {REST}"
        spare[1] = spare[1]._replace(source="max-min of what then nobody wants, cores per weight")
        given += [
            _cores(
                "could_use", claims.demands[index], "1.5 x its use + 0.05, or all when it is at its quota"
            ),
            Given("level", level, f"{many}, cores per weight", Unit.PLAIN, fine=True),
            _cores("first", first, FIRST, fine=True),
        ]
    why = "it gets as much as it can use, and its part of the rest" if first else "it gets its part"
    return reason(
        f"cpu.share {spec.cgroup}", rule, [*given, *spare], first + rest, Unit.CORES, by="share", why=why
    )


def _weight(claims: share.Claims, index: int, spec: PodSpec) -> Given:
    request = spec.cpu_request_cores or share.DEFAULT_REQUEST_CORES
    told = "request" if spec.cpu_request_cores else "no request: counts as"
    source = f"{told} {request:g} cores x {share.PRIORITY_FACTOR[spec.priority]:g} for {spec.priority.value}"
    return Given("weight", claims.weights[index], source, fine=True)


def _level(shares: list[float], weights: list[float], bounds: list[float]) -> float:
    """Cores per weight of those who get less than they could; inf where nobody does."""
    less = [s / w for s, w, b in zip(shares, weights, bounds, strict=True) if s < b - 1e-12]
    return max(less, default=math.inf)


def _bounded(ground: Ground, setting: Setting, cores: float) -> Reason:
    knob, policy = setting.knob, ground.policy.cpu
    tiers = ground.thought.scene.shares.tiers if ground.thought.scene.shares else {}
    roof = min((c for tier, c in tiers.items() if knob.target.startswith(f"{tier}/")), default=math.inf)
    own, floor, cap = _own(ground, knob), policy.pod_floor_cores, _cap(ground, knob.target)
    value, fair = numeric(setting.value), min(own.value, roof, cap, max(floor, cores))
    found = ground.readings.get(knob)
    grid = 0.0 if found is None else 1.0 / found.scale  # what is held is in the kernel's steps
    if abs(value - fair) > grid:
        why = f"kept: {amount(fair, Unit.CORES)} differs by less than cpu.dead_band_ratio from what it has"
        return _quota(setting, "written", (_cores("written", value, "what we wrote last"),), why)
    given = (
        own,
        _cores("tier_quota", roof, "the tier's share"),
        _cores("pod_floor", floor, f"{POLICY}cpu.pod_floor_cores"),
        _cores("share", cores, f"cpu.share {knob.target}"),
    )
    if math.isinf(cap):
        return _quota(setting, "min(own_limit, tier_quota, max(pod_floor, share))", given)
    rule = "min(own_limit, tier_quota, restrained_to, max(pod_floor, share))"
    return _quota(setting, rule, (*given, _restrained(cap)))


def _restrained(cap: float) -> Given:
    return _cores("restrained_to", cap, "of the step against what disturbs an online pod")


def _cap(ground: Ground, cgroup: str) -> float:
    """What a restraint leaves the pod, inf without one."""
    scene = ground.thought.scene
    held = in_force(scene.view, scene.scope, scene.restraints).get(cgroup)
    return max(ground.policy.cpu.pod_floor_cores, share.cap_cores(held))
