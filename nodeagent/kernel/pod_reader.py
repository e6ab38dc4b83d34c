"""One pod's files -> Pod: itself, its containers, and where its pressure is told.

Invariant: a pod that is gone stays gone; a cgroup made anew under its name is another member.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

from nodeagent.kernel.container_reader import ContainerReader
from nodeagent.kernel.files import Shelf
from nodeagent.kernel.gate import Gate, Gates
from nodeagent.kernel.mounts import Hierarchies
from nodeagent.kernel.own_psi import psi_path
from nodeagent.kernel.pmu import PmuTurns
from nodeagent.kernel.rdt import RdtGroups
from nodeagent.kernel.reading import PSI_KINDS, CgroupReader, PsiFiles
from nodeagent.kernel.symptoms.pod import Ground, SymptomReader, hardware_lacking
from nodeagent.kernel.symptoms.run_delay import RunDelay
from nodeagent.model.errors import AgentError, Gone, Unsupported
from nodeagent.model.pod import CgroupDir, Member, Qos
from nodeagent.model.snapshot import Container, Pod, Reading
from nodeagent.model.symptom import Pmu, Symptoms

# Where pressure was told nowhere, that is asked again after 1, 2, 4, 8, and then each 16 slow readings: a
# process may have been seen on its way into its cgroups.
_ASK_AGAIN = 16


class Host:
    """What all pods of one reader share. `psi_kinds` are the kinds of pressure that the node has at all.

    `attended` are the pods (uids) whose slow tier and symptoms are read in every tick, `counted` what the PMU
    has counted, by cgroup and inode.
    """

    def __init__(
        self,
        places: Hierarchies,
        proc: str,
        shelf: Shelf,
        psi_kinds: frozenset[str],
        *,
        pmu: PmuTurns,
        rdt: RdtGroups,
        symptoms: bool = True,
    ) -> None:
        self.pmu, self.rdt = pmu, rdt
        self.counted: Mapping[tuple[str, int], Pmu] = {}
        self.places = places
        self.proc = proc
        self.shelf = shelf
        self.psi_kinds = psi_kinds
        self.symptoms = symptoms
        self.ground = Ground(places, proc, shelf)
        self.attended: frozenset[str] = frozenset()
        self.gates = Gates(proc, shelf)
        self.vanished: list[str] = []


class PodReader:
    """Reads one member until it is gone. `slow_at`: when its slow tier is due after the first reading."""

    __slots__ = (
        "_busy", "_cgroup", "_containers", "_delay", "_denied", "_first_slow_at", "_gate", "_host", "_member",
        "_pod", "_ran", "_slow_at", "_symptoms", "_unsupported", "psi_directory", "spec",
    )  # fmt: skip

    def __init__(self, host: Host, member: Member, slow_at: float) -> None:
        self._slow_at = -math.inf
        self._first_slow_at = slow_at
        self.psi_directory: str | None = None  # None: not known yet, or nowhere
        self._host = host
        self._member = member
        directory = CgroupDir(member.spec.cgroup, member.spec.inode)
        self._cgroup = CgroupReader(host.places, directory, host.shelf, numa=True)
        self._containers: dict[tuple[str, CgroupDir], ContainerReader] = {}
        self._gate: Gate = host.gates.node
        self._delay: RunDelay | None = None
        self._symptoms: SymptomReader | None = None
        self._busy = self._ran = True
        self._denied = 0  # slow readings since the pressure was found to be nowhere, from 1; 0: it was not
        self._unsupported = _stalls(frozenset(PSI_KINDS) - host.psi_kinds)
        self._pod: Pod | None = None
        self.follow(member)

    def follow(self, member: Member) -> None:
        """The same pod as before, perhaps with other containers or another class."""
        self._member, self._pod, self.spec = member, None, member.spec
        for ended in self._containers.keys() - set(member.containers):
            self._containers.pop(ended).close()
        for name, directory in member.containers:
            if (name, directory) not in self._containers:
                host = self._host
                added = ContainerReader(host.places, host.shelf, host.vanished, name, directory)
                added.find_psi(self.psi_directory, member.spec.cgroup)
                self._containers[name, directory] = added
        if self._delay is not None:
            self._delay.threads = self._thread_lists()
        if self._symptoms is not None:
            self._symptoms.follow(self._inside("cgroup.procs"), self._inner())

    def read(self, at: float, full: bool, slow_tick_s: float) -> Pod | None:
        """The pod now; None when it is gone. Cgroups that are gone are added to the host's `vanished`."""
        if not full and at < self._slow_at and self._still():
            return self._pod
        slow = full
        if at >= self._slow_at:
            slow = True
            self._slow_at = max(self._slow_at, self._first_slow_at - slow_tick_s)
            self._slow_at += slow_tick_s * ((at - self._slow_at) // slow_tick_s + 1.0)
        if self.psi_directory is None:
            slow = self._without_psi(slow)
        moved = self._gate.moved
        slow = slow or (bool(self._host.attended) and self._attended)
        if self._unsupported or self._cgroup.delay is not None:
            self._cgroup.delay = self._stand_in()
        try:
            reading = self._cgroup.read(at, slow, full, moved)
        except Gone:
            self._host.vanished.append(self._member.spec.cgroup)
            return None
        pod = self._pod
        if slow:
            self._look_again()
        elif pod is not None and reading is pod.reading and not self._containers:
            self._busy = False
            return pod
        symptoms = None if pod is None else pod.symptoms
        if slow or symptoms is None:
            symptoms = self._read_symptoms(at, reading, full or self._attended)
        return self._renewed(reading, self._read_containers(at, slow, full, moved), symptoms)

    def waited(self, at: float) -> tuple[int, int] | None:
        """Between two readings: us waited for CPU until `at`, and stopped by own quotas; None: not known."""
        waited_us = self._cgroup.waited_us(at)
        inner = sum(container.throttled_us() for container in self._containers.values())
        return None if waited_us is None else (waited_us, self._cgroup.throttled_us() + inner)

    def _still(self) -> bool:
        """At rest as in the last tick, all of it, with nobody to ask for more: the pod is what it was.

        What its containers use and wait for is in its own counters.
        """
        gate = self._gate
        awake = self._busy or gate.moved or self._cgroup.delay is not None or self._pod is None
        if awake or (self._host.attended and self._attended) or not self._cgroup.still(calm=gate.calm):
            return False
        return not self._containers or all(inner.known for inner in self._containers.values())

    def close(self) -> None:
        self._cgroup.close()
        for container in self._containers.values():
            container.close()
        if self._delay is not None:
            self._delay.close()
        if self._symptoms is not None:
            self._symptoms.close()

    @property
    def pod(self) -> Pod | None:
        """As last read."""
        return self._pod

    @property
    def perf_directory(self) -> str | None:
        """Its directory in the hierarchy of perf_event; None for one that is not online, or not known."""
        found = self._host.places.roots.get("perf_event")
        if not self._member.spec.online:
            return None
        return f"{found.root}/{self._member.spec.cgroup}" if found is not None else self.psi_directory

    @property
    def _attended(self) -> bool:
        """One that takes from others only while it runs; one that suffers also while it cannot."""
        spec = self._member.spec
        return spec.uid in self._host.attended and (self._ran or spec.online)

    def _without_psi(self, slow: bool) -> bool:
        """Look for the pressure: as long as it is not known, and ever more seldom where it was nowhere.

        Without it, nothing tells whether the pod had a part in what the node suffers: then it is slow's turn.
        """
        self._denied += slow and self._denied > 0
        again = self._denied & (self._denied - 1) == 0 or self._denied % _ASK_AGAIN == 0
        if (slow and again) or (self._busy and not self._denied):
            self._find_psi()
        return slow or self._gate.moved

    def _read_containers(self, at: float, slow: bool, full: bool, moved: bool) -> tuple[Container, ...]:
        inner = [container.read(at, slow, full, moved) for container in self._containers.values()]
        return tuple([container for container in inner if container is not None])

    def _read_symptoms(self, at: float, reading: Reading, full: bool) -> Symptoms | None:
        host, spec = self._host, self._member.spec
        if not host.symptoms:
            return None
        if self._symptoms is None:
            lacking = hardware_lacking(pmu=not host.pmu.why, rdt=host.rdt.mounted)
            lists = self._inside("cgroup.procs")
            self._symptoms = SymptomReader(host.ground, spec.cgroup, lists, lacking, self._inner())
        delay = self._run_delay() if spec.online else None
        pmu = host.counted.get((spec.cgroup, spec.inode))
        rdt = host.rdt.read(name for name, _ in self._member.containers) if host.rdt.mounted else None
        return self._symptoms.read(at, reading.cpu_us, self._cgroup.reclaim, delay, pmu, rdt, full=full)

    def _renewed(self, reading: Reading, containers: tuple[Container, ...], symptoms: Symptoms | None) -> Pod:
        pod = self._pod
        self._busy = pod is None or reading is not pod.reading
        self._ran = pod is None or reading.cpu_us is None or reading.cpu_us != pod.reading.cpu_us
        unsupported = self._unsupported + self._cgroup.lacks
        if self._symptoms is not None:
            unsupported += self._symptoms.unsupported
        if pod is None or self._busy or (containers, unsupported) != (pod.containers, pod.unsupported):
            self._pod = pod = Pod(self._member.spec, reading, containers, unsupported, symptoms)
        return pod

    def _find_psi(self) -> None:
        """Ask where the pressure is told."""
        host, spec = self._host, self._member.spec
        if not host.psi_kinds:
            return
        try:
            path = psi_path(host.places, host.proc, spec.cgroup, self._member.nested)
        except Unsupported:
            self._unsupported = _stalls(frozenset(PSI_KINDS))
            self._denied = self._denied or 1
            return
        except AgentError as error:
            host.shelf.misses.count(error)
            return
        self._unsupported, self._denied = _stalls(frozenset(PSI_KINDS) - host.psi_kinds), 0
        if path is not None:
            if self._delay is not None:
                self._delay.keep = False
            self.psi_directory = f"{host.places.unified}/{path}"
            self._cgroup.psi = PsiFiles(self.psi_directory, host.shelf)
            self._gate = host.gates.over(self.psi_directory)
            for container in self._containers.values():
                container.find_psi(self.psi_directory, spec.cgroup)

    def _look_again(self) -> None:
        """After a slow reading: which kinds the directory has, and whether it is there at all."""
        psi = self._cgroup.psi
        if psi is None or not (psi.absent or self._unsupported):
            return
        absent = frozenset(psi.absent)
        self._unsupported = _stalls(absent | (frozenset(PSI_KINDS) - self._host.psi_kinds))
        if len(absent) == len(PSI_KINDS) and not os.path.isdir(psi.directory):
            self._cgroup.psi = self.psi_directory = None
            self._gate = self._host.gates.node

    def _stand_in(self) -> RunDelay | None:
        """What stands in for the CPU pressure of an online pod that has none."""
        spec = self._member.spec
        wanted = spec.qos is Qos.LS or (self._host.symptoms and spec.online)
        if not wanted or "cpu_stall" not in self._unsupported:
            return None
        delay = self._run_delay()
        delay.keep = True
        return delay

    def _run_delay(self) -> RunDelay:
        if self._delay is None:
            self._delay = RunDelay(self._host.proc, self._thread_lists(), self._host.shelf, keep=False)
        return self._delay

    def _thread_lists(self) -> tuple[str, ...]:
        return self._inside("tasks" if self._host.places.walk.version == 1 else "cgroup.threads")

    def _inner(self) -> tuple[str, ...]:
        return tuple(directory.path for _, directory in self._member.containers)

    def _inside(self, name: str) -> tuple[str, ...]:
        """Paths of this file in the pod's cgroup and in all that are in it."""
        root = self._host.places.walk_root
        return tuple(f"{root}/{cgroup}/{name}" for cgroup in (self._member.spec.cgroup, *self._member.nested))


def _stalls(kinds: frozenset[str]) -> tuple[str, ...]:
    return tuple(f"{kind}_stall" for kind in PSI_KINDS if kind in kinds)
