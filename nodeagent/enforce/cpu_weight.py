"""CPU weight: Batch runs when nobody else wants the CPU, LS wins over MID, in a class the request counts.

The agent's own tier is made idle (SCHED_IDLE, Linux kernel commit 304000390f88 ("sched: Cgroup SCHED_IDLE
support") (in v5.15)) and its pods weigh against each other inside it, those that disturb online work last. A
kubelet-owned QoS directory is never made idle, since kubelet then fails to write its cpu.shares and does not
start; its pods are.

Weights count among siblings only. The agent's own class directories are siblings, so the class is set there
and the request inside. Elsewhere kubelet has set weights by request all over; they keep their proportions,
and only if the policy says so the LS pods, which are siblings of the directories of the others, get more.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.core.restrained import in_force
from nodeagent.core.scene import Scene
from nodeagent.core.share import PRIORITY_FACTOR, weight
from nodeagent.model.plan import Kind, Knob, KnobReading, Setting, numeric
from nodeagent.model.pod import OWN_LS, OWN_ROOT, OWN_TIER, PodSpec, Priority, Qos
from nodeagent.model.policy import Policy

NAME = "cpu_weight"
IDLE, LOWEST = 0.0, 1e-9  # LOWEST is fitted to the smallest weight that the kernel takes


def enforce(scene: Scene, policy: Policy) -> Iterator[Setting]:
    """Weight for the agent's own class directories and for the pods in scope."""
    own_tier = Knob(Kind.CPU_WEIGHT, OWN_TIER)
    if OWN_TIER in scene.scope and own_tier in scene.knobs:
        yield _last(scene, own_tier, policy)
    own_ls = Knob(Kind.CPU_WEIGHT, OWN_LS)
    if OWN_LS in scene.scope and own_ls in scene.knobs:
        yield Setting(own_ls, policy.weight.ls_over_mid, NAME, "LS wins over MID")
    restrained = in_force(scene.view, scene.scope, scene.restraints)
    for p in scene.view.pods:
        spec = p.pod.spec
        knob = Knob(Kind.CPU_WEIGHT, spec.cgroup)
        if spec.cgroup not in scene.scope or knob not in scene.knobs:
            continue
        if spec.online:
            yield from _online(spec, scene.knobs[knob], policy)
        elif (held := restrained.get(spec.cgroup)) is not None and held.idle:
            yield _last(scene, knob, policy, held.why)
        elif spec.tier == OWN_TIER:
            share = weight(spec) / PRIORITY_FACTOR[Priority.MEDIUM]
            yield Setting(knob, share, NAME, f"request and priority ({spec.priority.value}) inside the tier")
        else:
            yield _last(scene, knob, policy)


def _online(spec: PodSpec, reading: KnobReading, policy: Policy) -> Iterator[Setting]:
    if spec.cgroup.startswith(f"{OWN_ROOT}/"):
        if spec.cpu_request_cores is not None:
            yield Setting(reading.knob, spec.cpu_request_cores, NAME, "request, inside the class")
    elif spec.qos is Qos.LS and policy.weight.ls_factor > 1.0:
        own = numeric(reading.actual if reading.original is None else reading.original)
        if own > 0.0:  # one that somebody made idle stays so
            yield Setting(reading.knob, own * policy.weight.ls_factor, NAME, "LS: its own weight, more of it")


def _last(scene: Scene, knob: Knob, policy: Policy, why: str = "") -> Setting:
    if policy.cpu.idle and scene.knobs[knob].has_idle:
        return Setting(knob, IDLE, NAME, why or "Batch runs only when nobody else wants the CPU")
    return Setting(knob, LOWEST, NAME, why or "lowest weight: cpu.idle is not here or not wanted")
