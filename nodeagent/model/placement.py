"""Where pods run: what is asked, which CPUs and NUMA nodes each bound pod owns, and what the pools are.

CPUs and NUMA nodes are in the kernel's list format, as `str(CpuSet)` gives it ("0-3,8"); "" is empty.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from msgspec import Struct

from nodeagent.model.foreign import Owned
from nodeagent.model.plan import Kind, Knob, Setting
from nodeagent.model.pod import PodSpec, Qos


class BindRequest(Struct, frozen=True, gc=False):
    """A pod that asks for CPUs of its own. `near` names a device (NIC, GPU) whose NUMA node is preferred.

    `memory_bytes` 0 = not told: any free memory will do. `exclusive`: whole NUMA nodes, nobody else on them.
    """

    uid: str
    cpus: int
    memory_bytes: int = 0
    exclusive: bool = False
    near: str = ""


class Placed(Struct, frozen=True, array_like=True, gc=False):
    """A bound pod: `cpus` are whole cores that it owns alone, `mems` the NUMA nodes of its memory."""

    uid: str
    cpus: str
    mems: str


class Move(Struct, frozen=True, array_like=True, gc=False):
    """A pod whose place is another one; "" where it had or has none of its own."""

    uid: str
    name: str
    old_cpus: str
    new_cpus: str
    old_mems: str
    new_mems: str


class Tidied(Struct, frozen=True, gc=False, kw_only=True):
    """What a defragmentation did, or would do when `dry_run`.

    `freed_nodes` are the NUMA nodes that no bound pod uses any more. `refused` is "", or why nothing was
    done. `errors` are the writes that failed. `written` is False for an agent that only observes.
    """

    dry_run: bool
    bound: int = 0
    unplaced: int = 0
    moves: tuple[Move, ...] = ()
    freed_nodes: str = ""
    refused: str = ""
    errors: tuple[str, ...] = ()
    written: bool = False


class Placement(Struct, frozen=True, gc=False):
    """All sets of one decision; bound and unplaced are ordered by uid.

    `shared` is for LS without binding; `mid` equals it unless MID has a pool of its own.
    `batch` may overlap `shared` and `mid` (the tier's quota bounds it there), never a bound pod's core.
    `unplaced` holds (uid, reason): these pods run in the shared pool, or where somebody else has put them.
    `hands_off` are online CPUs of others, in no set of ours; `left_alone` holds (uid, reason) of pods that
    somebody else looks after: none of their sets is written. `owned` tells whose these are.
    """

    bound: tuple[Placed, ...] = ()
    unplaced: tuple[tuple[str, str], ...] = ()
    shared: str = ""
    mid: str = ""
    batch: str = ""
    batch_mems: str = ""
    shared_mems: str = ""
    hands_off: str = ""
    left_alone: tuple[tuple[str, str], ...] = ()
    owned: tuple[Owned, ...] = ()


class Pool(enum.StrEnum):
    """NONE: the agent does not say where the pod runs."""

    NONE = "none"
    BOUND = "bound"
    SHARED = "shared"
    MID = "mid"
    BATCH = "batch"
    LEFT_ALONE = "left alone"


class Place(Struct, frozen=True, array_like=True, gc=False):
    """One pod: the sets that the agent wants it to have, and why they are not those that it asks for."""

    pool: Pool
    cpus: str = ""
    mems: str = ""
    why: str = ""


_POOLS = {Qos.LS: Pool.SHARED, Qos.MID: Pool.MID, Qos.BATCH: Pool.BATCH}


def places(specs: Iterable[PodSpec], found: Placement, plan: Iterable[Setting]) -> dict[str, Place]:
    """Where each pod shall run, by uid; `plan` is what is written for it."""
    sets = {s.knob: s.value for s in plan if s.knob.kind.is_set}
    bound = {placed.uid for placed in found.bound}
    alone, reasons = dict(found.left_alone), dict(found.unplaced)

    def place(spec: PodSpec) -> Place:
        if spec.uid in alone:
            return Place(Pool.LEFT_ALONE, why=alone[spec.uid])
        cpus, mems = (str(sets.get(Knob(kind, spec.cgroup), "")) for kind in (Kind.CPUS, Kind.MEMS))
        pool = Pool.BOUND if spec.uid in bound else _POOLS[spec.qos] if cpus else Pool.NONE
        return Place(pool, cpus, mems, reasons.get(spec.uid, ""))

    return {spec.uid: place(spec) for spec in specs}
