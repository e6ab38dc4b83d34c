"""The network of this node as one thing: what is there, what goes through it, and making it as it shall be.

A NIC gets its tree before packets are marked for it, and keeps it until none is marked any more. Nothing here
is remembered on disk: what is ours is recognised, so the next run adopts it and `leave` removes it all.

Invariant: what fails for one NIC is one line in `failed`, and does not keep the others from being done.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from nodeagent.kernel.mounts import Hierarchies
from nodeagent.kernel.nic.links import Links
from nodeagent.kernel.nic.marking import Marking
from nodeagent.kernel.nic.pod_net import PodNets
from nodeagent.kernel.nic.probe import probe
from nodeagent.kernel.nic.schedulers import Pods, Schedulers
from nodeagent.model.errors import AgentError, Failed, Gone
from nodeagent.model.nic import (
    Link,
    Marks,
    NicPlan,
    NicSample,
    NicsSeen,
    PodNet,
    Scheduler,
    Shaping,
    TreeSeen,
)
from nodeagent.model.plan import Change, Kind, Knob, Outcome, Value
from nodeagent.model.pod import Member, Qos

MAX_PENDING = 640  # samples since the last tick: the slowest tick has 600 of the fastest beat
PROBE_LIMIT_S = 30.0  # it takes 1 s; on a node that is short of CPU more


class Left(NamedTuple):
    """What was removed, and what could not be, one line each."""

    removed: tuple[str, ...]
    failed: tuple[str, ...]


def remove_all(*, sure: bool = True) -> Left:
    """Remove all that any run has left in this network namespace. AgentError when it cannot be looked at.

    Without `sure` nftables is not asked (which would load its modules) where no NIC has anything of ours.
    """
    try:
        with contextlib.ExitStack() as stack:
            links = stack.enter_context(contextlib.closing(Links()))
            schedulers = Schedulers(links.read(time.monotonic()))
            stack.callback(schedulers.close)
            if not sure and not schedulers.left():
                return Left((), ())
            return _leave(schedulers, stack.enter_context(contextlib.closing(Marking())))
    except OSError as error:
        raise Failed(f"cannot look at NICs: {error}") from error


def _leave(schedulers: Schedulers, marking: Marking) -> Left:
    """What marks packets goes first, and trees last: a packet that is marked has a class to go to."""
    removed, failed = [], []
    try:
        removed += ["what marked packets"] if marking.remove(schedulers.trees()) else []
    except (AgentError, OSError) as error:
        # it is not there where no NIC is shaped, and who may not ask need not hear of it
        failed += [f"what marks packets: {error}"] if schedulers.left() else []
    for index in schedulers.left():
        name = f"interface {index}"
        with contextlib.suppress(OSError):
            name = socket.if_indextoname(index)
        try:
            removed += [f"what shaped {name}"] if schedulers.remove(index) else []
        except (AgentError, OSError) as error:
            failed.append(f"what shapes {name}: {error}")
    return Left(tuple(removed), tuple(failed))


def bridge_ports(links: Mapping[str, Link]) -> set[str]:
    """Ports of bridges, and what these are made of: a bond, or the NIC below a VLAN."""
    bridges = {name for name, link in links.items() if link.kind == "bridge"}
    found: set[str] = set()
    pending = [name for name, link in links.items() if link.master in bridges]
    while pending:
        name = pending.pop()
        if name in links and name not in found:
            found.add(name)
            pending += links[name].lower
    return found


class Network:
    """The NICs of the network namespace of this process, and whose traffic is whose; `close` it.

    `failed` tells, one line each, what could not be read or done since the last look. Raises AgentError or
    OSError where rtnetlink cannot be talked to, and Failed when the probe gave no answer while NICs are still
    shaped by an earlier run: they are let be.
    """

    def __init__(self, places: Hierarchies, host_root: str) -> None:
        self._written: dict[int, dict[tuple[Kind, Qos], Value]] = {}
        self.failed: dict[str, str] = {}
        self.support = probe(PROBE_LIMIT_S, host_root)
        self._links = Links(host_root)
        self._now = {link.name: link for link in self._links.read(time.monotonic())}
        self._schedulers = Schedulers(self._now.values())
        if self.support.unanswered and self._schedulers.left():
            self._links.close()
            self._schedulers.close()
            why = f"{self.support.unanswered}; NICs that are shaped stay as they are"
            raise Failed(why, hint="start the agent anew when the node has CPU left, or: nodeagent restore")
        self._pod_nets = PodNets(places, host_root)
        self._marking = Marking()
        self._pending: list[NicSample] = []
        self._nets: tuple[PodNet, ...] = ()
        self._own: tuple[str, ...] = ()
        self._veths: Pods = []
        self._shaping: Shaping | None = None
        self._yielded: set[str] = set()

    @property
    def written(self) -> dict[Knob, Value]:
        """What each knob was last set to, by the name that its NIC has now; not after a failure."""
        return {
            Knob(kind, f"{link.name}/{qos}"): value
            for link in self._now.values()
            for (kind, qos), value in self._written.get(link.index, {}).items()
        }

    def read(self, members: tuple[Member, ...], tiers: tuple[str, ...], at: float) -> NicsSeen:
        """All of it, with the samples since the last reading. Links that cannot be read are as they were."""
        with self._noting("links"):
            self._nets = self._pod_nets.read(members, self._links.peers(at), at)
            classes = {member.spec.uid: member.spec.qos for member in members}
            self._veths = [
                (veth, classes[net.uid], net.addresses) for net in self._nets for veth in net.veths
            ]
            links = self._links.read(at, {veth for veth, _, _ in self._veths})
            self._now = {link.name: link for link in links}
            self._own = self._links.own_addresses(at)
        self.sample(time.monotonic())  # what was read before has taken its time
        samples, self._pending = tuple(self._pending), []
        failed, self.failed = self.failed, {}
        return NicsSeen(
            support=self.support,
            links=tuple(self._now.values()),
            pods=self._nets,
            tiers=self._pod_nets.tiers(tiers),
            own_addresses=self._own,
            samples=samples,
            failed=tuple(f"{what}: {why}" for what, why in sorted(failed.items())),
        )

    def sample(self, at: float) -> NicSample:
        """What went through each class until now (monotonic seconds), kept for the next reading."""
        trees = (self._tree(link) for link in self._now.values() if link.index in self._schedulers.steps)
        taken = NicSample(at, tuple(tree for tree in trees if tree is not None))
        self._pending = [*self._pending[1 - MAX_PENDING :], taken]
        return taken

    def set(self, shaping: Shaping, yielded: Collection[Knob] = ()) -> None:
        """Have it all as it shall be, but for the NICs of `yielded` knobs; writes differences only.

        What fails is told in `failed`, and tried again with the next call.
        """
        self._yielded = {knob.target.rpartition("/")[0] for knob in yielded if knob.kind.of_nic}
        shaped = [plan for plan in shaping.nics if plan.tree is not None]
        wanted = {plan.index for plan in shaped}
        if not wanted:
            self._unmark()
        for plan in shaped:
            self._shape(plan, shaping.marks)
        if wanted:
            self._mark(shaping.marks, shaped)
        self._written = {index: values for index, values in self._written.items() if index in wanted}
        for index in set(self._schedulers.left()) - wanted:
            with self._noting(f"interface {index}"):
                self._schedulers.remove(index)
        self._shaping = shaping

    def follow(self, shaping: Shaping) -> None:
        """Between two ticks: the NICs whose plans have changed since, and nothing else."""
        before = () if self._shaping is None else self._shaping.nics
        for plan in shaping.nics:
            if plan not in before and not self._touched(plan):
                self._shape(plan, shaping.marks)
        self._shaping = shaping

    def outcome(self, change: Change) -> Outcome:
        """How a change of a NIC's knob came out, after `set`."""
        name, _, qos = change.knob.target.rpartition("/")
        tree = next((t for link in self._now.values() if link.name == name and (t := self._tree(link))), None)
        found = next((c for c in tree.classes if c.qos == qos), None) if tree is not None else None
        error = self.failed.get(name, "")
        if found is None:
            return Outcome(change, change.new if change.gives_back and not error else None, error)
        return Outcome(change, found.rate_bps if change.knob.kind is Kind.NIC_RATE else found.ceil_bps, error)

    def leave(self) -> Left:
        """Remove all that is ours, also of an earlier run."""
        self._written.clear()
        self._shaping = None
        return _leave(self._schedulers, self._marking)

    def close(self) -> None:
        for part in (self._links, self._pod_nets, self._schedulers, self._marking):
            part.close()

    def _shape(self, plan: NicPlan, marks: Marks) -> None:
        if plan.tree is None or plan.name in self._yielded:
            return
        # half of a tree that failed is not what somebody else has written
        self._written.pop(plan.index, None)
        with self._noting(plan.name):
            self._schedulers.set(plan, plan.tree, self._veths, marks.addresses)
            values: dict[tuple[Kind, Qos], Value] = {}
            for each in plan.tree.classes:
                values[Kind.NIC_RATE, each.qos] = each.rate_bps
                values[Kind.NIC_CEIL, each.qos] = each.ceil_bps
            self._written[plan.index] = values

    def _touched(self, plan: NicPlan) -> bool:
        """Somebody else has changed Batch's ceiling: the next tick counts that, and has the answer."""
        ours = self._written.get(plan.index, {}).get((Kind.NIC_CEIL, Qos.BATCH))
        trees = self._pending[-1].trees if self._pending else ()
        found = [
            c.ceil_bps for tree in trees if tree.name == plan.name for c in tree.classes if c.qos is Qos.BATCH
        ]
        return ours is not None and bool(found) and found[0] != ours

    def _mark(self, marks: Marks, shaped: list[NicPlan]) -> None:
        in_bridges = not bridge_ports(self._now).isdisjoint(plan.name for plan in shaped)
        with self._noting(f"classifier {marks.classifier}"):
            self._marking.set(
                marks,
                [plan.index for plan in shaped if plan.scheduler is not Scheduler.VETH],
                [plan.index for plan in shaped if plan.scheduler is Scheduler.HTB],
                bridged=in_bridges,
            )

    def _unmark(self) -> None:
        with self._noting("classifier"):
            self._marking.remove(self._schedulers.trees())
        if not self._schedulers.left():  # then it marks for nobody, and who may not ask need not hear of it
            self.failed.pop("classifier", None)

    def _tree(self, link: Link) -> TreeSeen | None:
        found: list[TreeSeen | None] = []
        with self._noting(link.name):
            found.append(self._schedulers.read(link.index, link.name))
        return found[0] if found else None

    @contextlib.contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        """A failure is noted; that something vanished meanwhile is none."""
        try:
            yield
        except Gone:
            return
        except (AgentError, OSError) as error:
            hint = error.hint if isinstance(error, AgentError) else ""
            self.failed[what] = f"{error} ({hint})" if hint else str(error)
