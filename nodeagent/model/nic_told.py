"""NICs as they are told to people: what was chosen, what the kernel has, and what each class sends now.

One view of a tick for gRPC, metrics and screens alike, so that no two of them disagree.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from msgspec import Struct

from nodeagent.model.decision import Tick
from nodeagent.model.nic import (
    Classifier,
    ClassSeen,
    HtbClass,
    Marks,
    NicPlan,
    NicSample,
    NicsSeen,
    PodNet,
    Role,
    Scheduler,
    Tree,
    TreeSeen,
)
from nodeagent.model.plan import Kind
from nodeagent.model.pod import PodSpec, Qos


class Way(enum.StrEnum):
    """By what the packets of a pod are told."""

    CGROUP = "cgroup"
    ADDRESS = "address"
    DEFAULT = "default"  # nothing: it is LS, the class of all that is not told
    UNCLASSIFIED = "unclassified"  # nothing, though it is not LS: it passes for LS


class ClassTold(Struct, frozen=True, gc=False, kw_only=True):
    """One class: its limits as the kernel has them, or as planned where it has no such class.

    Counters are None then; `rate_bps` too where there are no two samples to tell it from. `why` is that of
    the ceiling, where it was decided in this tick.
    """

    qos: Qos
    guarantee_bps: float
    ceiling_bps: float
    rate_bps: float | None = None
    bytes: int | None = None
    packets: int | None = None
    drops: int | None = None
    overlimits: int | None = None
    backlog_bytes: int | None = None
    why: str = ""


class TreeTold(Struct, frozen=True, gc=False):
    """One direction of a NIC: what all classes share, and each of them."""

    top_bps: float
    classes: tuple[ClassTold, ...]


class NicTold(Struct, frozen=True, gc=False, kw_only=True):
    """One NIC. Without trees it is let be, for the reason `why`; `up` is None where it is not there."""

    name: str
    role: Role
    scheduler: Scheduler
    why: str
    up: bool | None = None
    link_bps: float | None = None
    egress: TreeTold | None = None
    ingress: TreeTold | None = None


class Untold(Struct, frozen=True, gc=False):
    """A pod whose traffic passes for LS, and why."""

    uid: str
    name: str
    why: str


class NetTold(Struct, frozen=True, gc=False, kw_only=True):
    """All NICs, what tells whose a packet is, by how many entries, and for whom it does not."""

    nics: tuple[NicTold, ...]
    classifier: Classifier
    why: str
    cgroups: int
    addresses: int
    unclassified: tuple[Untold, ...] = ()
    failed: tuple[str, ...] = ()


def told(tick: Tick) -> NetTold | None:
    """The network in this tick, None while no traffic is shaped."""
    shaping, seen = tick.decision.shaping, tick.snapshot.nics or NicsSeen()
    if shaping is None:
        return None
    marks, names = shaping.marks, {pod.spec.uid: pod.spec.name for pod in tick.snapshot.pods}
    whys = {s.knob.target: s.why for s in tick.decision.plan if s.knob.kind is Kind.NIC_CEIL}
    return NetTold(
        nics=tuple(_nic(plan, seen, whys) for plan in shaping.nics),
        classifier=marks.classifier,
        why=marks.why,
        cgroups=len(marks.cgroups),
        addresses=len(marks.addresses),
        unclassified=tuple(Untold(uid, names.get(uid, uid), why) for uid, why in marks.unclassified),
        failed=seen.failed,
    )


def ways(tick: Tick) -> dict[str, tuple[Way, str]]:
    """By what the packets of each pod (by uid) are told, and why by nothing; empty while none is shaped."""
    shaping, seen = tick.decision.shaping, tick.snapshot.nics or NicsSeen()
    if shaping is None:
        return {}
    marks, nets = _Marked(shaping.marks, seen), {net.uid: net for net in seen.pods}
    return {pod.spec.uid: marks.way(pod.spec, nets.get(pod.spec.uid)) for pod in tick.snapshot.pods}


class _Marked:
    """What is in the marks, for many look-ups."""

    def __init__(self, marks: Marks, seen: NicsSeen) -> None:
        self._cgroups = {cgroup for _, cgroup, _ in marks.cgroups}
        self._addresses = {address for address, _ in marks.addresses}
        self._tiers = tuple(f"{tier.uid}/" for tier in seen.tiers if tier.cgroup_id in self._cgroups)
        self._unclassified = dict(marks.unclassified)
        self._all_cgroups = marks.classifier is Classifier.NET_CLS  # which has no entries: the cgroup is it

    def way(self, spec: PodSpec, net: PodNet | None) -> tuple[Way, str]:
        if spec.uid in self._unclassified:
            return Way.UNCLASSIFIED, self._unclassified[spec.uid]
        if net is not None and not self._addresses.isdisjoint(net.addresses):
            return Way.ADDRESS, ""
        online = spec.qos is Qos.LS
        if net is not None and net.host_network and self._marked(spec.cgroup, net.cgroup_id):
            return (Way.DEFAULT if online and self._all_cgroups else Way.CGROUP), ""
        if online:
            return Way.DEFAULT, ""
        return Way.UNCLASSIFIED, net.why if net is not None else "nothing is known of its network"

    def _marked(self, cgroup: str, number: int | None) -> bool:
        """Itself, or a tier above it: an ancestor's entry holds for all below."""
        return self._all_cgroups or number in self._cgroups or f"{cgroup}/".startswith(self._tiers)


def _nic(plan: NicPlan, seen: NicsSeen, whys: Mapping[str, str]) -> NicTold:
    link = next((link for link in seen.links if link.name == plan.name), None)
    last = _tree(seen.samples[-1], plan.name) if seen.samples else None
    sent, received = _rates(seen.samples, plan.name)
    said = {qos: whys.get(f"{plan.name}/{qos.value}", "") for qos in Qos}
    return NicTold(
        name=plan.name,
        role=plan.role,
        scheduler=plan.scheduler,
        why=plan.why,
        up=None if link is None else link.up,
        link_bps=None if link is None else link.link_bps,
        egress=_told(plan.tree, last.classes if last else (), sent, said),
        ingress=_told(plan.ingress, last.ingress if last else (), received, {}),
    )


def _told(
    plan: Tree | None, found: tuple[ClassSeen, ...], rates: Mapping[Qos, float], said: Mapping[Qos, str]
) -> TreeTold | None:
    if plan is None:
        return None
    there = {each.qos: each for each in found}
    classes = (
        _class(each, there.get(each.qos), rates.get(each.qos), said.get(each.qos, ""))
        for each in plan.classes
    )
    return TreeTold(plan.top_bps, tuple(classes))


def _class(wanted: HtbClass, now: ClassSeen | None, rate_bps: float | None, why: str) -> ClassTold:
    if now is None:
        return ClassTold(qos=wanted.qos, guarantee_bps=wanted.rate_bps, ceiling_bps=wanted.ceil_bps, why=why)
    return ClassTold(
        qos=now.qos,
        guarantee_bps=now.rate_bps,
        ceiling_bps=now.ceil_bps,
        rate_bps=rate_bps,
        bytes=now.bytes,
        packets=now.packets,
        drops=now.drops,
        overlimits=now.overlimits,
        backlog_bytes=now.backlog_bytes,
        why=why,
    )


def _rates(samples: tuple[NicSample, ...], name: str) -> tuple[dict[Qos, float], dict[Qos, float]]:
    """Bits per second out and in, between the first and the last sample of this tick that have the NIC."""
    found = [(sample.at, tree) for sample in samples if (tree := _tree(sample, name)) is not None]
    if len(found) < 2 or found[-1][0] <= found[0][0]:
        return {}, {}
    (then, old), (now, new) = found[0], found[-1]
    dt_s = now - then
    return _between(old.classes, new.classes, dt_s), _between(old.ingress, new.ingress, dt_s)


def _between(old: tuple[ClassSeen, ...], new: tuple[ClassSeen, ...], dt_s: float) -> dict[Qos, float]:
    """A class whose counter went down was made anew: its rate is not known."""
    before = {each.qos: each.bytes for each in old}
    return {
        each.qos: (each.bytes - before[each.qos]) * 8 / dt_s
        for each in new
        if each.qos in before and each.bytes >= before[each.qos]
    }


def _tree(sample: NicSample, name: str) -> TreeSeen | None:
    return next((tree for tree in sample.trees if tree.name == name), None)
