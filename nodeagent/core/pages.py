"""Pages first: a set of memory nodes is narrowed only once (almost) no page lies outside of the new one.

The kernel moves the pages that a narrower cpuset.mems leaves outside within the write itself (v2, and v1 with
memory_migrate): 100 GB hold up the writer for minutes. So the pages are moved before, at a bounded rate, and
meanwhile the set stays as wide as it was; memory that is new is local anyway, as the CPUs are.

Invariant: what is not known to have moved narrows nothing. A set is widened at once: that moves no page.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from msgspec.structs import replace

from nodeagent.core.homes import Home, home_of, homes
from nodeagent.core.scene import Scene
from nodeagent.model.cpuset import union, within
from nodeagent.model.pages import SMALL_BYTES, PageMove, PagesMoving
from nodeagent.model.plan import Kind, Knob, KnobReading, listed

STUCK_BYTES = 256 << 20  # more than this that does not move, and the write would try for too long


def settled(scene: Scene, yielded: Collection[Knob]) -> Scene:
    """The scene with what its placement means for each cgroup, and for the pages of each pod."""
    if scene.placement is None:
        return scene
    scene = replace(scene, homes=homes(scene.view, scene.scope, scene.left_alone, scene.placement))
    return replace(scene, moves=to_move(scene, yielded))


def to_move(scene: Scene, yielded: Collection[Knob]) -> tuple[PageMove, ...]:
    """Pods with memory nodes to lose, those with cores of their own first. Not where MEMS is `yielded`."""
    losing = set(_losing(scene, yielded))
    specs = sorted((p.pod.spec for p in scene.view.pods), key=lambda spec: spec.cgroup)
    found = []
    for spec in specs:
        home = scene.homes.get(spec.cgroup)
        if home is not None and (spec.cgroup in losing or _inherits(spec.cgroup, home, scene.knobs)):
            found.append((not home.bound, PageMove(spec.uid, spec.inode, spec.cgroup, home.mems)))
    return tuple(move for _, move in sorted(found, key=lambda each: each[0]))


def held_up(moves: Iterable[PageMove], moving: Iterable[PagesMoving]) -> frozenset[str]:
    """The cgroups whose memory nodes must not be narrowed yet: of these moves, and those around them."""
    ready = {each.move for each in moving if _ready(each)}
    return frozenset(path for move in moves if move not in ready for path in _upwards(move.cgroup))


def meanwhile(reading: KnobReading, mems: str) -> str | None:
    """What a set holds until the pages are there; None: it is left as it is.

    Pages can only be moved to nodes that the set allows, so it has the new ones too.
    """
    now = _now(reading)
    if within(now, mems):
        return mems
    return union(now, mems) if reading.held or not within(mems, now) else None


def _ready(found: PagesMoving) -> bool:
    if found.unable:
        return True
    if not found.settled or found.left_bytes is None or found.stuck_bytes > STUCK_BYTES:
        return False
    return found.left_bytes - found.stuck_bytes <= SMALL_BYTES


def _losing(scene: Scene, yielded: Collection[Knob]) -> Iterator[str]:
    for knob, reading in scene.knobs.items():
        home = home_of(knob.target, scene.homes) if knob.kind is Kind.MEMS and knob not in yielded else None
        if home is not None and (mems := scene.homes[home].mems) and not within(_now(reading), mems):
            yield home


def _inherits(cgroup: str, home: Home, knobs: Mapping[Knob, KnobReading]) -> bool:
    """True for a pod without a set of its own, in a cgroup that is to lose nodes."""
    if Knob(Kind.MEMS, cgroup) in knobs or not home.mems:
        return False
    around = (knobs.get(Knob(Kind.MEMS, path)) for path in _upwards(cgroup))
    reading = next((reading for reading in around if reading is not None), None)
    return reading is not None and not within(_now(reading), home.mems)


def _now(reading: KnobReading) -> str:
    return reading.effective or listed(reading.actual)


def _upwards(cgroup: str) -> Iterator[str]:
    while cgroup:
        yield cgroup
        cgroup = cgroup.rpartition("/")[0]
