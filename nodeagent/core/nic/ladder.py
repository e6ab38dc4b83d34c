"""Which rule is a NIC's, and how it is shaped: the best step that this kernel and this NIC allow.

    HTB      the root qdisc is the kernel's own (handle 0), or ours already
    EDT      the root is somebody's fq, or has fq below it
    VETH     the root is somebody's, but the traffic of Batch pods comes through interfaces of theirs
    OBSERVE  nothing works, or it is bounded at another device

Invariant: no step touches what somebody else has set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from nodeagent.model.glob import glob_regex
from nodeagent.model.nic import MAJOR, Classifier, Link, NicSupport, Scheduler
from nodeagent.model.nic_policy import ClassifyBy, NicRule, ScheduleBy

# One lock for all queues of the NIC: measured by NVIDIA at 100 Gbit/s, HTB passed 7 of 99 ("HTB offload").
HTB_MOST_BPS = 25e9
_Step = TypeVar("_Step", Scheduler, Classifier)
_DEFAULT = NicRule(match="*")
_LADDER = (Scheduler.HTB, Scheduler.EDT, Scheduler.VETH)
_TELLING = (Classifier.NFT, Classifier.BPF, Classifier.NET_CLS, Classifier.U32)


def rule_of(name: str, rules: tuple[NicRule, ...], *, default_route: bool) -> NicRule | None:
    """The first rule that matches; without any rule at all the default one for NICs with a default route."""
    if not rules:
        return _DEFAULT if default_route else None
    return next((rule for rule in rules if glob_regex(rule.match).fullmatch(name)), None)


def choose(
    link: Link, support: NicSupport, rule: NicRule, matched: Mapping[str, Link]
) -> tuple[Scheduler, str]:
    """The step for this NIC and why it is none better. `matched`: all NICs that have a rule, by name."""
    if rule.schedule is ScheduleBy.OBSERVE:
        return Scheduler.OBSERVE, "schedule = observe"
    if bottleneck := elsewhere(link, matched):
        return Scheduler.OBSERVE, bottleneck
    reasons = {step: _obstacle(step, link, support) for step in _LADDER}
    too_fast = (rule.link_bps or link.link_bps or 0.0) > HTB_MOST_BPS
    if rule.schedule is not ScheduleBy.AUTO:
        asked = Scheduler(rule.schedule.value)
        return (Scheduler.OBSERVE, reasons[asked]) if reasons[asked] else (asked, f"schedule = {asked}")
    if too_fast and not reasons[Scheduler.EDT]:
        return Scheduler.EDT, f"HTB is not advised above {HTB_MOST_BPS / 1e9:g} Gbit/s"
    best = next((step for step in _LADDER if not reasons[step]), Scheduler.OBSERVE)
    tried = _LADDER[: _LADDER.index(best)] if best in _LADDER else _LADDER
    if best is Scheduler.HTB:
        return best, f"not advised above {HTB_MOST_BPS / 1e9:g} Gbit/s: one lock" if too_fast else ""
    return best, _told(tried, reasons)


def classifier(asked: ClassifyBy, support: NicSupport) -> tuple[Classifier, str]:
    """How the class of a packet is told, and why not better."""
    if asked is ClassifyBy.NONE:
        return Classifier.NONE, "classify = none"
    reasons: dict[Classifier, str] = {s: support.classifiers.get(s, "not tried") for s in _TELLING}
    if asked is not ClassifyBy.AUTO:
        step = Classifier(asked.value)
        return (Classifier.NONE, reasons[step]) if reasons[step] else (step, f"classify = {step}")
    best = next((step for step in _TELLING if not reasons[step]), Classifier.NONE)
    tried = _TELLING[: _TELLING.index(best)] if best in _TELLING else _TELLING
    return best, _told(tried, reasons)


def _told(tried: Iterable[_Step], reasons: Mapping[_Step, str]) -> str:
    """Steps with their reasons, each reason once."""
    steps: dict[str, list[str]] = {}
    for step in tried:
        steps.setdefault(reasons[step], []).append(str(step))
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in steps.items())


def elsewhere(link: Link, matched: Mapping[str, Link]) -> str:
    """Not empty: the bottleneck is at another device, which is shaped instead."""
    if link.kind == "vlan" and (below := next((name for name in link.lower if name in matched), "")):
        return f"a VLAN on {below}, which is shaped: the class of a packet lasts until there"
    if link.master in matched and matched[link.master].kind in ("bond", "team"):
        return f"a part of {link.master}, which is shaped"
    if link.kind == "bridge":
        return "a bridge has no queue of its own: its ports are shaped"
    if link.kind in ("tun", "wireguard", "vxlan", "geneve", "ipip", "gre", "dummy", "ifb"):
        return f"a {link.kind} device is not where the bottleneck is: name the NIC below it"
    return ""


def _obstacle(step: Scheduler, link: Link, support: NicSupport) -> str:
    """Why a step is not possible on this NIC; empty when it is."""
    if reason := support.schedulers.get(step, "not tried"):
        return reason
    root = link.root
    free = root.handle == 0 or root.handle >> 16 == MAJOR
    if step is Scheduler.HTB and not free:
        return f"the root qdisc {root.kind} {root.handle >> 16:x}: is somebody else's"
    if step is Scheduler.EDT and root.kind != "fq" and set(link.leaves) != {"fq"}:
        return "there is no fq at the root or below"
    return ""
