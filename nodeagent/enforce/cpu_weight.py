"""CPU weight: Batch runs when nobody else wants the CPU, and Batch pods share by request and priority.

The agent's own tier is made idle (SCHED_IDLE, Linux kernel commit 304000390f88 ("sched: Cgroup SCHED_IDLE
support") (in v5.15)) and its pods weigh against each other inside it. A kubelet-owned QoS directory is
never made idle, since kubelet then fails to write its cpu.shares and does not start; its pods are.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.core.scene import Scene
from nodeagent.core.share import PRIORITY_FACTOR, weight
from nodeagent.model.plan import Kind, Knob, Setting
from nodeagent.model.pod import OWN_TIER, Priority
from nodeagent.model.policy import Policy

NAME = "cpu_weight"
IDLE, LOWEST = 0.0, 1e-9  # LOWEST is fitted to the smallest weight that the kernel takes


def enforce(scene: Scene, policy: Policy) -> Iterator[Setting]:
    """Weight for the agent's own tier and for every Batch pod in scope."""
    own_tier = Knob(Kind.CPU_WEIGHT, OWN_TIER)
    if OWN_TIER in scene.scope and own_tier in scene.knobs:
        yield _last(scene, own_tier, policy)
    for p in scene.view.pods:
        spec = p.pod.spec
        knob = Knob(Kind.CPU_WEIGHT, spec.cgroup)
        if spec.online or spec.cgroup not in scene.scope or knob not in scene.knobs:
            continue
        if spec.tier == OWN_TIER:
            share = weight(spec) / PRIORITY_FACTOR[Priority.MEDIUM]
            yield Setting(knob, share, NAME, f"request and priority ({spec.priority.value}) inside the tier")
        else:
            yield _last(scene, knob, policy)


def _last(scene: Scene, knob: Knob, policy: Policy) -> Setting:
    if policy.cpu.idle and scene.knobs[knob].has_idle:
        return Setting(knob, IDLE, NAME, "Batch runs only when nobody else wants the CPU")
    return Setting(knob, LOWEST, NAME, "lowest weight: cpu.idle is not here or not wanted")
