"""Which of the cgroups are pods: the operator's rules first, then what Kubernetes and the paths tell.

The outermost pod wins, so that nothing made inside a container can pass for a pod of its own. Only systemd
units give way, being the least telling: a slice to any pod or unit in it, a service (a NodeManager with
Delegate=yes) to a rule or a YARN container in it.

Invariant: no cgroup is in two pods, tiers hold no online pod and do not nest, uids are unique, and neither
the order of `dirs` nor what was seen before matters.
"""

from __future__ import annotations

from collections.abc import KeysView, Mapping
from typing import NamedTuple

from nodeagent.model.app import AppWish
from nodeagent.model.glob import glob_regex
from nodeagent.model.kubernetes import PodTold
from nodeagent.model.pod import CgroupDir, Claim, Member, NumaWish, PodRule, PodSpec, Priority, Qos
from nodeagent.pods.paths import Kind, container_name, is_tier, is_unit, kind_of, shown
from nodeagent.pods.told import NOTHING, Told, classed

_WITH_CONTAINERS = frozenset({"kubelet", "cri", "rule"})
_SPLITS_SERVICES = frozenset({"yarn", "rule"})


class Recognised(NamedTuple):
    """The pods, ordered by path, and the Batch tiers that exist, also empty ones.

    A tier is a cgroup whose quota bounds Batch pods and nothing else.
    """

    members: tuple[Member, ...]
    tiers: tuple[str, ...]


def recognise(
    dirs: tuple[CgroupDir, ...],
    rules: tuple[PodRule, ...],
    claims: Mapping[str, Claim],
    told: Told = NOTHING,
) -> tuple[Member, ...]:
    """The pods among `dirs`, ordered by path. `claims` by cgroup path, as `read_claims` gives them.

    ValueError for a rule whose glob is too long; the configuration refuses it before.
    """
    return recognised(dirs, rules, claims, told).members


def recognised(
    dirs: tuple[CgroupDir, ...],
    rules: tuple[PodRule, ...],
    claims: Mapping[str, Claim],
    told: Told = NOTHING,
) -> Recognised:
    """As `recognise`, and the tiers that were found on the way."""
    places, tiers = _places(dirs, rules, told)
    members: dict[str, Member] = {}
    for place in places:
        member = _member(place, claims.get(place.top.path), members.keys(), told)
        members[member.spec.uid] = member
    return Recognised(tuple(members.values()), tiers)


class _Candidate(NamedTuple):
    """What a cgroup is by itself, by whose rule, and what Kubernetes tells of it."""

    kind: Kind
    rule: PodRule | None = None
    told: PodTold | None = None


class _Place(NamedTuple):
    """A pod's cgroup, those below it, and the tier that it is in."""

    top: CgroupDir
    kind: Kind
    rule: PodRule | None
    told: PodTold | None
    below: list[CgroupDir]
    tier: str | None


class _Candidates(NamedTuple):
    """What each path is by itself. `holders` have a unit or pod below them, `split` a rule's or YARN's."""

    pods: dict[str, _Candidate]
    tiers: set[str]
    holders: set[str]
    split: set[str]

    def is_pod(self, path: str) -> bool:
        if path not in self.pods:
            return False
        weak = self.pods[path].kind.weak
        return not weak or path not in (self.holders if path.endswith(".slice") else self.split)


def _places(
    dirs: tuple[CgroupDir, ...], rules: tuple[PodRule, ...], told: Told
) -> tuple[list[_Place], tuple[str, ...]]:
    """All pods and all tiers, in one pass: "/" sorts before all, so a subtree directly follows its top."""
    ordered = sorted(dirs, key=lambda directory: directory.path.replace("/", "\0"))
    candidates = _candidates(ordered, rules, told)
    places: list[_Place] = []
    found_tiers: list[str] = []
    tier: str | None = None
    index = 0
    while index < len(ordered):
        top = ordered[index]
        index += 1
        if tier is not None and not top.path.startswith(tier + "/"):
            tier = None
        if candidates.is_pod(top.path):
            end = _end_of(ordered, index, top.path + "/")
            places.append(_Place(top, *candidates.pods[top.path], ordered[index:end], tier))
            index = end
        elif tier is None and top.path in candidates.tiers:
            tier = top.path
            found_tiers.append(tier)
    mixed = {place.tier for place in places if place.kind.qos is not Qos.BATCH}
    pure = [place if place.tier not in mixed else place._replace(tier=None) for place in places]
    return pure, tuple(path for path in found_tiers if path not in mixed)


def _end_of(ordered: list[CgroupDir], index: int, prefix: str) -> int:
    while index < len(ordered) and ordered[index].path.startswith(prefix):
        index += 1
    return index


def _candidates(ordered: list[CgroupDir], rules: tuple[PodRule, ...], told: Told) -> _Candidates:
    globs = [(glob_regex(rule.match), rule) for rule in rules]
    homes = told.homes(ordered)
    candidates = _Candidates({}, set(), set(), set())
    shield = "/"  # below no path
    for directory in ordered:
        path = directory.path
        if not path or path.startswith(shield):
            continue
        name = path.rpartition("/")[2]
        rule = next((rule for regex, rule in globs if regex.fullmatch(path)), None)
        if rule is None and is_tier(path, name):
            candidates.tiers.add(path)
            found = None
        elif found := _candidate(directory, rule, told, homes.get(path)):
            candidates.pods[path] = found
            if found.kind.source in _SPLITS_SERVICES:
                _mark_above(path, candidates.split)
            if not found.kind.weak:
                shield = path + "/"
        if found is not None or is_unit(name):
            _mark_above(path, candidates.holders)
    return candidates


def _candidate(
    directory: CgroupDir, rule: PodRule | None, told: Told, home: PodTold | None
) -> _Candidate | None:
    path = directory.path
    kind = kind_of(path, path.rpartition("/")[2])
    of_kubelet = kind is not None and kind.source == "kubelet"
    pod = told.of(kind.uid if kind and of_kubelet else "", directory, home)
    if rule is not None:
        uid = kind.uid if kind and of_kubelet else path
        name = rule.name or (pod.full_name if pod else path)
        return _Candidate(Kind("rule", rule.qos, uid, name), rule, pod)
    if kind is not None and of_kubelet:
        return _Candidate(told.kind(kind, pod), None, pod)
    if pod is not None and (kind is None or kind.weak):
        return _Candidate(Kind("cri", classed(pod, Qos.MID), pod.uid, pod.full_name), None, pod)
    return None if kind is None else _Candidate(kind)


def _mark_above(path: str, marked: set[str]) -> None:
    """Add all ancestors; linear over all calls, since those of a marked one are marked."""
    above = path.rpartition("/")[0]
    while above and above not in marked:
        marked.add(above)
        above = above.rpartition("/")[0]


def _member(place: _Place, claim: Claim | None, taken: KeysView[str], told: Told) -> Member:
    parent_length = len(place.top.path) + 1
    containers, pids = [], []
    if place.kind.source in _WITH_CONTAINERS:
        for directory in place.below:
            name = directory.path[parent_length:]
            if "/" not in name and (called := container_name(name)) is not None:
                known, pid = told.container(name)
                containers.append((shown(known) or called, directory))
                if pid is not None:
                    pids.append((directory.path, pid))
    nested = tuple(directory.path for directory in place.below)
    app = AppWish() if place.told is None else place.told.app
    return Member(_spec(place, claim, taken, tuple(pids)), tuple(containers), nested, app)


def _spec(
    place: _Place, claim: Claim | None, taken: KeysView[str], pids: tuple[tuple[str, int], ...]
) -> PodSpec:
    top, kind, rule, told, _below, tier = place
    asked: PodRule | Claim | PodTold | None = rule or told
    if asked is None and claim is not None and kind.source == "exec" and claim.qos is kind.qos:
        asked = claim
    bind, exclusive = _asked_of_numa(asked) if kind.qos is Qos.LS else (False, False)
    cpus, memory = (None, None) if asked is None else (asked.cpus, asked.memory)
    if rule is not None and told is not None:  # a rule that names no request leaves the pod's own
        cpus, memory = cpus or told.cpus, memory or told.memory
    return PodSpec(
        uid=kind.uid if kind.uid not in taken else f"/{top.path}",  # which is nobody's uid
        name=kind.name if told is not None and not (rule and rule.name) else shown(kind.name),
        cgroup=top.path,
        inode=top.inode,
        qos=kind.qos,
        source=kind.source,
        priority=Priority.MEDIUM if asked is None else asked.priority,
        tier=tier if kind.qos is Qos.BATCH else None,
        cpu_request_cores=cpus,
        memory_request_bytes=memory,
        numa_bind=bind,
        exclusive=exclusive,
        near=asked.near if asked is not None and bind else "",
        hands_off=asked is not None and asked.hands_off and kind.qos is not Qos.BATCH,
        main_pids=pids,
    )


def _asked_of_numa(asked: PodRule | Claim | PodTold | None) -> tuple[bool, bool]:
    """(bind, exclusive), of which the second has the first."""
    if isinstance(asked, PodRule):
        return asked.numa is not NumaWish.NONE, asked.numa is NumaWish.EXCLUSIVE
    return (False, False) if asked is None else (asked.numa_bind, asked.numa_bind and asked.exclusive)
