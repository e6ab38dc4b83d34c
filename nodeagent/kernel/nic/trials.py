"""What the kernel does with our trees and classifiers, each tried with packets on a bench.

Invariant: nothing but the code that will shape traffic is tried, and it is counted by the class counters that
the agent goes by.
"""

from __future__ import annotations

import os
from contextlib import closing, suppress

from nodeagent.kernel.errno import translated
from nodeagent.kernel.mounts import Hierarchies
from nodeagent.kernel.nic.bench import FAR, OWN, POD, WIRE, Bench, as_batch, in_cgroup, tree
from nodeagent.kernel.nic.bpf.marks import BpfMarks
from nodeagent.kernel.nic.bpf.pacing import Edt
from nodeagent.kernel.nic.ingress import Ingress
from nodeagent.kernel.nic.nft import Table
from nodeagent.kernel.nic.probe_cgroup import cgroup
from nodeagent.kernel.nic.rtnetlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Rtnetlink,
    attribute,
    tcmsg,
)
from nodeagent.kernel.nic.u32 import AddressFilters
from nodeagent.kernel.nic.veth import Veths
from nodeagent.model.errors import Unsupported
from nodeagent.model.nic import Classifier, Marks, classid
from nodeagent.model.pod import Qos

_NEWQDISC, _DELQDISC, _TC_KIND, _ROOT = 36, 37, 1, 0xFFFFFFFF
_SLOW_BPS = 8e4  # 1000-byte packets leave one each 0.1 s


def htb(bench: Bench) -> None:
    """Our tree, and its default class."""
    bench.trees.set(bench.nic, tree())
    bench.counted(Qos.LS, lambda: bench.send(OWN), bench.on_nic, "htb")
    bench.counted(Qos.BATCH, as_batch(bench.send), bench.on_nic, "htb by skb->priority")


def nft(bench: Bench, places: Hierarchies) -> None:
    """By the cgroup v2 of the socket, and by source address."""
    with closing(Table()) as table, cgroup(places.unified, places) as (path, level):
        try:
            table.set(_marks(Classifier.NFT, path, level))
            _by_both(bench, path, f"nftables, socket cgroupv2 level {level}")
        finally:
            table.remove()


def bpf(bench: Bench, places: Hierarchies) -> None:
    """The same two by an eBPF program at clsact."""
    with closing(BpfMarks()) as marks, cgroup(places.unified, places) as (path, level):
        try:
            marks.set(_marks(Classifier.BPF, path, level), [bench.nic])
            _by_both(bench, path, f"eBPF, ancestor cgroup at level {level}")
        finally:
            marks.remove()


def net_cls(bench: Bench, places: Hierarchies) -> None:
    """By the class that cgroup v1 net_cls gives, and by source address."""
    root = places.roots.get("net_cls")
    if root is None or root.version != 1:
        raise Unsupported("no net_cls hierarchy is mounted")
    with closing(Table()) as table, cgroup(root.root, places) as (path, _):
        _write(f"{path}/net_cls.classid", str(classid(Qos.BATCH)))
        try:
            table.set(_marks(Classifier.NET_CLS), net_cls=True)
            _by_both(bench, path, "nftables, meta cgroup")
        finally:
            table.remove()


def u32(bench: Bench) -> None:
    """By source address alone."""
    with closing(Rtnetlink()) as link:
        filters = AddressFilters(link)
        try:
            filters.set(bench.nic, _marks(Classifier.U32).addresses)
            bench.counted(Qos.MID, lambda: bench.send(POD), bench.on_nic, "u32, source address")
        finally:
            filters.remove(bench.nic)


def ingress(bench: Bench) -> None:
    """What comes in, by destination address, on an IFB."""
    with closing(Rtnetlink()) as link:
        shaped = Ingress(link, bench.trees)
        try:
            shaped.set(bench.nic, tree(), [(POD[0], Qos.MID)])
            bench.counted(
                Qos.MID,
                lambda: bench.inject(WIRE, FAR[0], POD[0]),
                lambda: shaped.read(bench.nic),
                "redirect to an ifb",
            )
        finally:
            shaped.remove(bench.nic)


def veth(bench: Bench) -> None:
    """What comes out of a pod's host-side veth, by source address, on an IFB."""
    bench.pair("pod0", "eth0")
    with closing(Rtnetlink()) as link:
        shaped = Veths(link, bench.trees)
        try:
            shaped.set(bench.nic, tree(), [("pod0", Qos.MID, (POD[0],))])
            bench.counted(
                Qos.MID,
                lambda: bench.inject("eth0", POD[0], FAR[0]),
                lambda: shaped.read(bench.nic),
                "redirect of a veth to an ifb",
            )
        finally:
            shaped.remove(bench.nic)


def bridge(bench: Bench) -> None:
    """What is bridged from a pod to the NIC, by source address. The NIC is no longer to be routed by then."""
    port, _ = bench.pair("pod1", "eth1")
    bench.bridge(bench.nic, port)
    with closing(Table()) as table:
        try:
            table.set(_marks(Classifier.NFT), bridge=True)
            bench.counted(
                Qos.MID,
                lambda: bench.inject("eth1", POD[0], FAR[0]),
                bench.on_nic,
                "nftables, bridge family",
            )
        finally:
            table.remove()


def edt(bench: Bench) -> None:
    """Departure times that fq keeps: of three packets at once at most one is through at once."""
    bench.trees.remove(bench.nic)
    with closing(Rtnetlink()) as link, closing(Edt()) as paced:
        _qdisc(link, bench.nic, "fq")
        try:
            paced.set(bench.nic, tree(_SLOW_BPS))
            with bench.listening() as arrived:
                bench.counted(
                    Qos.BATCH,
                    lambda: bench.send(OWN[:1], 1000, 3, classid(Qos.BATCH)),
                    lambda: paced.read(bench.nic),
                    "eBPF, departure times",
                )
                if (count := arrived()) > 1:
                    raise Unsupported(f"fq did not hold packets until their time: {count} of 3 came at once")
        finally:
            paced.remove(bench.nic)
            _no_qdisc(link, bench.nic)


def fq_codel(bench: Bench) -> bool:
    """Is there such a qdisc?"""
    with closing(Rtnetlink()) as link, suppress(Unsupported):
        _qdisc(link, bench.wire, "fq_codel")
        _no_qdisc(link, bench.wire)
        return True
    return False


def _by_both(bench: Bench, path: str, what: str) -> None:
    sending = in_cgroup(f"{path}/cgroup.procs", lambda: bench.send(OWN))
    bench.counted(Qos.BATCH, sending, bench.on_nic, what)
    bench.counted(Qos.MID, lambda: bench.send(POD), bench.on_nic, f"{what.partition(',')[0]}, source address")


def _marks(classifier: Classifier, path: str = "", level: int = 0) -> Marks:
    cgroups = ((level, os.stat(path).st_ino, Qos.BATCH),) if path else ()
    return Marks(classifier, "", cgroups, tuple((address, Qos.MID) for address in POD))


def _write(path: str, value: str) -> None:
    try:
        with open(path, "w") as file:
            file.write(value)
    except OSError as error:
        raise translated(error, path) from error


def _qdisc(link: Rtnetlink, index: int, kind: str) -> None:
    body = tcmsg(index, parent=_ROOT) + attribute(_TC_KIND, kind.encode() + b"\0")
    try:
        link.ask(_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, body)
    except OSError as error:
        raise Unsupported(f"qdisc {kind}: {error.strerror}", hint=f"modprobe sch_{kind}") from error


def _no_qdisc(link: Rtnetlink, index: int) -> None:
    with suppress(OSError):
        link.ask(_DELQDISC, 0, tcmsg(index, parent=_ROOT))
