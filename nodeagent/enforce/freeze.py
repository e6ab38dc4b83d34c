"""Freezing a Batch pod that disturbs others, for as long as a restraint says so in each tick.

While its restraint is at this rung the knob stays ours, thawed or frozen; then it is given back.

Invariant: only a pod's own cgroup with nobody else in it, and none that somebody else has frozen: that one
is not ours to thaw.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.core.foreign import holds
from nodeagent.core.restrained import in_force
from nodeagent.core.scene import Scene
from nodeagent.model.interference import Rung
from nodeagent.model.plan import Kind, Knob, KnobReading, Setting
from nodeagent.model.pod import OWN_ROOT, Qos
from nodeagent.model.policy import Policy

NAME = "freeze"
FROZEN, RUNNING = 1.0, 0.0
NEVER = frozenset({OWN_ROOT, *(f"{OWN_ROOT}/{qos.value}" for qos in Qos)})


def enforce(scene: Scene, policy: Policy) -> Iterator[Setting]:
    """Frozen, or running again, for each Batch pod that a restraint freezes now and then."""
    pods = [p.pod.spec.cgroup for p in scene.view.pods] if scene.restraints else []
    for cgroup, restraint in in_force(scene.view, scene.scope, scene.restraints).items():
        reading = scene.knobs.get(Knob(Kind.FREEZE, cgroup))
        if reading is None or _theirs(reading) or not _alone(scene, cgroup, pods):
            continue
        if restraint.frozen:
            yield Setting(reading.knob, FROZEN, NAME, restraint.why)
        elif restraint.rung >= Rung.FREEZE and reading.held:
            yield Setting(reading.knob, RUNNING, NAME, f"running between two freezes; {restraint.why}")


def _theirs(reading: KnobReading) -> bool:
    """True when somebody else has frozen it."""
    return reading.actual == FROZEN and (not reading.held or reading.drifted)


def _alone(scene: Scene, cgroup: str, pods: list[str]) -> bool:
    return cgroup not in NEVER.union(scene.view.snapshot.tiers) and not holds(cgroup, pods)
