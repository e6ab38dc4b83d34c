"""One pod's files -> Pod: itself, its containers, and where its pressure is told.

Invariant: a pod that is gone stays gone; a cgroup made anew under its name is another member.
"""

from __future__ import annotations

import os

from nodeagent.kernel.files import Shelf
from nodeagent.kernel.gate import Gate, Gates
from nodeagent.kernel.mounts import Hierarchies
from nodeagent.kernel.own_psi import psi_path
from nodeagent.kernel.reading import PSI_KINDS, CgroupReader, PsiFiles
from nodeagent.kernel.run_delay import RunDelay
from nodeagent.model.errors import AgentError, Gone, Unsupported
from nodeagent.model.pod import CgroupDir, Member, Qos
from nodeagent.model.snapshot import Container, Pod


class Host:
    """What all pods of one reader share. `psi_kinds` are the kinds of pressure that the node has at all."""

    def __init__(self, places: Hierarchies, proc: str, shelf: Shelf, psi_kinds: frozenset[str]) -> None:
        self.places = places
        self.proc = proc
        self.shelf = shelf
        self.psi_kinds = psi_kinds
        self.gates = Gates(proc, shelf)
        self.vanished: list[str] = []


class PodReader:
    """Reads one member until it is gone. `slow_at` is when its slow tier is due next."""

    def __init__(self, host: Host, member: Member, slow_at: float) -> None:
        self.slow_at = slow_at
        self.psi_directory: str | None = None  # None: not known yet, or nowhere
        self._host = host
        self._member = member
        self._gone = False
        self._cgroup = CgroupReader(host.places, CgroupDir(member.spec.cgroup, member.spec.inode), host.shelf)
        self._containers: dict[tuple[str, CgroupDir], _ContainerReader] = {}
        self._gate: Gate = host.gates.node
        self._delay: RunDelay | None = None
        self._busy = self._fresh = True
        self._unsupported = _stalls(frozenset(PSI_KINDS) - host.psi_kinds)
        self._pod: Pod | None = None
        self.follow(member)

    def follow(self, member: Member) -> None:
        """The same pod as before, perhaps with other containers or another class."""
        self._member, self._pod = member, None
        for ended in self._containers.keys() - set(member.containers):
            self._containers.pop(ended).close()
        for name, directory in member.containers:
            if (name, directory) not in self._containers:
                added = _ContainerReader(self._host, name, directory)
                added.find_psi(self.psi_directory, member.spec.cgroup)
                self._containers[name, directory] = added
        if self._delay is not None:
            self._delay.threads = self._thread_lists()

    def read(self, at: float, full: bool, slow_tick_s: float) -> Pod | None:
        """The pod now; None when it is gone. Cgroups that are gone are added to the host's `vanished`."""
        spec = self._member.spec
        slow = full or self._fresh or at >= self.slow_at
        try:
            pod = None if self._gone else self._read(at, slow, full)
        except Gone:
            self._gone = True
            self.close()
            pod = None
        if pod is None:
            self._host.vanished.append(spec.cgroup)
        elif slow and not self._fresh:
            self.slow_at += slow_tick_s * ((at - self.slow_at) // slow_tick_s + 1.0)
        self._fresh = False
        return pod

    def close(self) -> None:
        self._cgroup.close()
        for container in self._containers.values():
            container.close()
        if self._delay is not None:
            self._delay.close()
            self._delay = None

    def _read(self, at: float, slow: bool, full: bool) -> Pod:
        if self.psi_directory is None and (slow or self._busy):
            self._find_psi()
        moved = self._gate.moved
        if moved and self.psi_directory is None:
            slow = True  # no pressure of its own tells whether it had a part in the node's
        reading = self._cgroup.read(
            at, slow=slow, full=full, parent_moved=moved, run_delay_us=self._run_delay_us(at)
        )
        inner = [container.read(at, slow, full, moved) for container in self._containers.values()]
        containers = tuple([container for container in inner if container is not None])
        if slow:
            self._look_again()
        last = self._pod
        self._busy = last is None or reading is not last.reading
        rest = (containers, self._unsupported)
        if last is None or self._busy or rest != (last.containers, last.unsupported):
            self._pod = last = Pod(self._member.spec, reading, *rest)
        return last

    def _find_psi(self) -> None:
        """Ask where the pressure is told: while that is not known, and again where it was nowhere."""
        host, spec = self._host, self._member.spec
        if not host.psi_kinds:
            return
        try:
            path = psi_path(host.places, host.proc, spec.cgroup, self._member.nested)
        except Unsupported:
            self._unsupported = _stalls(frozenset(PSI_KINDS))
            return
        except AgentError as error:
            host.shelf.misses.count(error)
            return
        self._unsupported = _stalls(frozenset(PSI_KINDS) - host.psi_kinds)
        if path is not None:
            self.psi_directory = f"{host.places.unified}/{path}"
            self._cgroup.psi = PsiFiles(self.psi_directory, host.shelf)
            self._gate = host.gates.over(self.psi_directory)
            for container in self._containers.values():
                container.find_psi(self.psi_directory, spec.cgroup)

    def _look_again(self) -> None:
        """After a slow reading: which kinds the directory has, and whether it is there at all."""
        psi = self._cgroup.psi
        if psi is None:
            return
        absent = frozenset(psi.absent)
        self._unsupported = _stalls(absent | (frozenset(PSI_KINDS) - self._host.psi_kinds))
        if len(absent) == len(PSI_KINDS) and not os.path.isdir(psi.directory):
            self._cgroup.psi = self.psi_directory = None
            self._gate = self._host.gates.node

    def _run_delay_us(self, at: float) -> int | None:
        """For LS pods whose CPU pressure is told nowhere."""
        if self._member.spec.qos is not Qos.LS or "cpu_stall" not in self._unsupported:
            return None
        if self._delay is None:
            self._delay = RunDelay(self._host.proc, self._thread_lists(), self._host.shelf)
        return self._delay.read(at)

    def _thread_lists(self) -> tuple[str, ...]:
        walk = self._host.places.walk
        name = "tasks" if walk.version == 1 else "cgroup.threads"
        cgroups = (self._member.spec.cgroup, *self._member.nested)
        return tuple(f"{walk.root}/{cgroup}/{name}" for cgroup in cgroups)


class _ContainerReader:
    """A container's cgroup is the pod's plus a tail, in the v2 hierarchy too."""

    def __init__(self, host: Host, name: str, directory: CgroupDir) -> None:
        self._host = host
        self._name = name
        self._directory = directory
        self._cgroup = CgroupReader(host.places, directory, host.shelf)
        self._last: Container | None = None
        self._fresh = True

    def find_psi(self, pod_directory: str | None, pod_cgroup: str) -> None:
        if pod_directory is not None:
            tail = self._directory.path.removeprefix(pod_cgroup)
            self._cgroup.psi = PsiFiles(pod_directory + tail, self._host.shelf)

    def read(self, at: float, slow: bool, full: bool, moved: bool) -> Container | None:
        try:
            reading = self._cgroup.read(at, slow=slow or self._fresh, full=full, parent_moved=moved)
        except Gone:
            self._host.vanished.append(self._directory.path)
            return None
        self._fresh = False
        if self._last is None or reading is not self._last.reading:
            self._last = Container(self._name, self._directory.path, self._directory.inode, reading)
        return self._last

    def close(self) -> None:
        self._cgroup.close()


def _stalls(kinds: frozenset[str]) -> tuple[str, ...]:
    return tuple(f"{kind}_stall" for kind in PSI_KINDS if kind in kinds)
