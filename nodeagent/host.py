"""The node as the loop sees it: who is here, what is read, what is written, what wakes us.

Invariant: the clocks are read once per tick, in `read`; an unreadable pod list raises, it is never empty.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from nodeagent.apps.applications import Applications
from nodeagent.core.nic import classifier, readings, rule_of
from nodeagent.core.surge import HINT
from nodeagent.kernel.foreign import ForeignFiles
from nodeagent.kernel.knobs import Knobs
from nodeagent.kernel.mounts import Hierarchies, find_hierarchies, under
from nodeagent.kernel.page_mover import PageMover
from nodeagent.kernel.reader import NodeReader, Seen, boot_id
from nodeagent.kernel.targets import CLASS_DIRECTORIES, absent
from nodeagent.kernel.tree import walk
from nodeagent.kernel.triggers import Triggers
from nodeagent.kernel.watch import CgroupWatch
from nodeagent.lane import Lane
from nodeagent.model.errors import AgentError, Failed
from nodeagent.model.foreign import Foreign
from nodeagent.model.interference import Restraint
from nodeagent.model.kubernetes import KubernetesSettings
from nodeagent.model.nic import Classifier, NicsSeen
from nodeagent.model.pages import PageMove
from nodeagent.model.plan import Change, Held, Kind, Knob, KnobReading, Outcome
from nodeagent.model.pod import CgroupDir, Member, PodRule, Qos
from nodeagent.model.policy import Policy
from nodeagent.model.settings import Actuator, AgentSettings
from nodeagent.model.snapshot import Snapshot, Stalled
from nodeagent.pods.claims import read_claims
from nodeagent.pods.kubernetes import KubernetesPods, kubernetes_pods
from nodeagent.pods.recognise import recognised
from nodeagent.pods.told import NOTHING
from nodeagent.units.bus import reachable
from nodeagent.units.names import is_unit
from nodeagent.wanted import WantedKnobs

if TYPE_CHECKING:
    from nodeagent.kernel.nic.network import Network

WALKS_PER_TICK = 4  # where cgroups come without end, the next tick goes on


class Host:
    """Kept-open descriptors on one node; `close` it. Raises Unsupported where there are no cgroups."""

    def __init__(
        self,
        settings: AgentSettings,
        rules: tuple[PodRule, ...],
        policy: Policy | None = None,
        kubernetes: KubernetesSettings | None = None,
    ) -> None:
        self.policy = policy = policy or Policy()
        self.rules = rules
        self.hierarchies = find_hierarchies(settings.host_root)
        self.boot_id = boot_id(settings.host_root)
        self._settings = settings
        self._reader = NodeReader(
            settings.host_root, slow_tick_s=settings.slow_tick_s, symptoms=policy.interference.detect
        )
        self.knobs = Knobs(self.hierarchies)
        if reachable(settings.host_root):
            self.knobs.gives = is_unit
        cpuset = self.hierarchies.roots.get("cpuset", self.hierarchies.walk)
        self.network, self.no_network = _network(settings, self.hierarchies)
        self._mover = PageMover(under(settings.host_root, "/proc"), cpuset.root)
        self._foreign = ForeignFiles(self.hierarchies, settings.host_root, settings.kubelet_dir)
        self.kubernetes = _kubernetes(settings, kubernetes)
        self.applications: Applications | None = None
        self._watch = CgroupWatch()
        self.fast_lane_s = settings.fast_lane_s  # 0: nobody looks between ticks
        self._lane = Lane(self._reader, under(settings.host_root, "/proc/pressure/cpu"))
        self._triggers = Triggers(
            settings.host_root,
            self.hierarchies,
            policy.pressure.ls_cpu_stall_ratio,
            min(settings.tick_s, settings.fast_lane_s or settings.tick_s),
        )
        self._members: tuple[Member, ...] = ()
        self._tiers: tuple[str, ...] = ()
        self._wanted = WantedKnobs(self.knobs, settings.enforce)
        self._scanned_at: float | None = None  # None: to be walked before the next reading

    def read(self, seq: int, held: Mapping[Knob, Held], woken_by: str, *, full: bool = False) -> Snapshot:
        """One snapshot: the pods by class, their readings, the node, and every knob we may set or hold."""
        at, unix = time.monotonic(), time.time()
        if self.kubernetes is not None and self.kubernetes.changed(at):
            self._scanned_at = None
        if self._scanned_at is None or at - self._scanned_at >= self._settings.scan_s:
            self._scan(at)
        self._reader.symptoms = self.policy.interference.detect
        seen, stalled = self._seen(at, full=full)
        if seen.vanished:
            self._scanned_at = None
        restrained = self._wanted.restrained(seen.pods)
        knobs = self.knobs.read((*self._wanted.now(seen.pods), *restrained), held)
        self._wanted.found(knobs)
        nics = None if self.network is None else self.network.read(self._members, self._tiers, at)
        return Snapshot(
            seq=seq,
            at=at,
            unix=unix,
            boot_id=self.boot_id,
            topology=seen.topology,
            node=seen.node,
            pods=seen.pods if self.applications is None else self.applications.told(seen.pods, at),
            tiers=self._tiers,
            knobs=(*knobs, *self._nic_knobs(nics)),
            nics=nics,
            moving=self._mover.progress(),
            misses=_added(seen.misses, self.knobs.misses),
            woken_by=woken_by,
            enforce=self._settings.enforce,
            pod_list=None if self.kubernetes is None else self.kubernetes.seen(at),
            foreign=self._foreign.read(self._members, at, seen.topology, held)
            if self.policy.numa.placement or any(knob.kind is Kind.CPUS for knob in restrained)
            else Foreign(None, None, None),
            absent=absent(restrained, knobs, {pod.spec.cgroup for pod in seen.pods} if restrained else ()),
            stalled=stalled,
            outside_cores=self._lane.outside_cores if self.fast_lane_s else None,
        )

    def look(self, at: float) -> tuple[tuple[Stalled, ...], float | None]:
        """Between two ticks: which LS pods wait (nearly) too long just now; the cores used outside Batch."""
        return self._lane.look(at, HINT * self.policy.pressure.ls_cpu_stall_ratio), self._lane.outside_cores

    def attend(self, uids: frozenset[str]) -> None:
        """Read these pods wholly in each tick from now on, until the next call: somebody is in trouble."""
        self._reader.attend(uids)

    def restrain(self, restraints: Iterable[Restraint]) -> None:
        """From the next reading on, what these want to set is read, too."""
        self._wanted.restraints = tuple(restraints)

    def apply(self, changes: Iterable[Change]) -> tuple[Outcome, ...]:
        """Write in order, read back; never raises for a knob that is refused or gone."""
        return self.knobs.apply(changes)

    def move(self, moves: Iterable[PageMove], bytes_per_s: int) -> None:
        """Move these pages from now on, beside the ticks; what is not among them any more is let be."""
        self._mover.want(moves, bytes_per_s)

    def stop_moving(self) -> None:
        """Let all pages be; it takes as long as the batch that is on its way."""
        self._mover.stop()

    def inode(self, knob: Knob) -> int | None:
        """Inode of the cgroup that `apply` would write to."""
        return self.knobs.inode(knob)

    def vanished(self, held: Mapping[Knob, Held]) -> tuple[Knob, ...]:
        """Held knobs whose cgroup is no more, or is another one now."""
        return self.knobs.vanished(held)

    def wake_fds(self) -> dict[int, int]:
        """Descriptors to wait on with the poll events to wait for."""
        fds = dict.fromkeys(self._triggers.fds(), select.POLLPRI)
        if self._watch.fileno() >= 0:
            fds[self._watch.fileno()] = select.POLLIN
        return fds

    def woken(self, fd: int, events: int) -> str:
        """Take in what a wake-up said: "cgroup" or "psi" when it calls for a tick, else ""."""
        if fd != self._watch.fileno():
            return "psi" if self._triggers.fired(fd, events) else ""
        if not self._watch.drain():
            return ""
        self._scanned_at = None
        return "cgroup"

    def forget_scan(self) -> None:
        """Walk again before the next reading: the rules changed, or the last walk failed."""
        self._scanned_at = None

    @property
    def no_counters(self) -> AgentError | None:
        """Why cycles and instructions are not counted, None where they are."""
        return self._reader.no_counters

    @property
    def degraded(self) -> str:
        """Empty, or why cgroups are not noticed at once."""
        return self._watch.degraded

    def close(self) -> None:
        """Close every descriptor."""
        for part in (
            self._mover,
            self._lane,
            self._reader,
            self.knobs,
            self._watch,
            self._triggers,
            self.network,
            self.kubernetes,
        ):
            if part is not None:
                part.close()

    def _seen(self, at: float, *, full: bool) -> tuple[Seen, tuple[Stalled, ...]]:
        """The pods and the node, and which LS pods wait too long just now."""
        now, most_ratio = time.monotonic(), self.policy.pressure.ls_cpu_stall_ratio  # a walk may lie between
        if self.fast_lane_s:
            self._lane.ticking(now, most_ratio)
        seen = self._reader.read(self._members, at, full=full)
        return seen, self._lane.ticked(now, most_ratio) if self.fast_lane_s else ()

    def _scan(self, at: float) -> None:
        """Walk until what was seen is what is watched: a cgroup that came in between would wake nobody."""
        self._scanned_at = None
        moved = True
        for _ in range(WALKS_PER_TICK):
            moved = moved and self._walk(at)
        self._scanned_at = None if moved else at

    def _walk(self, at: float) -> bool:
        """See and watch all cgroups. True: some came or went meanwhile."""
        root = self.hierarchies.walk_root
        dirs = walk(root)
        told = NOTHING if self.kubernetes is None else self.kubernetes.told(at)
        members, self._tiers = recognised(dirs, self.rules, read_claims(self._settings.run_dir), told)
        if self.kubernetes is not None:
            self.kubernetes.learn(members)
        moved = self._watch.sync(root, _watched(dirs, members))
        self._members = members
        if self.applications is not None:
            self.applications.sync(members)
        homes = tuple(d.path for d in dirs if d.path in CLASS_DIRECTORIES)
        self._wanted.follow(members, self._tiers, homes, self.policy, classes=self._by_class())
        self._triggers.sync(self._pressed(members))
        self._lane.follow((*self._tiers, *(m.spec.cgroup for m in members if _untiered(m))))
        return moved

    def _by_class(self) -> bool:
        """Packets are told by the network class of their socket's cgroup."""
        if self.network is None:
            return False
        return classifier(self.policy.nic.classify, self.network.support)[0] is Classifier.NET_CLS

    def _nic_knobs(self, seen: NicsSeen | None) -> tuple[KnobReading, ...]:
        if seen is None or self.network is None:
            return ()
        rules = self.policy.nics
        names = {n.name for n in seen.links if rule_of(n.name, rules, default_route=n.default_route)}
        return tuple(readings(seen, names, self.network.written))

    def _pressed(self, members: tuple[Member, ...]) -> tuple[str, ...]:
        """The cgroups whose CPU pressure shall wake us: the LS pods."""
        return tuple(m.spec.cgroup for m in members if m.spec.qos is Qos.LS)


def _untiered(member: Member) -> bool:
    """A Batch pod that no tier bounds."""
    return member.spec.qos is Qos.BATCH and member.spec.tier is None


def _kubernetes(settings: AgentSettings, kubernetes: KubernetesSettings | None) -> KubernetesPods | None:
    if kubernetes is None:
        return None
    directory = under(settings.host_root, settings.kubelet_dir) if settings.kubelet_dir else ""
    return kubernetes_pods(kubernetes, settings.host_root, directory, os.environ)


def _network(settings: AgentSettings, places: Hierarchies) -> tuple[Network | None, AgentError | None]:
    """Where NICs are to be shaped: they, or why they cannot be looked after; cgroups are, all the same."""
    if Actuator.NIC not in settings.enforce:
        return None, None
    from nodeagent.kernel.nic.network import Network  # here: few nodes need it

    try:
        return Network(places, settings.host_root), None
    except AgentError as error:
        return None, error
    except OSError as error:
        return None, Failed(f"cannot look at NICs: {error}")


def _watched(dirs: tuple[CgroupDir, ...], members: tuple[Member, ...]) -> tuple[CgroupDir, ...]:
    """Everything but what is inside pods: there, only new containers matter, and these show at the pod."""
    inner = {path for m in members for path in m.nested}
    return tuple(d for d in dirs if d.path not in inner)


def _added(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    return {kind: a.get(kind, 0) + b.get(kind, 0) for kind in sorted({*a, *b})}
