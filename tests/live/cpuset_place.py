"""Cgroups of a test's own in the real cpuset hierarchy, removed afterwards."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nodeagent.kernel.mounts import Hierarchies, find_hierarchies

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
        name = "cpuset.cpus" if self.version == 1 else "cpuset.cpus.effective"
        return (Path(self.hierarchy.root) / name).read_text().strip()

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
        for directory, _, _ in os.walk(self.path, topdown=False):
            os.rmdir(directory)

    def _inherit(self, directory: Path) -> None:
        if self.version == 1:
            for name in ("cpuset.cpus", "cpuset.mems"):
                (directory / name).write_text((directory.parent / name).read_text())


@contextmanager
def cpuset_place() -> Iterator[SetPlace]:
    """The place; skips the test where there can be none."""
    hierarchies = find_hierarchies()
    if "cpuset" not in hierarchies.roots:
        pytest.skip("no cpuset controller on this host")
    try:
        made = SetPlace(hierarchies)
    except OSError as error:
        pytest.skip(f"cannot make a cgroup: {error}")
    try:
        if not (made.path / "cpuset.cpus").exists():
            pytest.skip("the cpuset controller is off at the root")
        if len(os.sched_getaffinity(0)) < 2:
            pytest.skip("with one CPU there is no other set to go to")
        yield made
    finally:
        made.remove()
