"""Cgroups of pods as the kubelet makes them, below a directory of the test's own in the real hierarchies."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from nodeagent.kernel.mounts import find_hierarchies
from tests.live.running import until

_numbers = itertools.count()


class KubePlace:
    """A kubepods tree; a pod in it lives as long as its process."""

    def __init__(self) -> None:
        self.name = f"na-test-{os.getpid()}-kube{next(_numbers)}"
        found = find_hierarchies("/")
        self._roots = {Path(each.root) for each in found.roots.values()}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def pod(self, path: str, container: str = "app") -> str:
        """Make the pod's cgroup (kubepods/burstable/podUID) with a container that sleeps; its full path."""
        full = f"{self.name}/{path}"
        for root in self._roots:
            if (root / "cgroup.subtree_control").exists():  # v2: children have what is handed down
                _hand_down(root, full)
            (root / full / container).mkdir(parents=True)
            if not (root / "cgroup.subtree_control").exists():
                _inherit_sets(root, f"{full}/{container}")
        process = subprocess.Popen(["sleep", "1000"])
        for root in self._roots:
            (root / full / container / "cgroup.procs").write_text(str(process.pid))
        self._running[path] = process
        return full

    def end(self, path: str) -> None:
        """Its process and its cgroups."""
        process = self._running.pop(path)
        process.kill()
        process.wait()
        for root in self._roots:
            top = root / self.name / path
            for directory, _, _ in os.walk(top, topdown=False):
                until(lambda d=Path(directory): _removed(d), f"{directory} is empty")  # type: ignore[misc]

    def close(self) -> None:
        """All that is left."""
        for path in list(self._running):
            self.end(path)
        for root in self._roots:
            for directory, _, _ in os.walk(root / self.name, topdown=False):
                os.rmdir(directory)


@contextlib.contextmanager
def kube_place() -> Iterator[KubePlace]:
    """Such a place, removed on leaving."""
    place = KubePlace()
    try:
        yield place
    finally:
        place.close()


def _removed(directory: Path) -> bool:
    with contextlib.suppress(OSError):
        directory.rmdir()
    return not directory.exists()


def _hand_down(root: Path, path: str) -> None:
    above = root
    for part in path.split("/"):
        wanted = set((above / "cgroup.controllers").read_text().split()) & {"cpu", "memory", "cpuset", "pids"}
        if wanted:
            (above / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(wanted)))
        above /= part
        above.mkdir(exist_ok=True)


def _inherit_sets(root: Path, path: str) -> None:
    """cgroup v1: a cpuset without CPUs takes no process."""
    above = root
    for part in path.split("/"):
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (above / part / name).exists() and not (above / part / name).read_text().strip():
                (above / part / name).write_text((above / name).read_text())
        above /= part
