"""CPU quota: the tier's bounds Batch as a whole, each pod's bounds it inside the tier.

A pod that disturbs online ones is bounded by its restraint, too, and the others get the rest. While the limit
is not known, what is held is kept: absent from the plan would mean given back. cgroup v1 refuses a quota
below one that is set further down, so such an inner quota is lifted for as long; its pod's bounds it anyway.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from nodeagent.core.restrained import in_force
from nodeagent.core.scene import Scene
from nodeagent.core.share import cap_cores, own_limit
from nodeagent.model.interference import Restraint
from nodeagent.model.plan import Kind, Knob, KnobReading, Setting, numeric
from nodeagent.model.policy import CpuPolicy, Policy

NAME = "cpu_quota"


def enforce(scene: Scene, policy: Policy) -> Iterator[Setting]:
    """Quota in cores for every tier and Batch pod in scope."""
    restrained = in_force(scene.view, scene.scope, scene.restraints)
    if scene.shares is None:
        yield from _kept(scene, restrained, policy.cpu)
        return
    for tier, cores in scene.shares.tiers.items():
        knob = Knob(Kind.CPU_QUOTA, tier)
        if knob in scene.knobs:
            yield Setting(knob, min(cores, own_limit(scene.knobs[knob])), NAME, scene.why)
    quotas: dict[str, float] = {}
    roofs = [(f"{tier}/", cores) for tier, cores in scene.shares.tiers.items()]
    fair = f"fair share; {scene.why}"
    for cgroup, cores in scene.shares.pods.items():
        reading = scene.knobs.get(Knob(Kind.CPU_QUOTA, cgroup))
        if reading is not None:
            restraint = restrained.get(cgroup)
            above = [roof for tier, roof in roofs if cgroup.startswith(tier)]
            roof = min((*above, _cap(restraint, policy.cpu)))
            quotas[cgroup] = _quota(reading, cores, roof, policy.cpu)
            bound = restraint is not None and cores >= cap_cores(restraint) - 1e-9
            yield Setting(
                reading.knob, quotas[cgroup], NAME, restraint.why if restraint is not None and bound else fair
            )
    yield from _lifted(scene, {cgroup: q for cgroup, q in quotas.items() if cgroup not in scene.shares.tiers})


def _cap(restraint: Restraint | None, policy: CpuPolicy) -> float:
    """What a restraint leaves a pod: never less than any pod gets."""
    return max(policy.pod_floor_cores, cap_cores(restraint))


def _kept(scene: Scene, restrained: Mapping[str, Restraint], policy: CpuPolicy) -> Iterator[Setting]:
    """What is held, and no more than a restraint allows; that one also begins now."""
    begun: dict[str, float] = {}
    online = {p.pod.spec.cgroup for p in scene.view.pods if p.pod.spec.online}
    batch = {p.pod.spec.cgroup for p in scene.view.pods} - online
    for knob, reading in scene.knobs.items():
        if knob.kind is not Kind.CPU_QUOTA or _inside(knob.target, online):  # there it is burst's
            continue
        restraint = restrained.get(knob.target)
        held = math.inf if reading.written is None else numeric(reading.written)
        most = own_limit(reading) if knob.target in batch else math.inf  # it may have burst as an LS pod
        cap = _cap(restraint, policy)
        if restraint is not None and cap < min(held, most):
            begun[knob.target] = cap
            yield Setting(knob, cap, NAME, restraint.why)
        elif reading.written is not None:
            yield Setting(knob, min(held, most), NAME, f"kept: {scene.why}")
    yield from (s for s in _lifted(scene, begun) if scene.knobs[s.knob].written is None)


def _inside(target: str, cgroups: set[str]) -> bool:
    while target and target not in cgroups:
        target = target.rpartition("/")[0]
    return bool(target)


def _quota(reading: KnobReading, cores: float, roof: float, policy: CpuPolicy) -> float:
    """The share within its bounds; a small change of what is held is not worth a write."""
    own = own_limit(reading)
    quota = min(own, roof, max(policy.pod_floor_cores, cores))
    held = None if reading.written is None else numeric(reading.written)
    if held is not None and held <= min(own, roof) and abs(held - quota) <= policy.dead_band_ratio * held:
        return held
    return quota


def _lifted(scene: Scene, quotas: dict[str, float]) -> Iterator[Setting]:
    """Inner quotas of Batch pods that are above their pod's, without limit for now."""
    for knob, inner in scene.knobs.items():
        if knob.kind is Kind.CPU_QUOTA and inner.nested and not math.isinf(own_limit(inner)):
            parts = knob.target.split("/")
            above = ("/".join(parts[:n]) for n in range(1, len(parts)))
            if own_limit(inner) > min((quotas[p] for p in above if p in quotas), default=math.inf):
                yield Setting(knob, math.inf, NAME, "cgroup v1 refuses a parent's quota below this one")
