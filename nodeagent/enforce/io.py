"""IO weight of a Batch pod that disturbs others: what it gets of a device while others want it, too.

Linux Documentation/admin-guide/cgroup-v2.rst, "io.weight", and Documentation/block/bfq-iosched.rst. It counts
only where the device's scheduler heeds it; elsewhere it is without effect and without harm.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.core.restrained import in_force
from nodeagent.core.scene import Scene
from nodeagent.model.plan import Kind, Knob, Setting, numeric
from nodeagent.model.policy import Policy

NAME = "io"


def enforce(scene: Scene, policy: Policy) -> Iterator[Setting]:
    """Weight (1.0 = the kernel's default) for each Batch pod that a restraint gives one, at most its own."""
    for cgroup, restraint in in_force(scene.view, scene.scope, scene.restraints).items():
        reading = scene.knobs.get(Knob(Kind.IO_WEIGHT, cgroup))
        if reading is not None and restraint.io_weight is not None:
            own = numeric(reading.actual if reading.original is None else reading.original)
            yield Setting(reading.knob, min(own, restraint.io_weight), NAME, restraint.why)
