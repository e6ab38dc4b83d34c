"""A node with NICs, as values: what a tick sees of them, and what is decided of it tick by tick."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from nodeagent.core.nic import beaten, shaped
from nodeagent.model.nic import (
    Classifier,
    ClassSeen,
    KnownNic,
    Link,
    NicSample,
    NicsSeen,
    NicSupport,
    PodNet,
    Qdisc,
    Scheduler,
    Shaping,
    Tree,
    TreeSeen,
)
from nodeagent.model.nic_policy import NicPolicy, NicRule
from nodeagent.model.pod import Qos
from nodeagent.model.policy import Policy
from nodeagent.model.snapshot import Node, Snapshot
from nodeagent.model.topology import Topology

GBIT = 1e9
ALL = NicSupport(
    schedulers=dict.fromkeys((Scheduler.HTB, Scheduler.EDT, Scheduler.VETH), ""),
    classifiers=dict.fromkeys((Classifier.NFT, Classifier.BPF, Classifier.NET_CLS, Classifier.U32), ""),
)
FREE, FOREIGN = Qdisc("noqueue", 0), Qdisc("tbf", 0x10000)


def link(name: str = "eth0", index: int = 2, **values: object) -> Link:
    """A NIC of 1 Gbit/s with the kernel's own root qdisc."""
    usual: dict[str, object] = {"up": True, "root": FREE, "link_bps": GBIT, "default_route": True}
    return replace(Link(name=name, index=index, up=True, root=FREE), **{**usual, **values})


def policy(*rules: NicRule, **values: object) -> Policy:
    """With these [[nics]] entries, and `values` of [nic]."""
    return Policy(nic=replace(NicPolicy(), **values), nics=rules)


def snapshot(at: float, seen: NicsSeen, **values: object) -> Snapshot:
    """A tick that sees nothing but NICs, unless `values` say so."""
    empty = Snapshot(
        seq=0, at=at, unix=1.8e9 + at, boot_id="boot", topology=Topology(), node=Node(), pods=(), nics=seen
    )
    return replace(empty, **values)


def classes(sent: Sequence[int], tree: Tree | None = None, ls_backlog: int = 0) -> tuple[ClassSeen, ...]:
    """LS, MID and BATCH after so many bytes; rates and ceilings as in `tree`."""
    rates = {c.qos: (c.rate_bps, c.ceil_bps) for c in tree.classes} if tree is not None else {}
    return tuple(
        ClassSeen(qos, *rates.get(qos, (0.0, GBIT)), n, n // 1000, 0, 0, ls_backlog if qos is Qos.LS else 0)
        for qos, n in zip(Qos, sent, strict=True)
    )


class NicNode:
    """One NIC whose classes send what they are told, decided beat by beat: four to a tick of one second."""

    def __init__(self, rules: Policy, nic: Link | None = None) -> None:
        self.policy, self.link = rules, nic or link()
        self.known: dict[str, KnownNic] = {}
        self.shaping: Shaping | None = None
        self.live: Shaping | None = None
        self._live_known: dict[str, KnownNic] = {}
        self._at, self._sent = 100.0, [0, 0, 0]
        self._samples: list[NicSample] = []
        self.tick()

    @property
    def tree(self) -> Tree:
        """As of the last beat."""
        assert self.live is not None
        found = self.live.nics[0].tree
        assert found is not None
        return found

    @property
    def ceiling_bps(self) -> float:
        """Batch's."""
        return self.tree.classes[2].ceil_bps

    def beat(
        self, ls_bps: float = 0.0, mid_bps: float = 0.0, batch_bps: float = 0.0, backlog: int = 0
    ) -> None:
        """A quarter of a second with these rates."""
        self._at += 0.25
        for index, rate in enumerate((ls_bps, mid_bps, batch_bps)):
            self._sent[index] += int(rate * 0.25 / 8)
        self._samples.append(self._sample(backlog))
        assert self.live is not None
        self.live, self._live_known = beaten(self._samples[-1], self.live, self.policy, self._live_known, ALL)

    def unread(self) -> None:
        """A quarter of a second after which the NIC cannot be read."""
        self._at += 0.25
        self._samples.append(NicSample(self._at, ()))
        assert self.live is not None
        self.live, self._live_known = beaten(self._samples[-1], self.live, self.policy, self._live_known, ALL)

    def second(self, ls_bps: float = 0.0, mid_bps: float = 0.0) -> None:
        """Four beats, and a tick that decides them once more."""
        for _ in range(4):
            self.beat(ls_bps, mid_bps)
        self.tick()

    def blind(self, seconds: float) -> None:
        """Nothing can be read for so long; then a tick."""
        self._at += seconds
        self.tick(sample=False)

    def tick(self, *, sample: bool = True) -> None:
        """What was seen since the last one is decided once more, as a replay does it."""
        if sample and not self._samples:
            self._samples.append(self._sample(0))
        seen = NicsSeen(support=ALL, links=(self.link,), samples=tuple(self._samples))
        self.shaping, self.known = shaped(snapshot(self._at, seen), self.policy, self.known)
        self.live, self._live_known, self._samples = self.shaping, self.known, []

    def _sample(self, backlog: int) -> NicSample:
        tree = self.tree if self.live is not None else None
        seen = classes(self._sent, tree, backlog) if tree is not None else ()
        trees = (TreeSeen(self.link.name, Scheduler.HTB, seen),) if seen else ()
        return NicSample(self._at, trees)


def net(uid: str, *addresses: str, **values: object) -> PodNet:
    """A pod with a network of its own, or with `values`."""
    return replace(PodNet(uid=uid, addresses=addresses), **values)
