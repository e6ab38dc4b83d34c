"""Why a pod's limits are what they are: every knob in the plan around it, of it and inside it.

From the outside in; what nothing is written of is told with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.core import foreign
from nodeagent.core.explain import batch, burst, interference, quota, weight
from nodeagent.core.explain.ground import Ground
from nodeagent.core.explain.kernel import told, with_effect
from nodeagent.model.explanation import Input, Reason
from nodeagent.model.placement import Pool, places
from nodeagent.model.plan import BURST, Kind, Knob, Setting
from nodeagent.model.pod import PodSpec, Qos

ORDER = tuple(Kind)


def reasons(ground: Ground, spec: PodSpec) -> Iterator[Reason]:
    """The Batch limit for a Batch pod; then each knob; its place; who disturbs whom; why there is no more."""
    if spec.qos is Qos.BATCH:
        yield from batch.reasons(ground)
    plan, named = ground.plan, set()
    around = {s.knob for s in ground.tick.decision.plan} | set(ground.tick.decision.yielded)
    around |= {c.knob for c in ground.tick.changes}
    for knob in sorted((k for k in around if _concerns(k, spec)), key=_outside_in):
        setting = plan.get(knob)
        for each in _without(ground, knob) if setting is None else _of(ground, setting, spec):
            if each.name not in named:
                named.add(each.name)
                yield with_effect(ground, knob, each) if each.name == str(knob) else each
    yield from burst.none_now(ground, spec)
    yield from _place(ground, spec)
    yield from interference.reasons(ground, spec)
    yield from _nothing(ground, spec, {k for k in plan if _mine(k, spec)})


def _concerns(knob: Knob, spec: PodSpec) -> bool:
    """The pod's own, of what is inside it, and of what is around it."""
    return not knob.kind.of_nic and (_mine(knob, spec) or spec.cgroup.startswith(f"{knob.target}/"))


def _mine(knob: Knob, spec: PodSpec) -> bool:
    return knob.target == spec.cgroup or knob.target.startswith(f"{spec.cgroup}/")


def _outside_in(knob: Knob) -> tuple[int, str, int]:
    return knob.target.count("/"), knob.target, ORDER.index(knob.kind)


def _of(ground: Ground, setting: Setting, spec: PodSpec) -> Iterator[Reason]:
    kind, target = setting.knob.kind, setting.knob.target
    if kind is Kind.CPU_QUOTA and setting.by == BURST:
        yield burst.of_quota(ground, setting, spec)
    elif kind is Kind.CPU_QUOTA and setting.why.startswith("kept: "):
        yield quota.kept(ground, setting)
    elif kind is Kind.CPU_QUOTA and target in ground.tick.snapshot.tiers:
        yield from quota.of_tier(ground, setting)
    elif kind is Kind.CPU_QUOTA and target == spec.cgroup:
        yield from quota.of_pod(ground, setting, spec)
    elif kind is Kind.CPU_BURST:
        yield burst.of_kernel(ground, setting)
    elif kind is Kind.CPU_WEIGHT:
        yield weight.of(ground, setting, spec)
    else:
        yield _stated(setting)


def _stated(setting: Setting) -> Reason:
    """A set, a switch, a class: no arithmetic leads there."""
    value = told(setting.knob.kind, setting.value)
    return Reason(
        name=str(setting.knob), rule=setting.why, arithmetic=value, result=value, by=setting.by, why=""
    )


def _without(ground: Ground, knob: Knob) -> Iterator[Reason]:
    """A knob that is no longer in the plan, or that somebody else holds."""
    change = next((c for c in ground.tick.changes if c.knob == knob), None)
    if change is None:
        yield Reason(name=str(knob), result="left as it is", by="drift")
    else:
        value = told(knob.kind, change.new)
        why = "no rule wants it any more: the value that was there before is put back"
        yield Reason(name=str(knob), rule="original", arithmetic=value, result=value, by="diff", why=why)


def _place(ground: Ground, spec: PodSpec) -> Iterator[Reason]:
    found = ground.tick.decision.placement
    if found is None:
        return
    place = places((spec,), found, ground.tick.decision.plan)[spec.uid]
    cpus = f"CPUs {place.cpus}, NUMA nodes {place.mems}" if place.cpus else "where it is"
    asks = "exclusive NUMA nodes" if spec.exclusive else "CPUs of its own" if spec.numa_bind else "none"
    given = [Input("asks_for", asks, "of the pod")]
    given += [Input("near", spec.near, "of the pod")] if spec.near else []
    result = "left alone" if place.pool is Pool.LEFT_ALONE else f"{place.pool.value}: {cpus}"
    if place.pool is Pool.NONE:
        result = "where it is: the agent does not say"
    rule = "whole cores of its own where it asks and there is room, else the pool of its class"
    yield Reason(
        name="placement", rule=rule, inputs=tuple(given), result=result, by="placement", why=place.why
    )


def _nothing(ground: Ground, spec: PodSpec, mine: set[Knob]) -> Iterator[Reason]:
    why = _why_nothing(ground, spec, mine)
    if why:
        result = "nothing is written" if not mine else "nothing else is written"
        yield Reason(name="pod", result=result, by="scope", why=f"{result} because {why}")


def _why_nothing(ground: Ground, spec: PodSpec, mine: set[Knob]) -> str:
    scene = ground.thought.scene
    if foreign.inside(spec.cgroup, foreign.kept_out(scene.view)):
        return "the pod is marked hands_off"
    if spec.cgroup not in scene.scope:
        globs = ", ".join(ground.policy.scope) or "(empty)"
        bound = f"; its tier {spec.tier} bounds it" if spec.tier in scene.scope else ""
        return f"its cgroup {spec.cgroup} matches no glob of scope = {globs}{bound}"
    if mine:
        return ""
    if not any(_mine(knob, spec) for knob in scene.knobs):
        return "its cgroup has no file that may be set: no cpu controller there"
    if spec.online and spec.cpu_request_cores is None:
        return f"no rule wants anything of a {spec.qos.value} pod without a CPU request or limit"
    return f"no rule wants anything of this {spec.qos.value} pod"
