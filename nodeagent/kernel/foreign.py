"""Who else owns CPUs on this host: the kubelet, real-time pods, cpuset partitions.

Invariant: what cannot be read is None with the reason, never nobody.
"""

from __future__ import annotations

from collections.abc import Mapping

from nodeagent.kernel.files import read_whole
from nodeagent.kernel.kubelet import Given, KubeletFiles
from nodeagent.kernel.mounts import Hierarchies, under
from nodeagent.kernel.realtime import RealtimePods
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.errors import AgentError, Garbled, Gone
from nodeagent.model.foreign import Foreign, Owned
from nodeagent.model.plan import Held, Knob
from nodeagent.model.pod import Member
from nodeagent.model.topology import Topology

PARTITION = "taken by a cpuset partition"


class ForeignFiles:
    """`kubelet_dir` is the kubelet's directory on the host; "": there is no kubelet to ask."""

    def __init__(self, places: Hierarchies, host_root: str, kubelet_dir: str) -> None:
        self._places = places
        self._kubelet = KubeletFiles(under(host_root, kubelet_dir)) if kubelet_dir else None
        self._where = kubelet_dir
        self._realtime = RealtimePods(places)
        self._shared = ""
        self._missing: CpuSet | None = None  # CPUs that the v2 root did not have at the last reading

    def read(
        self, members: tuple[Member, ...], at: float, topology: Topology, held: Mapping[Knob, Held]
    ) -> Foreign:
        """As of now; `held` are the knobs that the agent has written."""
        unknown: list[str] = []
        kubelet = partitions = realtime = None
        try:
            given = self._given(members)
            kubelet, self._shared = given.owned, given.shared
        except AgentError as error:
            unknown.append(str(error))
        try:
            partitions = self._partitions(topology)
        except AgentError as error:
            unknown.append(str(error))
        found = self._realtime.read(members, at, held, self._shared)
        if self._realtime.unknown:
            unknown.append(self._realtime.unknown)
        else:
            realtime = found
        return Foreign(kubelet, realtime, partitions, tuple(unknown))

    def _given(self, members: tuple[Member, ...]) -> Given:
        given = None if self._kubelet is None else self._kubelet.read()
        if given is not None or self._kubelet is None:
            return given or Given()
        if any(member.spec.source == "kubelet" for member in members):
            raise Gone(f"{self._where}/cpu_manager_state is not there, but pods of the kubelet are")
        return Given()

    def _partitions(self, topology: Topology) -> tuple[Owned, ...]:
        """On v2 the root keeps the CPUs that no partition has (Documentation/admin-guide/cgroup-v2.rst).

        A CPU that is plugged in may be online for a moment before the root has it, so a CPU counts when it
        was missing at the last reading, too.
        """
        cpuset = self._places.roots.get("cpuset")
        if cpuset is None or cpuset.version == 1:
            return ()
        path = f"{cpuset.root}/cpuset.cpus.effective"
        try:
            left = CpuSet.parse(read_whole(path).decode("ascii"))
        except ValueError as error:
            raise Garbled(f"{path}: not a list of CPUs") from error
        missing = CpuSet({cpu.id for cpu in topology.cpus} - left)
        gone = missing if self._missing is None else CpuSet(missing & self._missing)
        self._missing = missing
        return (Owned("", str(gone), PARTITION),) if gone else ()
