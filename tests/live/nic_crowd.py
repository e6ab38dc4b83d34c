"""Many pods with networks of their own, quickly made and removed while an agent looks on."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.kernel.place import make_pod_cgroup, remove_if_empty
from nodeagent.model.pod import OWN_ROOT, Qos
from tests.live.nic_lab import Lab, Pod, Way
from tests.live.running import unique, until

_PROGRAM = Path(__file__).with_name("nic_dwellers.py")


class Dweller(NamedTuple):
    """A pod: its network, its cgroup below the root of each hierarchy, its one process."""

    net: Pod
    cgroup: str
    pid: int


class Crowd:
    """The pods that are there; `crowd()` makes it."""

    def __init__(self, made: Lab, program: subprocess.Popen[str]) -> None:
        self._lab, self._program = made, program
        self._places = find_hierarchies()
        self.here: list[Dweller] = []

    def arrive(self, qos: Qos = Qos.BATCH, way: Way = Way.ROUTED) -> Dweller:
        """A new pod, as a container runtime makes one: its network is there before its process."""
        net = self._lab.pod(way)
        cgroup = f"{OWN_ROOT}/{qos.value}/{unique(net.namespace)}"
        procs = make_pod_cgroup(self._places, cgroup).procs
        pid = int(self._ask(f"{net.namespace} {' '.join(os.path.dirname(file) for file in procs)}"))
        self.here.append(Dweller(net, cgroup, pid))
        return self.here[-1]

    def leave(self, dweller: Dweller) -> None:
        """Process, cgroup and network go, in this order."""
        self.here.remove(dweller)
        self._ask(f"end {dweller.pid}")
        until(lambda: remove_if_empty(self._places, dweller.cgroup), f"{dweller.cgroup} can be removed")
        self._lab.remove(dweller.net)

    def close(self) -> None:
        """End all processes and remove all cgroups; the networks go with the lab."""
        self._program.communicate()
        for dweller in self.here:
            until(lambda path=dweller.cgroup: remove_if_empty(self._places, path), dweller.cgroup)  # type: ignore[misc]

    def _ask(self, line: str) -> str:
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(f"{line}\n")
        self._program.stdin.flush()
        answer = self._program.stdout.readline()
        assert answer, f"no answer to {line}"
        return answer


@contextlib.contextmanager
def crowd(made: Lab) -> Iterator[Crowd]:
    """Nobody yet, in this lab."""
    command = [sys.executable, "-I", "-S", str(_PROGRAM)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        there = Crowd(made, program)
        try:
            yield there
        finally:
            there.close()
