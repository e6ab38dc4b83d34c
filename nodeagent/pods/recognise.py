"""Which of the cgroups are pods: the operator's rules first, then what the paths tell.

The outermost pod wins, so that nothing made inside a container can pass for a pod of its own. Only systemd
units give way, being the least telling: a slice to any pod or unit in it, a service (a NodeManager with
Delegate=yes) to a rule or a YARN container in it.

Invariant: no cgroup is in two pods, tiers hold no online pod and do not nest, uids are unique, and neither
the order of `dirs` nor what was seen before matters.
"""

from __future__ import annotations

from collections.abc import KeysView, Mapping
from typing import NamedTuple

from nodeagent.model.glob import glob_regex
from nodeagent.model.pod import CgroupDir, Claim, Member, NumaWish, PodRule, PodSpec, Priority, Qos
from nodeagent.pods.paths import Kind, container_name, is_tier, is_unit, kind_of, shown

_WITH_CONTAINERS = frozenset({"kubelet", "rule"})
_SPLITS_SERVICES = frozenset({"yarn", "rule"})


def recognise(
    dirs: tuple[CgroupDir, ...], rules: tuple[PodRule, ...], claims: Mapping[str, Claim]
) -> tuple[Member, ...]:
    """The pods among `dirs`, ordered by path. `claims` by cgroup path, as `read_claims` gives them.

    ValueError for a rule whose glob is too long; the configuration refuses it before.
    """
    members: dict[str, Member] = {}
    for place in _places(dirs, rules)[0]:
        member = _member(place, claims.get(place.top.path), members.keys())
        members[member.spec.uid] = member
    return tuple(members.values())


def tiers(dirs: tuple[CgroupDir, ...], rules: tuple[PodRule, ...]) -> tuple[str, ...]:
    """Batch tiers that exist, also empty ones: the cgroups whose quota bounds Batch pods and nothing else."""
    return _places(dirs, rules)[1]


class _Place(NamedTuple):
    """A pod's cgroup, those below it, and the tier that it is in."""

    top: CgroupDir
    kind: Kind
    rule: PodRule | None
    below: list[CgroupDir]
    tier: str | None


class _Candidates(NamedTuple):
    """What each path is by itself. `holders` have a unit or pod below them, `split` a rule's or YARN's."""

    pods: dict[str, tuple[Kind, PodRule | None]]
    tiers: set[str]
    holders: set[str]
    split: set[str]

    def is_pod(self, path: str) -> bool:
        if path not in self.pods:
            return False
        weak = self.pods[path][0].weak
        return not weak or path not in (self.holders if path.endswith(".slice") else self.split)


def _places(dirs: tuple[CgroupDir, ...], rules: tuple[PodRule, ...]) -> tuple[list[_Place], tuple[str, ...]]:
    """All pods and all tiers, in one pass: "/" sorts before all, so a subtree directly follows its top."""
    ordered = sorted(dirs, key=lambda directory: directory.path.replace("/", "\0"))
    candidates = _candidates(ordered, rules)
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


def _candidates(ordered: list[CgroupDir], rules: tuple[PodRule, ...]) -> _Candidates:
    globs = [(glob_regex(rule.match), rule) for rule in rules]
    candidates = _Candidates({}, set(), set(), set())
    shield = "/"  # below no path
    for directory in ordered:
        path = directory.path
        if not path or path.startswith(shield):
            continue
        name = path.rpartition("/")[2]
        rule = next((rule for regex, rule in globs if regex.fullmatch(path)), None)
        kind = _kind_of_rule(rule, path) if rule is not None else None
        if kind is None and is_tier(path, name):
            candidates.tiers.add(path)
        elif kind := kind or kind_of(path, name):
            candidates.pods[path] = (kind, rule)
            if kind.source in _SPLITS_SERVICES:
                _mark_above(path, candidates.split)
            if not kind.weak:
                shield = path + "/"
        if kind is not None or is_unit(name):
            _mark_above(path, candidates.holders)
    return candidates


def _mark_above(path: str, marked: set[str]) -> None:
    """Add all ancestors; linear over all calls, since those of a marked one are marked."""
    above = path.rpartition("/")[0]
    while above and above not in marked:
        marked.add(above)
        above = above.rpartition("/")[0]


def _kind_of_rule(rule: PodRule, path: str) -> Kind:
    return Kind("rule", rule.qos, path, rule.name or path)


def _member(place: _Place, claim: Claim | None, taken: KeysView[str]) -> Member:
    parent_length = len(place.top.path) + 1
    containers = []
    if place.kind.source in _WITH_CONTAINERS:
        for directory in place.below:
            name = directory.path[parent_length:]
            if "/" not in name and (called := container_name(name)) is not None:
                containers.append((called, directory))
    nested = tuple(directory.path for directory in place.below)
    return Member(_spec(place, claim, taken), tuple(containers), nested)


def _spec(place: _Place, claim: Claim | None, taken: KeysView[str]) -> PodSpec:
    top, kind, rule, _below, tier = place
    asked: PodRule | Claim | None = rule
    if rule is None and claim is not None and kind.source == "exec" and claim.qos is kind.qos:
        asked = claim
    bind, exclusive = _asked_of_numa(asked) if kind.qos is Qos.LS else (False, False)
    return PodSpec(
        uid=kind.uid if kind.uid not in taken else f"/{top.path}",  # which is nobody's uid
        name=shown(kind.name),
        cgroup=top.path,
        inode=top.inode,
        qos=kind.qos,
        source=kind.source,
        priority=Priority.MEDIUM if asked is None else asked.priority,
        tier=tier if kind.qos is Qos.BATCH else None,
        cpu_request_cores=None if asked is None else asked.cpus,
        memory_request_bytes=None if asked is None else asked.memory,
        numa_bind=bind,
        exclusive=exclusive,
        near=asked.near if asked is not None and bind else "",
        hands_off=asked is not None and asked.hands_off and kind.qos is not Qos.BATCH,
    )


def _asked_of_numa(asked: PodRule | Claim | None) -> tuple[bool, bool]:
    """(bind, exclusive), of which the second has the first."""
    if isinstance(asked, PodRule):
        return asked.numa is not NumaWish.NONE, asked.numa is NumaWish.EXCLUSIVE
    return (False, False) if asked is None else (asked.numa_bind, asked.numa_bind and asked.exclusive)
