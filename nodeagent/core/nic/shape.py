"""Everything about the network in one tick: a plan for each NIC that has a rule, and whose traffic is whose.

A NIC is found again under another index, and under another name as long as its index is the same.

Invariant: the ceilings of a tick are those of the beats before it and of its own sample, so replays
have them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from nodeagent.core.nic import ceiling
from nodeagent.core.nic.ladder import choose, classifier, elsewhere, rule_of
from nodeagent.core.nic.marks import NetClasses, marks
from nodeagent.core.nic.roles import settled
from nodeagent.core.nic.tree import tree, whole
from nodeagent.model.nic import (
    Classifier,
    ClassSeen,
    KnownNic,
    Link,
    Marks,
    NicLaw,
    NicPlan,
    NicSample,
    NicsSeen,
    NicSupport,
    Role,
    Scheduler,
    Shaping,
)
from nodeagent.model.nic_policy import NicRule, RoleBy
from nodeagent.model.plan import Kind
from nodeagent.model.pod import Qos
from nodeagent.model.policy import Policy
from nodeagent.model.snapshot import Snapshot

SLOW_BEAT_S = 0.5
NO_SPEED = "its speed is not known: set link_bps in [[nics]]"


class Matched(NamedTuple):
    """A NIC with its rule and the name by which it has it: a renamed one keeps its own."""

    link: Link
    rule: NicRule
    rule_name: str


def shaped(
    snapshot: Snapshot, policy: Policy, known: Mapping[str, KnownNic]
) -> tuple[Shaping | None, dict[str, KnownNic]]:
    """The network as it shall be, and what to remember of it; None where no traffic is shaped."""
    seen = snapshot.nics
    if seen is None:
        return None, {}
    gpus = {d.numa_node for d in snapshot.topology.devices if d.kind == "gpu" and d.numa_node is not None}
    found = matched(seen, policy.nics, known, gpus)
    links = {each.link.name: each.link for each in found}
    plans: list[NicPlan] = []
    after: dict[str, KnownNic] = {}
    for each in found:
        memory = _known(each, known, seen.samples, policy)
        rule = each.rule
        step, why = choose(each.link, seen.support, rule, links)
        if step is not Scheduler.OBSERVE and memory.link_bps is None:
            step, why = Scheduler.OBSERVE, NO_SPEED
        if step is Scheduler.VETH and (other := next((p.name for p in plans if p.scheduler is step), "")):
            step, why = Scheduler.OBSERVE, f"the pods' interfaces are shaped for {other} already"
        plan = NicPlan(
            name=each.link.name,
            index=each.link.index,
            role=Role(rule.role.value),
            scheduler=step,
            why=why,
        )
        if step is not Scheduler.OBSERVE:
            memory = _after(memory, plan.name, seen.samples, snapshot.at, rule, policy)
            plan = _with_trees(plan, memory, rule, policy, seen.support)
        plans.append(plan)
        after[plan.name] = memory
    return Shaping(tuple(plans), _marked(snapshot, seen, policy)), after


def _marked(snapshot: Snapshot, seen: NicsSeen, policy: Policy) -> Marks:
    by, why = classifier(policy.nic.classify, seen.support)
    classes = None
    if by is Classifier.NET_CLS:
        there = frozenset(r.knob.target for r in snapshot.knobs if r.knob.kind is Kind.NET_CLASS)
        classes = NetClasses(there, policy.scope)
    return marks(seen, [pod.spec for pod in snapshot.pods], by, why, classes)


def beaten(
    sample: NicSample, shaping: Shaping, policy: Policy, known: Mapping[str, KnownNic], support: NicSupport
) -> tuple[Shaping, dict[str, KnownNic]]:
    """Between two ticks: the same plans, with the ceilings after one more sample."""
    after, plans = dict(known), []
    for plan in shaping.nics:
        memory = known.get(plan.name)
        rule = _rule_named(memory.rule_name, policy.nics) if memory is not None else None
        if plan.tree is not None and memory is not None and rule is not None:
            rule = replace(rule, role=RoleBy(plan.role.value))
            after[plan.name] = memory = _after(memory, plan.name, (sample,), sample.at, rule, policy)
            plan = _with_trees(plan, memory, rule, policy, support)  # noqa: PLW2901
        plans.append(plan)
    return replace(shaping, nics=tuple(plans)), after


def beat_s(shaping: Shaping, known: Mapping[str, KnownNic], policy: Policy) -> float:
    """Time until the next look at the classes: slow while Batch sends next to nothing, inf without any."""
    tops = {plan.name: plan.tree.top_bps for plan in shaping.nics if plan.tree is not None}
    if not tops:
        return math.inf
    laws = [
        (law, tops[name]) for name, nic in known.items() if name in tops for law in (nic.egress, nic.ingress)
    ]
    calm = all(law is None or ceiling.idle(law, top_bps) for law, top_bps in laws)
    return max(policy.nic.beat_s, SLOW_BEAT_S) if calm else policy.nic.beat_s


def matched(
    seen: NicsSeen,
    rules: tuple[NicRule, ...],
    known: Mapping[str, KnownNic],
    gpu_nodes: Collection[int | None] = (),
) -> list[Matched]:
    """Every NIC that has a rule, by its own name or by the one that it had before; with a settled role."""
    names = {memory.index: memory.rule_name for memory in known.values()}
    found = []
    for link in seen.links:
        if (rule := rule_of(link.name, rules, default_route=link.default_route)) is not None:
            found.append(Matched(link, rule, link.name))
        elif link.index in names and (rule := _rule_named(names[link.index], rules)) is not None:
            found.append(Matched(link, rule, names[link.index]))
    links = {each.link.name: each.link for each in found}
    others = [link for link in links.values() if not elsewhere(link, links)]
    return [each._replace(rule=settled(each.link, each.rule, others, gpu_nodes)) for each in found]


def _rule_named(name: str, rules: tuple[NicRule, ...]) -> NicRule | None:
    return rule_of(name, rules, default_route=True)


def _known(
    each: Matched, known: Mapping[str, KnownNic], samples: tuple[NicSample, ...], policy: Policy
) -> KnownNic:
    link, rule = each.link, each.rule
    before = next((k for k in known.values() if k.index == link.index), None) or known.get(link.name)
    told = float(rule.link_bps) or link.link_bps
    if before is None:
        return KnownNic(link.index, each.rule_name, told or _left_bps(link, samples, policy))
    speed = told or before.link_bps  # one that is down does not tell
    if before.index != link.index or speed != before.link_bps:
        return KnownNic(link.index, each.rule_name, speed)
    return replace(before, rule_name=each.rule_name)


def _left_bps(link: Link, samples: tuple[NicSample, ...], policy: Policy) -> float | None:
    """The speed by which the last run has shaped a NIC that is down now: LS may have all of its tree."""
    trees = () if link.up or not samples else samples[-1].trees
    tops = (c.ceil_bps for tree in trees if tree.name == link.name for c in tree.classes if c.qos is Qos.LS)
    top_bps = next(tops, math.inf)
    return top_bps / policy.nic.usable_ratio if math.isfinite(top_bps) else None


def _after(
    memory: KnownNic, name: str, samples: Iterable[NicSample], now: float, rule: NicRule, policy: Policy
) -> KnownNic:
    """Both laws after these samples, as of the monotonic time `now`."""
    top, incoming = _top_bps(memory, policy), _incoming(rule)
    egress, ingress = memory.egress, memory.ingress
    for sample in samples:
        seen = next((tree for tree in sample.trees if tree.name == name), None)
        egress = _law(egress, sample.at, seen.classes if seen else (), rule, policy, top)
        if rule.ingress_ratio:
            ingress = _law(ingress, sample.at, seen.ingress if seen else (), incoming, policy, top)
    egress = _aged(egress or ceiling.begun(rule, top, ()), rule, policy, top, now)
    ingress = _aged(ingress or ceiling.begun(incoming, top, ()), incoming, policy, top, now)
    return replace(memory, egress=egress, ingress=ingress if rule.ingress_ratio else None)


def _law(
    law: NicLaw | None, at: float, seen: tuple[ClassSeen, ...], rule: NicRule, policy: Policy, top_bps: float
) -> NicLaw:
    """After the sample of the monotonic time `at`; a NIC that is not in it gets older."""
    law = law or ceiling.begun(rule, top_bps, seen)
    return _aged(ceiling.followed(law, at, seen, rule, policy.nic, top_bps), rule, policy, top_bps, at)


def _aged(law: NicLaw, rule: NicRule, policy: Policy, top_bps: float, now: float) -> NicLaw:
    stale = law.at is not None and now - law.at > policy.nic.stale_s
    return ceiling.blind(law, rule, top_bps, now - (law.at or 0.0)) if stale else law


def _incoming(rule: NicRule) -> NicRule:
    """The same rule for incoming traffic, where the queue is at the other end of the wire."""
    return replace(
        rule,
        batch_ceiling_ratio=rule.ingress_ratio,
        batch_pressed_ratio=min(rule.batch_pressed_ratio, rule.ingress_ratio),
    )


def _with_trees(
    plan: NicPlan, memory: KnownNic, rule: NicRule, policy: Policy, support: NicSupport
) -> NicPlan:
    top, egress, ingress = _top_bps(memory, policy), memory.egress, memory.ingress
    assert egress is not None
    own_queue = support.fq_codel
    incoming = None
    if ingress is not None and not support.ingress:
        incoming = tree(_incoming(rule), top, ingress.ceiling_bps, ingress.guarantee_bps, own_queue=own_queue)
    return replace(
        plan,
        tree=tree(rule, top, egress.ceiling_bps, egress.guarantee_bps, own_queue=own_queue),
        ingress=incoming,
    )


def _top_bps(memory: KnownNic, policy: Policy) -> float:
    return whole((memory.link_bps or 0.0) * policy.nic.usable_ratio)
