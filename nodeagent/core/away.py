"""Which CPUs a Batch pod keeps that must leave some of them to those whom it disturbs.

Where pods are placed it is of its place that they are taken off, else of what it would have without us.

Invariant: no set goes empty: a pod that has no other CPUs stays where it is. Nothing is said of a pod that
somebody else looks after, nor of the tier around it.
"""

from __future__ import annotations

from nodeagent.core.homes import Home
from nodeagent.core.restrained import in_force
from nodeagent.core.scene import Scene
from nodeagent.model.cpuset import CpuSet, canonical, common, without
from nodeagent.model.plan import Kind, Knob, KnobReading, listed


def leaving(scene: Scene) -> dict[str, Home]:
    """The homes, by cgroup, of the pods that leave CPUs to others."""
    found = {}
    for cgroup, restraint in in_force(scene.view, scene.scope, scene.restraints).items():
        away = canonical(restraint.away_from)  # None for what is no list of CPUs
        if not away or cgroup in scene.left_alone:
            continue
        placed = scene.homes.get(cgroup)
        left = without(_without_us(scene, cgroup) if placed is None else placed.cpus, away)
        if left:
            found[cgroup] = Home(left, "" if placed is None else placed.mems, restraint.why)
    return found


def left_of(reading: KnobReading, cpus: str) -> str:
    """Of a set in a pod that keeps `cpus`: its own among them, all of them where none is."""
    own = listed(reading.actual if reading.original is None else reading.original)
    return common(own, cpus) or cpus


def _without_us(scene: Scene, cgroup: str) -> str:
    """The CPUs that hold for a cgroup while we write nothing; "" where its set cannot be read."""
    reading = scene.knobs.get(Knob(Kind.CPUS, cgroup))
    if reading is None:
        return ""
    if not reading.held:
        return reading.effective or listed(reading.actual)
    return listed(reading.original or "") or _around(scene, cgroup)


def _around(scene: Scene, cgroup: str) -> str:
    """v2: the CPUs of the nearest cgroup above that was read, all of the node's where none was."""
    while cgroup := cgroup.rpartition("/")[0]:
        reading = scene.knobs.get(Knob(Kind.CPUS, cgroup))
        if reading is not None and reading.effective:
            return reading.effective
    return str(CpuSet(cpu.id for cpu in scene.view.snapshot.topology.cpus))
