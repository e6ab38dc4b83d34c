"""How long is waited: before the next step up, before a step down, and how many steps a pod gets at all.

Dwell times and exponential patience as in the ladder; the random part is of the node, the pod and the step,
so that nodes do not let go in step (Thunderbolt, OSDI'20), yet a replay gives the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from msgspec.structs import replace

from nodeagent.model.course import Course, Held, Proof
from nodeagent.model.interference import Rung, Suspect
from nodeagent.model.interference_policy import InterferencePolicy

DWELL_S = {
    Rung.FREE: 0.0,
    Rung.IDLE: 5.0,
    Rung.QUOTA: 10.0,
    Rung.CPUSET: 20.0,
    Rung.SHRINK: 30.0,
    Rung.FREEZE: 60.0,
}
BUDGET_S = 600.0  # in which a pod gets at most `changes_per_pod` steps
RELAPSE_S = 1800.0  # trouble that comes back within this doubles the patience
JITTER = 0.5  # the patience is up to so much longer
MOST_PROOFS = 64
_MOST_DOUBLINGS = 32


def relax_s(course: Course, held: Held, policy: InterferencePolicy) -> float:
    """The calm that is asked for before the next step down, in seconds."""
    relapses = min(len(course.relapses.get(held.uid, ())), _MOST_DOUBLINGS)
    patience = min(policy.relax_max_s, policy.relax_after_s * 2.0**relapses)
    key = f"{course.boot_id}/{held.uid}/{held.stepped_at}"
    return patience * (1.0 + JITTER * zlib.crc32(key.encode()) / 2**32)


def may_step(course: Course, uid: str, policy: InterferencePolicy) -> bool:
    """True while the pod has steps left in these 10 minutes."""
    return len(course.steps.get(uid, ())) < policy.changes_per_pod


def stepped(course: Course, uid: str) -> Course:
    """One more step of the pod."""
    return replace(course, steps={**course.steps, uid: (*course.steps.get(uid, ()), course.at)})


def relapsed(course: Course, uid: str) -> Course:
    """Trouble came back after the pod was given more."""
    return replace(course, relapses={**course.relapses, uid: (*course.relapses.get(uid, ()), course.at)})


def let_go(course: Course, victim: str, held: Held) -> Course:
    """The pod is not restrained for this victim any more; what was proven against it is remembered."""
    others = tuple(p for p in course.proofs if (p.victim, p.suspect.uid) != (victim, held.uid))
    if not held.proven:
        return replace(course, proofs=others)
    suspect = Suspect(held.uid, held.name, held.cgroup, {}, None, 0.0)
    return replace(course, proofs=(*others, Proof(victim, suspect, course.at))[-MOST_PROOFS:])


def came_back(course: Course, uid: str) -> bool:
    """True when the pod was let go not long ago."""
    return any(proof.suspect.uid == uid for proof in course.proofs)


def pruned(course: Course) -> Course:
    """Without what is too long ago to matter."""
    return replace(
        course,
        steps=_young(course.steps, course.at - BUDGET_S),
        relapses=_young(course.relapses, course.at - RELAPSE_S),
        proofs=tuple(p for p in course.proofs if p.at > course.at - RELAPSE_S),
        doubts=tuple(d for d in course.doubts if d.at > course.at - 2 * RELAPSE_S),
    )


def _young(times: Mapping[str, tuple[float, ...]], since: float) -> dict[str, tuple[float, ...]]:
    kept = {uid: tuple(at for at in each if at > since) for uid, each in times.items()}
    return {uid: each for uid, each in kept.items() if each}
