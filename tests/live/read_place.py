"""Cgroups of a test in all hierarchies that are read, with real processes in them; removed afterwards."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nodeagent.kernel.mounts import Hierarchies, find_hierarchies
from nodeagent.model.errors import AgentError
from nodeagent.model.pod import CgroupDir, Member, PodSpec, Qos
from tests.live.running import SLOWNESS

CONTROLLERS = ("cpu", "cpuacct", "memory", "pids", "blkio", "io")


class Pods:
    """Cgroups of this test in all hierarchies that are read, and the processes in them."""

    def __init__(self, places: Hierarchies) -> None:
        roots = [places.roots[name].root for name in CONTROLLERS if name in places.roots]
        self.places = places
        self.roots = list(dict.fromkeys([*roots, *([places.unified] if places.unified else [])]))
        self.top = f"na-test-{os.getpid()}-read-{time.monotonic_ns()}"
        self._made: list[str] = []
        self._running: list[subprocess.Popen[bytes]] = []
        self.make(self.top)

    def make(self, cgroup: str, roots: list[str] | None = None) -> None:
        for root in roots or self.roots:
            if root == self.places.unified:
                enable_controllers(os.path.dirname(f"{root}/{cgroup}"))
            os.mkdir(f"{root}/{cgroup}")
            self._made.append(f"{root}/{cgroup}")

    def remove(self, *cgroups: str) -> None:
        for cgroup in cgroups:
            for root in self.roots:
                os.rmdir(f"{root}/{cgroup}")
                self._made.remove(f"{root}/{cgroup}")

    def run(self, cgroup: str, program: str, roots: list[str] | None = None) -> subprocess.Popen[bytes]:
        """Start `program` in the cgroup; back when it is there."""
        directories = [f"{root}/{cgroup}" for root in roots or self.roots]
        enter = f"import os\nfor d in {directories!r}: open(d + '/cgroup.procs', 'w').write('0')\n"
        command = [sys.executable, "-I", "-S", "-c", f"{enter}print('in', flush=True)\n{program}"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        self._running.remove(process)
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def member(self, cgroup: str, *containers: str, qos: Qos = Qos.LS) -> Member:
        def inode(path: str) -> int:
            return os.stat(f"{self.places.walk_root}/{path}").st_ino

        spec = PodSpec(uid=cgroup, name="pod", cgroup=cgroup, inode=inode(cgroup), qos=qos, source="rule")
        paths = [f"{cgroup}/{name}" for name in containers]
        inner = [(name, CgroupDir(p, inode(p))) for name, p in zip(containers, paths, strict=True)]
        return Member(spec, tuple(inner), tuple(paths))

    def close(self) -> None:
        for process in list(self._running):
            self.end(process)
        for path in reversed(self._made):
            until(lambda path=path: removed(path))  # type: ignore[misc]


def enable_controllers(parent: str) -> None:
    """Let the cgroups in a v2 cgroup have what they can have."""
    there = set(Path(parent, "cgroup.controllers").read_text().split())
    for name in there.intersection(CONTROLLERS):
        with contextlib.suppress(OSError):  # processes in it keep the others from going on
            Path(parent, "cgroup.subtree_control").write_text(f"+{name}")


def removed(path: str) -> bool:
    with contextlib.suppress(OSError):
        os.rmdir(path)
    return not os.path.exists(path)


def until(true: Callable[[], object], timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s * SLOWNESS
    while not true():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.01)


@contextlib.contextmanager
def some_pods() -> Iterator[Pods]:
    """Where pods can be made; skips where there can be none."""
    try:
        made = Pods(find_hierarchies())
    except (AgentError, OSError) as error:
        pytest.skip(f"no cgroups to write to: {error}")
    try:
        yield made
    finally:
        made.close()
