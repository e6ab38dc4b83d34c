"""Why a CPU weight is what it is: by request inside a class, by the class between classes, last for Batch."""

from __future__ import annotations

from nodeagent.core import share
from nodeagent.core.explain.ground import Ground
from nodeagent.core.explain.law import Given, Unit, reason
from nodeagent.core.restrained import in_force
from nodeagent.model.explanation import Reason
from nodeagent.model.plan import Setting, numeric
from nodeagent.model.pod import OWN_LS, OWN_ROOT, OWN_TIER, PodSpec, Priority


def of(ground: Ground, setting: Setting, spec: PodSpec) -> Reason:
    """Of a class directory or of the pod."""
    if setting.knob.target == OWN_LS:
        ratio = ground.policy.weight.ls_over_mid
        return _reason(setting, "ls_over_mid", Given("ls_over_mid", ratio, "policy: weight.ls_over_mid"))
    if setting.knob.target != spec.cgroup:
        return _last(setting)
    if spec.online:
        return _online(ground, setting, spec)
    scene = ground.thought.scene
    held = in_force(scene.view, scene.scope, scene.restraints).get(spec.cgroup)
    if spec.tier != OWN_TIER or (held is not None and held.idle):
        return _last(setting)
    request = spec.cpu_request_cores or share.DEFAULT_REQUEST_CORES
    source = "of the pod" if spec.cpu_request_cores else "it has none: counts as"
    factor, usual = share.PRIORITY_FACTOR[spec.priority], share.PRIORITY_FACTOR[Priority.MEDIUM]
    return _reason(
        setting,
        "request_cores * priority_factor / medium_factor",
        Given("request_cores", request, source, Unit.CORES, fine=True),
        Given("priority_factor", factor, f"priority {spec.priority.value}"),
        Given("medium_factor", usual, "priority medium"),
    )


def _online(ground: Ground, setting: Setting, spec: PodSpec) -> Reason:
    if spec.cgroup.startswith(f"{OWN_ROOT}/"):
        request = spec.cpu_request_cores or 0.0
        given = Given("request_cores", request, "of the pod", Unit.CORES, fine=True)
        return _reason(setting, "request_cores", given)
    found = ground.readings[setting.knob]
    own = numeric(found.actual if found.original is None else found.original)
    return _reason(
        setting,
        "own_weight * ls_factor",
        Given("own_weight", own, "its weight without us", fine=True),
        Given("ls_factor", ground.policy.weight.ls_factor, "policy: weight.ls_factor"),
    )


def _last(setting: Setting) -> Reason:
    """Idle where the kernel has it, else the lowest that it takes."""
    value = numeric(setting.value)
    return Reason(
        name=str(setting.knob),
        rule="0 (idle) where the kernel has cpu.idle and the policy wants it (cpu.idle), else the lowest",
        arithmetic="0" if value == 0.0 else "the lowest weight",
        result="idle (SCHED_IDLE)" if value == 0.0 else "the lowest weight that the kernel takes",
        by=setting.by,
        why=setting.why,
    )


def _reason(setting: Setting, rule: str, *given: Given) -> Reason:
    value = numeric(setting.value)
    return reason(str(setting.knob), rule, given, value, Unit.PLAIN, by=setting.by, why=setting.why)
