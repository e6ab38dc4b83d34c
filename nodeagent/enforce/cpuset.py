"""CPUs and memory nodes: bound LS pods on cores of their own, Batch in whole cores of the rest.

The other online pods are moved only when somebody owns cores that they must leave; else their sets are
theirs. cgroup v1 wants every set within the one above it, so what is inside a pod gets the pod's, and takes a
CPU that goes offline out of every set for good, so the agent's own directories are held as they were found.
CPUs are set at once, memory nodes once the pages are there (see core.pages). A Batch pod that disturbs others
leaves them its CPUs whether pods are placed or not (see core.away).

Invariant: nothing is written to a pod that somebody else looks after, nor to the tier around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nodeagent.core.away import leaving, left_of
from nodeagent.core.foreign import holds
from nodeagent.core.homes import Home, home_of
from nodeagent.core.pages import held_up, meanwhile
from nodeagent.core.scene import Scene
from nodeagent.model.plan import Kind, Knob, KnobReading, Setting
from nodeagent.model.pod import OWN_ROOT, Qos
from nodeagent.model.policy import Policy

NAME = "cpuset"
OWN = "cgroup v1: a CPU that comes back online is missing here otherwise"
OWN_DIRECTORIES = (OWN_ROOT, *(f"{OWN_ROOT}/{qos.value}" for qos in Qos))
SETS = (Kind.CPUS, Kind.MEMS, Kind.MIGRATE)


def enforce(scene: Scene, policy: Policy) -> Iterator[Setting]:
    """CPUs and memory nodes of every pod and tier in scope; what is held is kept while nothing is decided."""
    away = leaving(scene)
    if scene.placement is None:
        yield from _kept(scene) if policy.numa.placement else _away(scene, away)
        return
    homes = {**scene.homes, **away}
    waiting = held_up(scene.moves, scene.view.snapshot.moving)
    for knob, reading in scene.knobs.items():
        home = home_of(knob.target, homes) if knob.kind in SETS else None
        if home is not None:
            yield from _setting(reading, homes[home], waits=home in waiting)
    yield from _own(scene)


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


def _away(scene: Scene, away: Mapping[str, Home]) -> Iterator[Setting]:
    """CPUs alone, of these pods and, where v1 wants them within, of what is inside them."""
    for knob, reading in scene.knobs.items() if away else ():
        home = home_of(knob.target, away) if knob.kind is Kind.CPUS else None
        if home is not None and (knob.target == home or reading.nested):
            yield Setting(knob, left_of(reading, away[home].cpus), NAME, away[home].why)


def _own(scene: Scene) -> Iterator[Setting]:
    ours = any(path.startswith(f"{OWN_ROOT}/") for path in scene.scope)
    for path in (path for path in OWN_DIRECTORIES if ours and not holds(path, scene.left_alone)):
        reading = scene.knobs.get(Knob(Kind.CPUS, path))
        if path not in scene.homes and reading is not None and reading.nested:
            as_found = reading.actual if reading.original is None else reading.original
            yield Setting(reading.knob, as_found, NAME, OWN)


def _kept(scene: Scene) -> Iterator[Setting]:
    for knob, reading in scene.knobs.items():
        if knob.kind in SETS and reading.written is not None:
            yield Setting(knob, reading.written, NAME, f"kept: {scene.why}")
