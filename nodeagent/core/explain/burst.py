"""Why an LS pod has more quota than its own, or has not, and what of it the kernel saves up by itself."""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.core import burst
from nodeagent.core.explain.ground import Ground
from nodeagent.core.explain.law import Given, Unit, amount, reason
from nodeagent.core.rates import PodRates
from nodeagent.model.explanation import Input, Reason
from nodeagent.model.plan import BURST, Kind, Knob, KnobReading, Setting, numeric
from nodeagent.model.pod import PodSpec

POLICY = "policy: burst."


def of_quota(ground: Ground, setting: Setting, spec: PodSpec) -> Reason:
    """The quota of a throttled LS pod, or of a container in it, above its own."""
    knob, now = setting.knob, ground.thought.scene.bursts.get(spec.uid)
    own = _cores("own_limit", burst.limit(ground.readings[knob]), "the limit without us")
    more = _cores("burst", 0.0 if now is None else now.extra_cores, "on top, out of its budget")
    if knob.target == spec.cgroup:
        return _quota(setting, "own_limit + burst", own, more)
    roof = numeric(ground.plan[Knob(Kind.CPU_QUOTA, spec.cgroup)].value)
    return _quota(
        setting,
        "min(own_limit + burst, own_limit * max_ratio, pod_quota)",
        own,
        more,
        Given("max_ratio", ground.policy.burst.max_ratio, f"{POLICY}max_ratio"),
        _cores("pod_quota", roof, f"cpu.quota {spec.cgroup}"),
    )


def of_kernel(ground: Ground, setting: Setting) -> Reason:
    """What the kernel lets a period use of what one before left: of Batch nothing."""
    if setting.value == 0.0:
        return _quota(setting, "0")
    found = ground.readings[setting.knob]
    before = numeric(found.actual if found.original is None else found.original)
    limit = burst.limit(ground.readings[Knob(Kind.CPU_QUOTA, setting.knob.target)])
    return _quota(
        setting,
        "max(own_limit * kernel_ratio, own_burst)",
        _cores("own_limit", limit, "the limit without us"),
        Given("kernel_ratio", ground.policy.burst.kernel_ratio, f"{POLICY}kernel_ratio"),
        _cores("own_burst", before, "cpu burst without us"),
    )


def none_now(ground: Ground, spec: PodSpec) -> Iterator[Reason]:
    """Why the quota of a limited LS pod is its own."""
    for p, reading in burst.limited(ground.thought.scene):
        now = ground.thought.scene.bursts.get(spec.uid)
        if p.pod.spec.uid == spec.uid and (now is None or now.extra_cores == 0.0):
            left_s = 0.0 if now is None else now.left_core_s
            yield Reason(
                name=f"burst {spec.cgroup}",
                result=f"none, {amount(burst.limit(reading), Unit.CORES)}",
                rule="more than its own limit while it is throttled, has budget left and the node has room",
                inputs=(
                    Input("throttled", _share(p), "cpu.stat of the pod and its containers"),
                    Input("budget_left", f"{left_s:.1f} core-s", "own limit less use, added up"),
                ),
                by=BURST,
                why=_why(ground, p, reading, left_s),
            )


def _why(ground: Ground, p: PodRates, reading: KnobReading, left_s: float) -> str:
    if ground.policy.burst.max_ratio <= 1.0:
        return f"{POLICY}max_ratio is 1: never"
    if reading.drifted:
        return "somebody else has changed its quota"
    if p.throttled_ratio is None:
        return "its throttling is not known"
    if p.throttled_ratio == 0.0:
        return "it is not throttled"
    if left_s < burst.RESUME_RATIO * ground.policy.burst.budget_s * burst.limit(reading):
        return "its budget is used up; what it leaves unused of its limit is saved up"
    return "online work leaves no room on the node, or less than is worth a write"


def _share(p: PodRates) -> str:
    return "not known" if p.throttled_ratio is None else f"{p.throttled_ratio:.0%} of the time"


def _cores(name: str, value: float, source: str) -> Given:
    return Given(name, value, source, Unit.CORES)


def _quota(setting: Setting, rule: str, *given: Given) -> Reason:
    value, name = numeric(setting.value), str(setting.knob)
    return reason(name, rule, given, value, Unit.CORES, by=setting.by, why=setting.why)
