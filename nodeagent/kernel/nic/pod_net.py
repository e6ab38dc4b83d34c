"""How each pod's packets can be told from others: by its cgroup, or by the addresses of its own namespace.

    cgroup.procs -> /proc/PID/ns/net   ours: host network      else: fib_trie, if_inet6 -> addresses
                                                               RTM_GETNSID -> veths on our side, their bridge

A pod whose processes are in several namespaces (containers within a container) is in the one that most of
its cgroups are in, at a tie in that of the first: the sandbox's, which is made before the others.
Invariant: a new pod is looked at at once, one that is gone is out at once; the others are looked at again
when their veths change, when another pod has one of their addresses, and in turn.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from zlib import crc32

from msgspec.structs import replace

from nodeagent.kernel.errno import translated
from nodeagent.kernel.files import read_whole
from nodeagent.kernel.mounts import Hierarchies, under
from nodeagent.kernel.nic import netns
from nodeagent.kernel.nic.links import Peer
from nodeagent.kernel.nic.rtnetlink import Rtnetlink
from nodeagent.kernel.own_psi import psi_path
from nodeagent.model.errors import AgentError, Gone, Unsupported
from nodeagent.model.nic import PodNet
from nodeagent.model.pod import Member

AGAIN_S = 20.0  # and up to half as much again, so that pods found together are not looked at together
YOUNG_S = 30.0  # so long a pod of which something is missing is looked at in each tick
MOST_LOOKS = 16  # at pods that are not new, in one tick
_MOST_CGROUPS = 32
_MOST_BYTES = 4096  # of a cgroup.procs
NO_PROCESS = "it has no process yet"


class PodNets:
    """Reads the pods' networks, seen from the namespace of the caller; `host_root` is where /proc is."""

    def __init__(self, places: Hierarchies, host_root: str = "/") -> None:
        self._places = places
        self._proc = under(host_root, "/proc")
        self._own = netns.own_inode()
        self._link = Rtnetlink()
        self._pods: dict[str, _Pod] = {}
        self._peers: Mapping[int, tuple[Peer, ...]] = {}

    def read(
        self, members: Iterable[Member], peers: Mapping[int, tuple[Peer, ...]], at: float
    ) -> tuple[PodNet, ...]:
        """One for each member, in their order. `peers` are those of `Links`, `at` is in monotonic seconds."""
        pods: dict[str, _Pod] = {}
        fresh: list[_Pod] = []
        for member in members:
            pod = self._pods.get(member.spec.uid)
            if pod is None or pod.member.spec.inode != member.spec.inode:
                pod = _Pod(member, at)
                fresh.append(pod)
            pod.member = member
            pods[member.spec.uid] = pod
        self._pods = pods
        if peers is not self._peers or fresh:
            self._peers = peers
            fresh += [pod for pod in pods.values() if pod.due > at and pod.other_veths(peers)]
        looked = [*fresh, *_most_due(pods.values(), fresh, at)]
        changed = [self._look(pod, at) for pod in looked]
        if any(changed):
            for pod in _contested(pods.values(), looked):
                self._look(pod, at)
        return tuple([pod.net for pod in pods.values()])

    def close(self) -> None:
        """Give the socket back."""
        self._link.close()

    def tiers(self, paths: Sequence[str]) -> tuple[PodNet, ...]:
        """The cgroups v2 at these paths as they are now, each with its path for a uid."""
        return tuple(self._tier(path) for path in paths)

    def _tier(self, path: str) -> PodNet:
        root = self._places.walk_root if self._places.walk.version == 2 else self._places.unified
        try:
            found = None if root is None else os.stat(f"{root}/{path}").st_ino
        except OSError as error:
            return PodNet(uid=path, why=str(translated(error, f"{root}/{path}")))
        return PodNet(uid=path, cgroup_id=found, level=0 if found is None else _level(path))

    def _look(self, pod: _Pod, at: float) -> bool:
        """True when its addresses changed."""
        before = pod.net.addresses
        pod.netns_id = -1
        try:
            found = self._seen(pod)
        except AgentError as error:
            found = PodNet(uid=pod.member.spec.uid, why=str(error))
        try:
            number, level = self._cgroup(pod.member)
        except AgentError:  # it has none, or vanished
            number, level = None, 0
        pod.net = replace(found, cgroup_id=number, level=level)
        pod.other_veths(self._peers)
        missing = found.why or not (found.host_network or (found.addresses and pod.netns_id >= 0))
        spread = crc32(pod.member.spec.uid.encode("utf-8", "surrogateescape")) / 2**33
        pod.due = at if missing and at - pod.since < YOUNG_S else at + AGAIN_S * (1.0 + spread)
        return found.addresses != before

    def _seen(self, pod: _Pod) -> PodNet:
        """Without cgroup and veths; AgentError."""
        uid = pod.member.spec.uid
        inode, pid = self._namespace(pod.member)
        if inode == self._own:
            return PodNet(uid=uid, host_network=True)
        pod.netns_id = netns.number_here(self._link, f"{self._proc}/{pid}/ns/net")
        return PodNet(uid=uid, addresses=netns.addresses_of(self._proc, pid))

    def _namespace(self, member: Member) -> tuple[int, int]:
        """Inode of the pod's network namespace, and a process in it; AgentError."""
        processes: dict[int, int] = {}
        votes: Counter[int] = Counter()
        for cgroup in (member.spec.cgroup, *member.nested[: _MOST_CGROUPS - 1]):
            for pid in self._some_processes(cgroup):
                try:
                    inode = netns.inode(f"{self._proc}/{pid}/ns/net")
                except Gone:  # it ended
                    continue
                votes[inode] += 1
                processes.setdefault(inode, pid)
                break
        if not votes:
            raise Gone(NO_PROCESS)
        inode = votes.most_common(1)[0][0]
        return inode, processes[inode]

    def _some_processes(self, cgroup: str) -> list[int]:
        """Some that are directly in it; Unsupported when all are outside our pid namespace (0 each)."""
        try:
            listed = read_whole(f"{self._places.walk_root}/{cgroup}/cgroup.procs", _MOST_BYTES)
        except AgentError:  # it vanished, or holds no processes by its nature (v2 threaded)
            return []
        found = [int(line) for line in listed.splitlines(keepends=True) if line.endswith(b"\n")]
        if found and not any(found):
            raise Unsupported("its processes are in another pid namespace: run the agent in the host's")
        return [pid for pid in found if pid > 0]

    def _cgroup(self, member: Member) -> tuple[int | None, int]:
        """Id and level of the pod's v2 cgroup, None where it has none; AgentError."""
        spec = member.spec
        if self._places.walk.version == 2:
            return spec.inode, _level(spec.cgroup)
        path = psi_path(self._places, self._proc, spec.cgroup, member.nested)
        if path is None:
            return None, 0
        return netns.inode(f"{self._places.unified}/{path}"), _level(path)


class _Pod:
    """One pod: what was seen of it, and when it is looked at again."""

    __slots__ = ("due", "member", "net", "netns_id", "since")

    def __init__(self, member: Member, at: float) -> None:
        self.member = member
        self.since = at
        self.due = -math.inf
        self.netns_id = -1
        self.net = PodNet(uid=member.spec.uid)

    def other_veths(self, peers: Mapping[int, tuple[Peer, ...]]) -> bool:
        """Take over which veths it has; True when they are others than before."""
        mine = peers.get(self.netns_id, ())
        veths = tuple([peer.name for peer in mine])
        bridge = next((peer.bridge for peer in mine if peer.bridge), "")
        if veths == self.net.veths and bridge == self.net.bridge:
            return False
        self.net = replace(self.net, veths=veths, bridge=bridge)
        return True


def _most_due(pods: Iterable[_Pod], without: list[_Pod], at: float) -> list[_Pod]:
    known = set(without)
    due = [pod for pod in pods if pod.due <= at and pod not in known]
    return sorted(due, key=lambda pod: pod.due)[:MOST_LOOKS]


def _contested(pods: Iterable[_Pod], looked: list[_Pod]) -> list[_Pod]:
    """Those, not just looked at, with an address that is another's: an address may be given anew at once."""
    count = Counter(address for pod in pods for address in pod.net.addresses)
    return [
        pod for pod in pods if pod not in looked and any(count[address] > 1 for address in pod.net.addresses)
    ]


def _level(path: str) -> int:
    return path.count("/") + 1 if path else 0
