"""A cgroup of a test's own in the real cpu hierarchy, removed afterwards."""

from __future__ import annotations

import itertools
import os
from contextlib import AbstractContextManager
from pathlib import Path

from nodeagent.kernel.cgroup_v1 import CpuV1
from nodeagent.kernel.cgroup_v2 import CpuV2
from nodeagent.kernel.cpu import CpuCgroup
from nodeagent.kernel.mounts import Hierarchies
from tests.live.place import placed, remove_tree

FILES = (
    "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us", "cpu.shares",
    "cpu.max", "cpu.max.burst", "cpu.weight", "cpu.idle",
)  # fmt: skip
_names = itertools.count()


class Place:
    """A cgroup of this test in the real cpu hierarchy, with cgroups in it."""

    def __init__(self, hierarchies: Hierarchies) -> None:
        self.hierarchies = hierarchies
        self.version = hierarchies.roots["cpu"].version
        self.target = f"na-test-{os.getpid()}-{next(_names)}"
        self.path = Path(hierarchies.roots["cpu"].root) / self.target
        self.path.mkdir()

    def make(self, name: str) -> str:
        parent = (self.path / name).parent
        if self.version == 2:
            (parent / "cgroup.subtree_control").write_text("+cpu")
        (self.path / name).mkdir()
        return f"{self.target}/{name}"

    def dialect(self, name: str = "") -> CpuCgroup:
        return (CpuV1 if self.version == 1 else CpuV2)(str(self.path / name))

    def texts(self) -> dict[str, str]:
        """Every knob file of this subtree, as it is."""
        found = [path for path in sorted(self.path.rglob("*")) if path.name in FILES]
        own = [self.path / name for name in FILES if (self.path / name).exists()]
        return {str(path.relative_to(self.path)): path.read_text() for path in {*own, *found}}

    def remove(self) -> None:
        remove_tree(self.path)


def cpu_place() -> AbstractContextManager[Place]:
    """The place; skips the test where there can be none."""
    return placed("cpu", Place, _why_not)


def _why_not(made: Place) -> str:
    there = (made.path / "cpu.idle").exists()
    return "" if there else "no cpu.idle here: Linux before 5.15, or the cpu controller is off at the root"
