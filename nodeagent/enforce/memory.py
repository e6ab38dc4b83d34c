"""Memory of a Batch pod that disturbs others: what it has beyond its bound is taken back, a little at a time.

Linux Documentation/admin-guide/cgroup-v2.rst, "memory.high": it is slowed down and its memory reclaimed, and
never is it killed for that. On cgroup v1 see kernel.memory.

Invariant: never below what is anonymous, which could only go to swap, nor more than STEP_BYTES below what it
uses now: before Linux 6.16 the writer itself reclaims the difference, and it must not be held up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from nodeagent.core.interference.rungs import STEP_BYTES
from nodeagent.core.restrained import in_force
from nodeagent.core.scene import Scene
from nodeagent.model.plan import Kind, Knob, KnobReading, Setting, numeric
from nodeagent.model.policy import Policy
from nodeagent.model.snapshot import Reading

NAME = "memory"
GRID_BYTES = 1 << 20  # whole pages of any size that there is


def enforce(scene: Scene, policy: Policy) -> Iterator[Setting]:
    """Bound in bytes for each Batch pod that a restraint bounds."""
    held = in_force(scene.view, scene.scope, scene.restraints)
    for p in scene.view.pods if held else ():
        restraint = held.get(p.pod.spec.cgroup)
        reading = scene.knobs.get(Knob(Kind.MEMORY_HIGH, p.pod.spec.cgroup))
        if restraint is None or restraint.memory_high_bytes is None or reading is None:
            continue
        bound = _bound(reading, restraint.memory_high_bytes, p.pod.reading)
        if bound is not None:
            yield Setting(reading.knob, bound, NAME, restraint.why)


def _bound(reading: KnobReading, wanted: int, pod: Reading) -> float | None:
    """None: nothing yet. While the pod's use is not known, what is held is kept."""
    own = numeric(reading.actual if reading.original is None else reading.original)
    held = math.inf if reading.written is None else numeric(reading.written)
    if pod.memory_bytes is None or pod.anon_bytes is None:
        return None if math.isinf(held) else held
    least = max(pod.memory_bytes - STEP_BYTES, pod.anon_bytes, GRID_BYTES)
    return min(own, max(_whole(wanted), min(held, _whole(least))))


def _whole(size: float) -> float:
    return float(math.ceil(size / GRID_BYTES) * GRID_BYTES)
