"""Quota burst: a throttled LS pod gets more than its quota while the node has room, on a budget of its own.

    left = left + (quota - used) * dt      core-seconds, within its budget

What a pod leaves unused of its quota it may use later, as the kernel's own burst has it within parts of a
second, so over time no pod uses more than its quota allows. A new pod begins with a full budget. The room is
what online work leaves, without what the bursts themselves use; throttled pods share it by need, and Batch
is pushed back from it by its own limit.

Invariant: unknown use counts as all that was allowed, and while throttling, use or room is not known nothing
is raised. A quota that somebody else has changed is theirs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from nodeagent.core.capacity import cpu_ceiling
from nodeagent.core.fair import max_min
from nodeagent.core.rates import PodRates
from nodeagent.core.scene import Scene
from nodeagent.core.share import own_limit
from nodeagent.core.usage import Usage
from nodeagent.model.decision import Burst
from nodeagent.model.plan import Kind, Knob, KnobReading, numeric
from nodeagent.model.pod import Qos
from nodeagent.model.policy import BurstPolicy, Policy

STEP_RATIO = 0.1  # of the quota: the least that is worth a write
RESUME_RATIO = 0.1  # of the budget: after it was used up, so much is saved before the next burst
NOMINAL_S = 1.0  # a burst must be affordable for so long, however short this tick was


class Wish(Struct, frozen=True, gc=False):
    """What one limited pod would have on top of its quota of `cores`; `above_cores` is what it used so."""

    uid: str
    cores: float
    more_cores: float
    above_cores: float
    before: Burst
    after: Burst


def limit(reading: KnobReading) -> float:
    """The quota that a cgroup has without us, in cores: also one that somebody else has set since."""
    return numeric(reading.actual) if reading.drifted else own_limit(reading)


def limited(scene: Scene) -> Iterator[tuple[PodRates, KnobReading]]:
    """LS pods in scope with a quota of their own that they have run under, and that quota."""
    for p in scene.view.pods:
        spec = p.pod.spec
        if p.pod.reading.periods and spec.qos is Qos.LS and spec.cgroup in scene.scope:
            reading = scene.knobs.get(Knob(Kind.CPU_QUOTA, spec.cgroup))
            if reading is not None and not math.isinf(limit(reading)):
                yield p, reading


def bursting(scene: Scene, use: Usage, policy: Policy, before: Mapping[str, Burst]) -> Scene:
    """The scene with what each limited LS pod has of its budget, and on top of its quota, from now on."""
    if policy.burst.max_ratio <= 1.0:
        return scene
    wishes = [_wish(scene, p, reading, policy.burst, before) for p, reading in limited(scene)]
    room = _room_cores(scene, use, policy, sum(w.above_cores for w in wishes))
    if room is None:
        given = [min(w.more_cores, w.before.extra_cores) for w in wishes]
    else:
        given = max_min(room, [w.cores for w in wishes], [w.more_cores for w in wishes])
    bursts = {w.uid: _granted(w, cores, room) for w, cores in zip(wishes, given, strict=True)}
    return replace(scene, bursts={**_saved(scene, before), **bursts})


def _saved(scene: Scene, before: Mapping[str, Burst]) -> dict[str, Burst]:
    """What pods have left of their budgets, also those whose quota is not seen in this tick."""
    uids = (p.pod.spec.uid for p in scene.view.pods)
    return {uid: _over(before[uid]) for uid in uids if uid in before}


def _over(burst: Burst) -> Burst:
    return replace(burst, extra_cores=0.0, needed_at=None, inner=(), why="")


def _wish(
    scene: Scene, p: PodRates, reading: KnobReading, policy: BurstPolicy, before: Mapping[str, Burst]
) -> Wish:
    cores, dt_s, now = limit(reading), scene.view.dt_s or 0.0, scene.view.snapshot.at
    budget = policy.budget_s * cores
    last = before.get(p.pod.spec.uid) or _begun(scene, p, reading, budget)
    used = cores + last.extra_cores if p.cores is None else p.cores
    left = max(-budget, min(budget, last.left_core_s + (cores - used) * dt_s))
    throttled = p.throttled_ratio is not None and p.throttled_ratio > 0.0
    after = replace(
        last,
        left_core_s=left,
        needed_at=now if throttled or used > cores else last.needed_at,
        inner=tuple(sorted({*last.inner, *p.throttled_inner})),
    )
    more = min(_more(p, cores, after, now, policy), left / max(dt_s, NOMINAL_S))
    too_soon = last.extra_cores == 0.0 and left < RESUME_RATIO * budget
    if more < STEP_RATIO * cores or too_soon or reading.drifted:
        more = 0.0
    above = max(0.0, used - cores) if last.extra_cores > 0.0 else 0.0
    return Wish(p.pod.spec.uid, cores, more, above, last, after)


def _begun(scene: Scene, p: PodRates, reading: KnobReading, budget: float) -> Burst:
    """A pod seen for the first time; after a restart with what the last run wrote."""
    extra = 0.0 if reading.written is None else numeric(reading.written) - own_limit(reading)
    held = (scene.knobs.get(Knob(Kind.CPU_QUOTA, c.cgroup)) for c in p.pod.containers)
    inner = tuple(sorted(r.knob.target for r in held if r is not None and r.written is not None))
    return Burst(budget, max(0.0, extra), scene.view.snapshot.at if extra > 0.0 else None, inner)


def _more(p: PodRates, cores: float, after: Burst, now: float, policy: BurstPolicy) -> float:
    """Cores on top: with what it was held back from while it is throttled, as they are for a while after."""
    extra, most = after.extra_cores, (policy.max_ratio - 1.0) * cores
    if p.throttled_ratio is None:
        return min(extra, most)
    if p.throttled_ratio > 0.0:
        return min(extra + max(p.throttled_ratio, STEP_RATIO * cores), most)
    calm = after.needed_at is None or now - after.needed_at > policy.hold_s
    return 0.0 if calm else min(extra, most)


def _room_cores(scene: Scene, use: Usage, policy: Policy, above_cores: float) -> float | None:
    """What may be handed out in all; None while an input is not known or old."""
    if not use.cpu_sure or use.told_cores is None:
        return None
    room = cpu_ceiling(scene.view, use, policy.capacity, use.told_cores - above_cores)
    return None if room is None else room * policy.burst.room_ratio


def _granted(wish: Wish, cores: float, room: float | None) -> Burst:
    extra = math.floor(cores * 100 + 1e-6) / 100
    if extra < STEP_RATIO * wish.cores:
        return _over(wish.after)
    why = f"burst: {wish.after.left_core_s:.0f} core-s of its budget left"
    if room is None:
        why += ", held: the room on the node is not known"
    elif cores < wish.more_cores:
        why += f", shares the room of {room:.2f} cores"
    return replace(wish.after, extra_cores=extra, why=why)
