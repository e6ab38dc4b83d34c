"""Where pods run: what is asked, which CPUs and NUMA nodes each bound pod owns, and what the pools are.

CPUs and NUMA nodes are in the kernel's list format, as `str(CpuSet)` gives it ("0-3,8"); "" is empty.
"""

from __future__ import annotations

from msgspec import Struct


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


class Placement(Struct, frozen=True, gc=False):
    """All sets of one decision; bound and unplaced are ordered by uid.

    `shared` is for LS without binding; `mid` equals it unless MID has a pool of its own.
    `batch` may overlap `shared` and `mid` (the tier's quota bounds it there), never a bound pod's core.
    `unplaced` holds (uid, reason): these pods run in the shared pool, or where somebody else has put them.
    `hands_off` are online CPUs of others, in no set of ours; `left_alone` holds (uid, reason) of pods that
    somebody else looks after: none of their sets is written.
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
