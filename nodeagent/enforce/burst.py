"""CPU burst of LS pods with a quota: the kernel's own within the quota, and more quota on a budget.

A container with a quota of its own inside such a pod gets the same; what it gets more than that is bounded
by its pod's quota. Batch never bursts: what somebody else has set there is taken off, since the kernel
refuses a quota below it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from nodeagent.core.burst import limit, limited
from nodeagent.core.rates import PodRates
from nodeagent.core.scene import Scene
from nodeagent.model.decision import Burst
from nodeagent.model.plan import BURST, Kind, Knob, KnobReading, Setting, numeric
from nodeagent.model.pod import Qos
from nodeagent.model.policy import BurstPolicy, Policy


def enforce(scene: Scene, policy: Policy) -> Iterator[Setting]:
    """Burst of every limited LS cgroup in scope, and the quota of those that burst now."""
    if any(knob.kind is Kind.CPU_BURST for knob in scene.knobs):
        yield from _bursts(scene, policy.burst)
    for p, reading in limited(scene):
        burst = scene.bursts.get(p.pod.spec.uid)
        if burst is not None and burst.extra_cores > 0.0:
            quota = limit(reading) + burst.extra_cores
            yield Setting(reading.knob, quota, BURST, burst.why)
            yield from _inner_quotas(scene, burst, quota, policy.burst)


def _bursts(scene: Scene, policy: BurstPolicy) -> Iterator[Setting]:
    if policy.kernel_ratio > 0.0:
        for p in scene.view.pods:
            if p.pod.spec.qos is Qos.LS:
                yield from _kernel_bursts(scene, p, policy)
    batch = {p.pod.spec.cgroup for p in scene.view.pods if not p.pod.spec.online}
    for cgroup in batch.union(scene.view.snapshot.tiers) & scene.scope:
        if (knob := Knob(Kind.CPU_BURST, cgroup)) in scene.knobs:
            yield Setting(knob, 0.0, BURST, "Batch never bursts")


def _kernel_bursts(scene: Scene, p: PodRates, policy: BurstPolicy) -> Iterator[Setting]:
    """By what the quota is without us: then it need not follow each quota burst."""
    ran = [c.cgroup for c in p.pod.containers if c.reading.periods]
    if p.pod.reading.periods:
        ran.append(p.pod.spec.cgroup)
    for cgroup in ran:
        reading = scene.knobs.get(Knob(Kind.CPU_BURST, cgroup))
        quota = scene.knobs.get(Knob(Kind.CPU_QUOTA, cgroup))
        if reading is None or quota is None or cgroup not in scene.scope or math.isinf(limit(quota)):
            continue
        cores = max(limit(quota) * policy.kernel_ratio, _own(reading))
        yield Setting(reading.knob, cores, BURST, "unused quota is saved for a later period")


def _own(reading: KnobReading) -> float:
    return numeric(reading.actual if reading.original is None else reading.original)


def _inner_quotas(scene: Scene, burst: Burst, roof: float, policy: BurstPolicy) -> Iterator[Setting]:
    for cgroup in burst.inner:
        reading = scene.knobs.get(Knob(Kind.CPU_QUOTA, cgroup))
        if reading is None or reading.drifted or cgroup not in scene.scope or math.isinf(limit(reading)):
            continue
        own = limit(reading)
        quota = min(own + burst.extra_cores, own * policy.max_ratio, roof)
        if quota > own:
            yield Setting(reading.knob, quota, BURST, f"with its pod; {burst.why}")
