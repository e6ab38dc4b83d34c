"""Cgroups of a test's own in the real cpuset hierarchy, removed afterwards."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

from nodeagent.kernel.mounts import Hierarchies
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.plan import Kind
from tests.live.place import placed, remove_tree

FILES = ("cpuset.cpus", "cpuset.mems", "cpuset.memory_migrate")
_names = itertools.count()


class SetPlace:
    """A cgroup of this test in the real cpuset hierarchy, with cgroups and processes in it."""

    def __init__(self, hierarchies: Hierarchies) -> None:
        self.hierarchies = hierarchies
        self.hierarchy = hierarchies.roots["cpuset"]
        self.version = self.hierarchy.version
        self.target = f"na-test-set-{os.getpid()}-{next(_names)}"
        self.path = Path(self.hierarchy.root) / self.target
        self._processes: list[subprocess.Popen[bytes]] = []
        self.path.mkdir()
        self._inherit(self.path)

    @property
    def root_cpus(self) -> str:
        return str(self.root_set(Kind.CPUS))

    def root_set(self, kind: Kind) -> CpuSet:
        """All CPUs or memory nodes that there are."""
        name = kind.value if self.version == 1 else f"{kind.value}.effective"
        return CpuSet.parse((Path(self.hierarchy.root) / name).read_text())

    def make(self, name: str) -> str:
        if self.version == 2:
            ((self.path / name).parent / "cgroup.subtree_control").write_text("+cpuset")
        (self.path / name).mkdir()
        self._inherit(self.path / name)
        return f"{self.target}/{name}"

    def write(self, name: str, file: str, text: str) -> None:
        (self.path / name / file).write_text(text)

    def text(self, name: str, file: str = "cpuset.cpus") -> str:
        return (self.path / name / file).read_text().strip()

    def texts(self) -> dict[str, str]:
        """Every knob file of this subtree, as it is."""
        found = (path for path in sorted(self.path.rglob("cpuset.*")) if path.name in FILES)
        return {str(path.relative_to(self.path)): path.read_text() for path in found}

    def inhabit(self, name: str) -> int:
        """A process that only sleeps in this cgroup; its pid."""
        process = subprocess.Popen(["sleep", "300"])
        self._processes.append(process)
        (self.path / name / "cgroup.procs").write_text(str(process.pid))
        return process.pid

    def remove(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
        remove_tree(self.path)

    def _inherit(self, directory: Path) -> None:
        if self.version == 1:
            for name in ("cpuset.cpus", "cpuset.mems"):
                (directory / name).write_text((directory.parent / name).read_text())


def cpuset_place() -> AbstractContextManager[SetPlace]:
    """The place; skips the test where there can be none."""
    return placed("cpuset", SetPlace, _why_not)


def _why_not(made: SetPlace) -> str:
    if not (made.path / "cpuset.cpus").exists():
        return "the cpuset controller is off at the root"
    return "with one CPU there is no other set to go to" if len(os.sched_getaffinity(0)) < 2 else ""
