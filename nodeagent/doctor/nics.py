"""NICs: how each would be shaped, why not better, and what this kernel can do for that.

`judged_nics` and `judged_support` are pure: what the kernel said goes in, findings come out.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping

from nodeagent.core.nic.ladder import HTB_MOST_BPS, choose, classifier
from nodeagent.core.nic.shape import Matched, matched
from nodeagent.doctor.finding import Check, Finding, Host, Status
from nodeagent.model.nic import MAJOR, Classifier, Link, NicsSeen, NicSupport, Scheduler
from nodeagent.model.policy import Policy
from nodeagent.model.settings import Actuator, Mode
from nodeagent.model.units import format_bps

PODS_OWN = frozenset({"veth", "ifb", "macvlan", "ipvlan", "netkit"})
SCHEDULERS = {
    Scheduler.HTB: ("classes at a NIC's root", "needs a kernel with CONFIG_NET_SCH_HTB"),
    Scheduler.EDT: (
        "departure times above somebody's fq",
        "needs a kernel with CONFIG_NET_SCH_FQ, CONFIG_NET_CLS_BPF and CONFIG_BPF_SYSCALL",
    ),
    Scheduler.VETH: (
        "classes at the pods' own interfaces",
        "needs a kernel with CONFIG_NET_SCH_HTB and CONFIG_VETH",
    ),
}
CLASSIFIERS = {
    Classifier.NFT: (
        "pods by address, processes of the host by cgroup v2",
        "needs a kernel with CONFIG_NF_TABLES_INET and CONFIG_NFT_SOCKET",
    ),
    Classifier.BPF: (
        "the same, without nftables",
        "needs a kernel with CONFIG_CGROUP_BPF, CONFIG_NET_CLS_BPF and CONFIG_NET_CLS_ACT",
    ),
    Classifier.NET_CLS: (
        "processes of the host by cgroup v1",
        "mount the v1 controller net_cls (CONFIG_CGROUP_NET_CLASSID)",
    ),
    Classifier.U32: ("pods by address alone", "needs a kernel with CONFIG_NET_CLS_U32"),
}
ROOTLESS = "run as root, or with what systemd/nodeagent-nic.conf gives the service"


def network(host: Host) -> Iterator[Finding]:
    """Asked for real: links by netlink, and what works by packets in a namespace of the probe's own."""
    from nodeagent.kernel.nic.links import Links
    from nodeagent.kernel.nic.probe import probe

    with contextlib.closing(Links(host.root)) as links:
        found = links.read(time.monotonic())
    support = probe(host_root=host.root)
    settings, policy = host.config.settings.agent, host.config.policy
    enforced = settings.mode is Mode.ENFORCE and Actuator.NIC in settings.enforce
    yield from judged_nics(found, support, policy, enforced=enforced)
    yield from judged_support(support, policy, enforced=enforced)


def judged_nics(
    links: tuple[Link, ...], support: NicSupport, policy: Policy, *, enforced: bool
) -> Iterator[Finding]:
    """A finding per NIC that has a rule, and per other one that is up and no pod's."""
    known = matched(NicsSeen(links=links), policy.nics, {})
    by_name = {each.link.name: each.link for each in known}
    for each in known:
        yield from _nic(each, support, by_name, enforced=enforced)
    if enforced and not known:
        fix = 'name the NICs to be shaped: [[nics]] match = "eth*"'
        yield Finding("NIC", Status.WARN, "no interface has a default route, or matches [[nics]]", fix)
    for link in links:
        if link.up and link.name not in by_name and link.kind not in PODS_OWN:
            yield Finding(
                f"NIC {link.name}", Status.INFO, f"{_state(link)}; not looked after", _name_it(link)
            )


def judged_support(support: NicSupport, policy: Policy, *, enforced: bool) -> Iterator[Finding]:
    """What this kernel does, proven by packets, and what tells whose a packet is."""
    if reason := _hopeless(support):
        status = Status.WARN if enforced else Status.INFO
        yield Finding("shaping", status, f"nothing works: {reason}", ROOTLESS)
        return
    yield from _steps(support)
    if enforced:
        best, why = classifier(policy.nic.classify, support)
        lost = best is Classifier.NONE
        found = f"{best}{f' ({why})' if why else ''}"
        fix = "without it all traffic passes for LS and Batch is not bounded: see the findings above"
        yield Finding("classifier", Status.WARN if lost else Status.OK, found, fix if lost else "")


def _hopeless(support: NicSupport) -> str:
    """The one reason why nothing works, where nothing could be tried; else empty."""
    reasons = {support.schedulers.get(step, "not tried") for step in SCHEDULERS}
    reasons |= {support.classifiers.get(teller, "not tried") for teller in CLASSIFIERS}
    return reasons.pop() if len(reasons) == 1 else ""


def _steps(support: NicSupport) -> Iterator[Finding]:
    for step, (use, fix) in SCHEDULERS.items():
        yield _able(f"shaping {step}", use, support.schedulers.get(step, "not tried"), fix)
    for teller, (use, fix) in CLASSIFIERS.items():
        yield _able(f"telling {teller}", use, support.classifiers.get(teller, "not tried"), fix)
    yield _able("shaping ingress", "incoming traffic", support.ingress, "needs a kernel with CONFIG_IFB")
    yield _able(
        "telling bridged", "pods on a bridge", support.bridge, "sysctl net.bridge.bridge-nf-call-iptables=1"
    )


def _nic(
    each: Matched, support: NicSupport, known: Mapping[str, Link], *, enforced: bool
) -> Iterator[Finding]:
    link, rule = each.link, each.rule
    name, found = f"NIC {link.name}", f"{_state(link)}, {rule.role}"
    step, why = choose(link, support, rule, known)
    if step is Scheduler.OBSERVE:
        status = Status.WARN if enforced else Status.INFO
        if _hopeless(support):
            why = "nothing works here"
        yield Finding(name, status, f"{found}; not shaped: {why}", _way_out(link, known))
        return
    if not (rule.link_bps or link.link_bps):
        fix = f'[[nics]] match = "{link.name}", link_bps = the bits per second of the real bottleneck'
        yield Finding(
            name, Status.WARN if enforced else Status.INFO, f"{found}; not shaped until it is known", fix
        )
        return
    reason = f" ({why})" if why else ""
    yield Finding(name, Status.OK, f"{found}; shaped by {step}{reason}")
    yield from _cautions(link, rule.link_bps or link.link_bps or 0.0, step)


def _cautions(link: Link, link_bps: float, step: Scheduler) -> Iterator[Finding]:
    """What shaping this NIC is not able to do, or costs."""
    if link_bps > HTB_MOST_BPS and step is Scheduler.HTB:
        fix = (
            f"net.core.default_qdisc=fq, then tc qdisc replace dev {link.name} root mq: departure times then"
        )
        found = (
            f"HTB has one lock for its {link.tx_queues} queues: not advised above {format_bps(HTB_MOST_BPS)}"
        )
        yield Finding(f"NIC {link.name}", Status.WARN, found, fix)
    if link.virtual_function:
        found = "a virtual function: what others of its device send is not seen, the wire is theirs too"
        fix = "bound each on the host: ip link set PF vf N max_tx_rate MBIT; link_bps = that"
        yield Finding(f"NIC {link.name}", Status.INFO, found, fix)


def _state(link: Link) -> str:
    root = link.root
    owner = "the kernel's own" if root.handle == 0 else "ours" if root.handle >> 16 == MAJOR else "somebody's"
    below = f" over {', '.join(sorted(set(link.leaves)))}" if link.leaves else ""
    speed = "speed not told" if link.link_bps is None else format_bps(link.link_bps)
    kind = f"{link.kind}, " if link.kind else ""
    return f"{kind}{speed if link.up else 'down'}, root qdisc {root.kind}{below} ({owner})"


def _way_out(link: Link, known: Mapping[str, Link]) -> str:
    """What to do about a NIC that is not shaped; nothing where that is as it should be."""
    if link.lower and not any(name in known for name in link.lower):
        return f"shape what it is made of: [[nics]] match for {', '.join(link.lower)}"
    if link.root.handle and link.root.handle >> 16 != MAJOR and not link.lower:
        return f"whoever set it, if it is not needed: tc qdisc del dev {link.name} root"
    return ""


def _name_it(link: Link) -> str:
    return f'to shape it: [[nics]] match = "{link.name}"' if not link.kind else ""


def _able(name: str, use: str, why_not: str, fix: str) -> Finding:
    if not why_not:
        return Finding(name, Status.OK, f"works ({use})")
    return Finding(name, Status.INFO, f"{why_not} ({use})", fix)


NICS: tuple[Check, ...] = (network,)
