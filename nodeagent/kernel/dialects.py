"""Which hierarchy each kind of knob is in, and how to talk to a cgroup there.

Invariant: one hierarchy for each kind on this host, so that a knob has one owner.
"""

from __future__ import annotations

import resource
from typing import NamedTuple

from nodeagent.kernel.cgroup import KnobCgroup
from nodeagent.kernel.cgroup_v1 import CpusetV1, CpuV1
from nodeagent.kernel.cgroup_v2 import CpusetV2, CpuV2
from nodeagent.kernel.freezer import FreezerV1, FreezerV2
from nodeagent.kernel.io import BlkioV1, IoV2
from nodeagent.kernel.memory import MemoryV1, MemoryV2
from nodeagent.kernel.mounts import Hierarchies, Hierarchy
from nodeagent.kernel.net_cls import NetClsV1
from nodeagent.model.plan import Kind

CONTROLLERS = {
    Kind.CPU_QUOTA: "cpu",
    Kind.CPU_WEIGHT: "cpu",
    Kind.CPU_BURST: "cpu",
    Kind.CPUS: "cpuset",
    Kind.MEMS: "cpuset",
    Kind.MIGRATE: "cpuset",
    Kind.MEMORY_HIGH: "memory",
    Kind.IO_WEIGHT: "io",
    Kind.FREEZE: "freezer",
    Kind.NET_CLASS: "net_cls",
}
_DESCRIPTORS = 6  # of a cgroup: the directory and five files
_DIALECTS: dict[tuple[str, int], type[KnobCgroup]] = {
    ("cpu", 1): CpuV1,
    ("cpu", 2): CpuV2,
    ("cpuset", 1): CpusetV1,
    ("cpuset", 2): CpusetV2,
    ("memory", 1): MemoryV1,
    ("memory", 2): MemoryV2,
    ("io", 1): BlkioV1,
    ("io", 2): IoV2,
    ("freezer", 1): FreezerV1,
    ("freezer", 2): FreezerV2,
    ("net_cls", 1): NetClsV1,
}


class Branch(NamedTuple):
    """The hierarchy of one controller and how to talk to a cgroup in it."""

    root: str
    version: int
    dialect: type[KnobCgroup]
    walked: bool  # pods are looked for in it: a directory that is not there has just gone


def branches(hierarchies: Hierarchies) -> dict[str, Branch]:
    """By controller, those that are there."""
    found = {controller: _home(hierarchies, controller) for controller in dict.fromkeys(CONTROLLERS.values())}
    return {
        controller: Branch(at.root, at.version, _DIALECTS[controller, at.version], at == hierarchies.walk)
        for controller, at in found.items()
        if at is not None and (controller, at.version) in _DIALECTS
    }


def affordable() -> int:
    """How many cgroups may keep their files open: with a quarter of RLIMIT_NOFILE."""
    return max(0, resource.getrlimit(resource.RLIMIT_NOFILE)[0]) // 4 // _DESCRIPTORS


def _home(hierarchies: Hierarchies, controller: str) -> Hierarchy | None:
    """v1 calls io blkio, and v2 freezes without a controller."""
    if controller == "freezer" and hierarchies.unified is not None:
        return next(at for at in hierarchies.all if at.version == 2)
    v1 = "blkio" if controller == "io" else controller
    return hierarchies.roots.get(controller, hierarchies.roots.get(v1))
