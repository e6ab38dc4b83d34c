"""Whose packets are in which class: by cgroup for what runs in the host's network, by address for the others.

A tier's directory stands for all Batch pods in it, so that one which starts there is in its class from its
first packet on. LS needs no entry: it is the default class.

Invariant: an address of this host is never mapped, nor one that two pods of different classes have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from nodeagent.model.glob import any_glob_regex
from nodeagent.model.nic import Classifier, Marks, NicsSeen, PodNet
from nodeagent.model.pod import PodSpec, Qos


class NetClasses(NamedTuple):
    """Which cgroups have a net_cls.classid at all, and the globs of those that may be written."""

    there: frozenset[str]
    scope: tuple[str, ...]

    def obstacle(self, spec: PodSpec) -> str:
        """Why a pod in the host's network has no class; empty when it has."""
        if spec.hands_off:
            return "in the host's network, and to be left alone: hands_off"
        if not any_glob_regex(self.scope).fullmatch(spec.cgroup):
            return "in the host's network, and not within `scope`"
        if spec.cgroup not in self.there:
            return "in the host's network, and in no cgroup of its own in the net_cls hierarchy"
        return ""


_BY_CGROUP = frozenset({Classifier.NFT, Classifier.BPF, Classifier.NET_CLS})


def marks(
    seen: NicsSeen, specs: Iterable[PodSpec], by: Classifier, why: str, classes: NetClasses | None = None
) -> Marks:
    """The entries for these pods, and the pods for which there can be none.

    NET_CLS has no entries of cgroups: their `classes` are it.
    """
    if by is Classifier.NONE:
        return Marks(by, why, unclassified=tuple(sorted((s.uid, why) for s in specs if s.qos is not Qos.LS)))
    nets = {net.uid: net for net in seen.pods}
    here = [(spec, nets[spec.uid]) for spec in specs if spec.uid in nets]
    cgroups = {(tier.level, tier.cgroup_id, Qos.BATCH) for tier in seen.tiers if tier.cgroup_id is not None}
    tiers = {tier.uid: tier for tier in seen.tiers if tier.cgroup_id is not None}
    cgroups |= {
        (net.level, net.cgroup_id, spec.qos)
        for spec, net in here
        if net.host_network and net.cgroup_id is not None and _marked(spec, net, here, tiers)
    }
    owners = _owners(here, frozenset(seen.own_addresses))
    return Marks(
        classifier=by,
        why=why,
        cgroups=tuple(sorted(cgroups)) if by in (Classifier.NFT, Classifier.BPF) else (),
        addresses=tuple(sorted((a, q) for a, q in owners.items() if q is not None and q is not Qos.LS)),
        unclassified=tuple(sorted(_unclassified(here, by, owners, classes))),
    )


def _marked(
    spec: PodSpec, net: PodNet, here: list[tuple[PodSpec, PodNet]], tiers: Mapping[str, PodNet]
) -> bool:
    """Pods of the default class need no entry, unless one around them has another class; nor do those in a
    tier, unless they are elsewhere in the v2 hierarchy, as where a runtime makes v1 cgroups alone.
    """
    if (tier := tiers.get(spec.tier or "")) is not None:
        return net.level - tier.level != spec.cgroup.count("/") - tier.uid.count("/")
    if spec.qos is not Qos.LS:
        return True
    return any(spec.cgroup.startswith(f"{other.cgroup}/") for other, _ in here if other.qos is not Qos.LS)


def _owners(here: list[tuple[PodSpec, PodNet]], own: frozenset[str]) -> dict[str, Qos | None]:
    """The class of each pod's address; None where pods disagree."""
    owners: dict[str, Qos | None] = {}
    for spec, net in here:
        for address in () if net.host_network else net.addresses:
            if address not in own:
                owners[address] = spec.qos if owners.get(address, spec.qos) is spec.qos else None
    return owners


def _unclassified(
    here: list[tuple[PodSpec, PodNet]],
    by: Classifier,
    owners: Mapping[str, Qos | None],
    classes: NetClasses | None,
) -> Iterator[tuple[str, str]]:
    for spec, net in here:
        if spec.qos is Qos.LS:
            continue
        why = _obstacle(net, by, owners)
        if not why and net.host_network and classes is not None:
            why = classes.obstacle(spec)
        if why:
            yield spec.uid, why


def _obstacle(net: PodNet, by: Classifier, owners: Mapping[str, Qos | None]) -> str:
    if net.why:
        return net.why
    if net.host_network:
        if by not in _BY_CGROUP:
            return f"in the host's network, which {by} cannot tell apart"
        if by is not Classifier.NET_CLS and net.cgroup_id is None:
            return "in the host's network, and in no cgroup of its own in the v2 hierarchy"
        return ""
    if not net.addresses:
        return "has no address yet"
    lost = [address for address in net.addresses if owners.get(address) is None]
    return f"{lost[0]} is another pod's too, or the host's" if lost else ""
