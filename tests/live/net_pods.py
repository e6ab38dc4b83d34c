"""Pods with networks: cgroups of a test in all hierarchies, and processes with a namespace of their own."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nodeagent.kernel.mounts import Hierarchies, find_hierarchies
from nodeagent.model.pod import Member, PodSpec, Qos
from tests.live.place import remove_tree
from tests.live.running import TIMEOUT_S

_names = itertools.count()


class NetPods:
    """Pods below one cgroup, which is in the walked hierarchy and in the v2 one."""

    def __init__(self, places: Hierarchies) -> None:
        self.places = places
        self.top = f"na-test-{os.getpid()}-net-{next(_names)}"
        self.roots = list(dict.fromkeys([places.walk_root, *([places.unified] if places.unified else [])]))
        self._running: list[subprocess.Popen[bytes]] = []
        for root in self.roots:
            Path(root, self.top).mkdir()

    def make(self, name: str, only_walked: bool = False) -> str:
        """A cgroup; its path below the root of its hierarchy."""
        for root in self.roots[:1] if only_walked else self.roots:
            Path(root, self.top, name).mkdir()
        return f"{self.top}/{name}"

    def run(self, cgroup: str, own_network: bool = True, only_walked: bool = False) -> int:
        """A process in the cgroup that does nothing until its end; its id."""
        enter = [f"echo $$ > {root}/{cgroup}/cgroup.procs" for root in self.roots[: 1 if only_walked else 9]]
        wait = "sh -c 'echo in; read end'"
        script = " && ".join([*enter, f"exec {'unshare --net ' if own_network else ''}{wait}"])
        process = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        return process.pid

    def end(self, pid: int) -> None:
        process = next(each for each in self._running if each.pid == pid)
        self._running.remove(process)
        assert process.stdin is not None
        assert process.stdout is not None
        process.kill()
        process.wait(TIMEOUT_S)
        process.stdin.close()
        process.stdout.close()

    def vanish(self, cgroup: str) -> None:
        for root in self.roots:
            remove_tree(Path(root, cgroup))

    def member(self, cgroup: str, *nested: str, uid: str = "") -> Member:
        inode = os.stat(f"{self.places.walk_root}/{cgroup}").st_ino
        spec = PodSpec(
            uid=uid or cgroup, name="pod", cgroup=cgroup, inode=inode, qos=Qos.BATCH, source="rule"
        )
        return Member(spec, (), nested)

    def v2_id(self, cgroup: str) -> int:
        return os.stat(f"{self.roots[-1]}/{cgroup}").st_ino

    def remove(self) -> None:
        for process in list(self._running):
            self.end(process.pid)
        self.vanish(self.top)


@contextmanager
def net_pods() -> Iterator[NetPods]:
    """Removed with all of its processes on leaving; skips the test where there can be none."""
    places = find_hierarchies()
    if places.unified is None:
        pytest.skip("no cgroup v2 here")
    try:
        made = NetPods(places)
    except OSError as error:
        pytest.skip(f"cannot make a cgroup: {error}")
    try:
        yield made
    finally:
        made.remove()
