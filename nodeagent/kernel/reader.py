"""One tick of reading: topology, node, and all pods that are said to be there.

Invariant: the clock is not read here; whatever a file says, `read` returns.
"""

from __future__ import annotations

import os

from msgspec import Struct

from nodeagent.kernel.files import Descriptors, KeptFile, Misses, Shelf, read_whole
from nodeagent.kernel.mounts import Hierarchies, find_hierarchies, under
from nodeagent.kernel.node import NodeFiles
from nodeagent.kernel.outside import OutsideBatch
from nodeagent.kernel.parse import stall
from nodeagent.kernel.pmu import PmuTurns
from nodeagent.kernel.pod_reader import Host, PodReader
from nodeagent.kernel.rdt import RdtGroups
from nodeagent.kernel.topology import TopologyFiles
from nodeagent.model.errors import AgentError, Garbled
from nodeagent.model.pod import Member, Qos
from nodeagent.model.snapshot import Node, Pod, Stall
from nodeagent.model.symptom import Disk
from nodeagent.model.topology import Topology

_GOLDEN = 0.6180339887498949  # multiples of it modulo 1 are spread evenly, however many there are
_SHORTEST_S = 0.001


class Seen(Struct, frozen=True, gc=False):
    """What one tick saw. `vanished` are cgroups of members that are no more: scan again."""

    topology: Topology
    node: Node
    pods: tuple[Pod, ...]
    vanished: tuple[str, ...]
    misses: dict[str, int]


class NodeReader:
    """Keeps the files of a node and its pods open from tick to tick. Unsupported without any cgroup mount.

    `symptoms`: also read what tells of trouble in each pod; it may be changed between two readings.
    """

    def __init__(
        self,
        host_root: str = "/",
        *,
        slow_tick_s: float = 5.0,
        max_kept_fds: int | None = None,
        symptoms: bool = True,
    ) -> None:
        self._shelf = Shelf(Descriptors(max_kept_fds), Misses())
        self._slow_tick_s = max(slow_tick_s, _SHORTEST_S)
        proc, system = under(host_root, "/proc"), under(host_root, "/sys/devices/system")
        self.hierarchies: Hierarchies = find_hierarchies(host_root)
        self._topology = TopologyFiles(proc, system, self._shelf)
        block = under(host_root, "/sys/block")
        self._node = NodeFiles(proc, self._topology.sys_node, block, self._slow_tick_s, self._shelf)
        kinds = self._node.psi_kinds()
        self._pmu = self._counters()
        rdt = RdtGroups(under(host_root, "/sys/fs/resctrl"), self._shelf)
        self._host = Host(
            self.hierarchies, proc, self._shelf, kinds, pmu=self._pmu, rdt=rdt, symptoms=symptoms
        )
        self._pods: dict[tuple[str, int], PodReader] = {}
        self._members: tuple[Member, ...] = ()
        self._born = 0

    @property
    def kept(self) -> int:
        """Number of descriptors kept now."""
        return self._shelf.descriptors.kept

    def read(self, members: tuple[Member, ...], at: float, *, full: bool = False) -> Seen:
        """The node and the members at `at` (monotonic seconds). `full`: the slow tier of all pods too."""
        if members is not self._members:
            self._follow(members, at)
        topology = self._topology.read(at)
        node = self._node.read(at, tuple(each.id for each in topology.nodes), full=full)
        self._host.ground.disk = _only(node.disks)
        self._host.gates.read()
        self._host.rdt.look(at)
        if not self._pmu.why and self._host.symptoms:
            directories = {key: where for key, pod in self._pods.items() if (where := pod.perf_directory)}
            self._host.counted = self._pmu.read(at, directories, [cpu.id for cpu in topology.cpus])
        read = [pod.read(at, full, self._slow_tick_s) for pod in self._pods.values()]
        pods = tuple([pod for pod in read if pod is not None])
        vanished = tuple(self._host.vanished)
        self._host.vanished.clear()
        return Seen(topology, node, pods, vanished, self._shelf.misses.taken())

    @property
    def no_counters(self) -> AgentError | None:
        """Why cycles and instructions are not counted, None where they are."""
        return self._pmu.error

    @property
    def symptoms(self) -> bool:
        return self._host.symptoms

    @symptoms.setter
    def symptoms(self, wanted: bool) -> None:
        self._host.symptoms = wanted

    def latency_sensitive(self) -> list[PodReader]:
        """The LS pods that are read."""
        return [pod for pod in self._pods.values() if pod.spec.qos is Qos.LS]

    def outside_batch(self) -> OutsideBatch:
        """What is spent outside Batch, to be read beside the ticks; who asked for it closes it."""
        return OutsideBatch(self.hierarchies, self._shelf)

    def pressure(self, path: str) -> KeptFile[Stall]:
        """A pressure file to be read beside the ticks; who asked for it closes it."""
        return KeptFile(path, stall, self._shelf, hot=True)

    def attend(self, uids: frozenset[str]) -> None:
        """From now on these pods alone are read wholly in each tick, as far as something moves in them."""
        self._host.attended = uids

    def close(self) -> None:
        """Close every kept file."""
        for pod in self._pods.values():
            pod.close()
        self._pmu.close()
        self._host.rdt.close()
        self._pods = {}
        self._members = ()
        self._host.gates.close()
        self._host.ground.close()
        self._node.close()
        self._topology.close()

    def _counters(self) -> PmuTurns:
        """What is here to count cycles with."""
        pmu, found = PmuTurns(), self.hierarchies.roots.get("perf_event")
        pmu.probe(found.root if found is not None else self.hierarchies.unified, min(os.sched_getaffinity(0)))
        return pmu

    def _follow(self, members: tuple[Member, ...], at: float) -> None:
        """Open for those that came, close for those that went; a new inode under an old name is both."""
        keys = [(member.spec.cgroup, member.spec.inode) for member in members]
        for ended in self._pods.keys() - set(keys):
            self._pods.pop(ended).close()
        known, self._pods = self._pods, {}
        for key, member in zip(keys, members, strict=True):
            pod = known.get(key)
            if pod is None:
                self._born += 1
                pod = PodReader(self._host, member, at + self._slow_tick_s * (self._born * _GOLDEN % 1.0))
            else:
                pod.follow(member)
            self._pods[key] = pod
        self._members = members
        self._host.gates.keep_only({pod.psi_directory for pod in self._pods.values() if pod.psi_directory})


def _only(disks: tuple[Disk, ...] | None) -> str:
    """The disk that is the only one in use, "" where there are more or none."""
    used = [disk.device for disk in disks or () if disk.operations]
    return used[0] if len(used) == 1 else ""


def boot_id(host_root: str = "/") -> str:
    """The kernel's id of this boot; AgentError when it is not there."""
    path = under(host_root, "/proc/sys/kernel/random/boot_id")
    text = read_whole(path, 256).strip()
    if len(text) != 36 or not text.replace(b"-", b"").isalnum() or not text.isascii():
        raise Garbled(f"{path}: not a boot id")
    return text.decode("ascii")
