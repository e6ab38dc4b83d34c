"""A cgroup of a test's own in the real cpu hierarchy, removed afterwards."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nodeagent.kernel.cgroup_v1 import CpuV1
from nodeagent.kernel.cgroup_v2 import CpuV2
from nodeagent.kernel.cpu import CpuCgroup
from nodeagent.kernel.mounts import Hierarchies, find_hierarchies

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
        for directory, _, _ in os.walk(self.path, topdown=False):
            os.rmdir(directory)


@contextmanager
def cpu_place() -> Iterator[Place]:
    """The place; skips the test where there can be none."""
    hierarchies = find_hierarchies()
    if "cpu" not in hierarchies.roots:
        pytest.skip("no cpu controller on this host")
    try:
        made = Place(hierarchies)
    except OSError as error:
        pytest.skip(f"cannot make a cgroup: {error}")
    try:
        if not (made.path / "cpu.idle").exists():
            pytest.skip("no cpu.idle here: Linux before 5.15, or the cpu controller is off at the root")
        yield made
    finally:
        made.remove()
