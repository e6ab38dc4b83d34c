"""CPUs and memory nodes: bound LS pods on cores of their own, Batch in whole cores of the rest.

The other online pods are moved only when somebody owns cores that they must leave; else their sets are
theirs. cgroup v1 wants every set within the one above it, so what is inside a pod gets the pod's. CPUs are
set at once, memory nodes once the pages are there (see core.pages).

Invariant: nothing is written to a pod that somebody else looks after, nor to the tier around it.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.core.homes import Home, home_of
from nodeagent.core.pages import held_up, meanwhile
from nodeagent.core.scene import Scene
from nodeagent.model.plan import Kind, KnobReading, Setting
from nodeagent.model.policy import Policy

NAME = "cpuset"
SETS = (Kind.CPUS, Kind.MEMS, Kind.MIGRATE)


def enforce(scene: Scene, policy: Policy) -> Iterator[Setting]:
    """CPUs and memory nodes of every pod and tier in scope; what is held is kept while nothing is decided."""
    if scene.placement is None:
        if policy.numa.placement:
            yield from _kept(scene)
        return
    waiting = held_up(scene.moves, scene.view.snapshot.moving)
    for knob, reading in scene.knobs.items():
        home = home_of(knob.target, scene.homes) if knob.kind in SETS else None
        if home is not None:
            yield from _setting(reading, scene.homes[home], waits=home in waiting)


def _setting(reading: KnobReading, home: Home, *, waits: bool) -> Iterator[Setting]:
    knob = reading.knob
    if knob.kind is Kind.MIGRATE:
        if home.bound and (reading.held or not waits):
            yield Setting(knob, 1.0, NAME, "pages follow their pod")
    elif knob.kind is Kind.MEMS and waits:
        if (text := meanwhile(reading, home.mems)) is not None:
            yield Setting(knob, text, NAME, f"{home.why}; its pages are moved first")
    elif text := home.cpus if knob.kind is Kind.CPUS else home.mems:
        yield Setting(knob, text, NAME, home.why)


def _kept(scene: Scene) -> Iterator[Setting]:
    for knob, reading in scene.knobs.items():
        if knob.kind in SETS and reading.written is not None:
            yield Setting(knob, reading.written, NAME, f"kept: {scene.why}")
