"""Traffic as messages, and back again for the command that shows it: the two are each other's inverse."""

from __future__ import annotations

from math import inf, isinf

from nodeagent.model.decision import Tick
from nodeagent.model.nic import Classifier, Role, Scheduler
from nodeagent.model.nic_told import ClassTold, NetTold, NicTold, TreeTold, Untold, Way, told, ways
from nodeagent.rpc.scalars import U32, counter, text
from nodeagent.rpc.seen import QOS
from nodeagent.v1 import nodeagent_pb2 as pb

ROLE = {
    Role.SHARED: pb.NIC_ROLE_SHARED,
    Role.ONLINE: pb.NIC_ROLE_ONLINE,
    Role.BULK: pb.NIC_ROLE_BULK,
}
SCHEDULER = {
    Scheduler.HTB: pb.NIC_SCHEDULER_HTB,
    Scheduler.EDT: pb.NIC_SCHEDULER_EDT,
    Scheduler.VETH: pb.NIC_SCHEDULER_VETH,
    Scheduler.OBSERVE: pb.NIC_SCHEDULER_OBSERVE,
}
CLASSIFIER = {
    Classifier.NFT: pb.CLASSIFIER_NFT,
    Classifier.BPF: pb.CLASSIFIER_BPF,
    Classifier.NET_CLS: pb.CLASSIFIER_NET_CLS,
    Classifier.U32: pb.CLASSIFIER_U32,
    Classifier.NONE: pb.CLASSIFIER_NONE,
}
WAY = {
    Way.CGROUP: pb.TRAFFIC_WAY_CGROUP,
    Way.ADDRESS: pb.TRAFFIC_WAY_ADDRESS,
    Way.DEFAULT: pb.TRAFFIC_WAY_DEFAULT,
    Way.UNCLASSIFIED: pb.TRAFFIC_WAY_UNCLASSIFIED,
}
_ROLE = {number: role for role, number in ROLE.items()}
_SCHEDULER = {number: scheduler for scheduler, number in SCHEDULER.items()}
_CLASSIFIER = {number: classifier for classifier, number in CLASSIFIER.items()}
_QOS = {number: qos for qos, number in QOS.items()}
_MAYBE = ("rate_bps", "bytes", "packets", "drops", "overlimits", "backlog_bytes")


def add_network(report: pb.NodeReport, tick: Tick) -> None:
    """Add the NICs, and how the traffic of each pod is told; the order is that of the snapshot."""
    found = told(tick)
    if found is None:
        return
    report.network.CopyFrom(_network(found))
    how = ways(tick)
    for pod, message in zip(tick.snapshot.pods, report.pods, strict=True):
        message.traffic.CopyFrom(traffic_message(*how[pod.spec.uid]))


def traffic_message(way: Way, why: str) -> pb.PodTraffic:
    """By what one pod's packets are told."""
    return pb.PodTraffic(way=WAY[way], why=text(why))


def told_by(message: pb.Network) -> NetTold:
    """What an agent has told; KeyError for a value that only a later one knows."""
    return NetTold(
        nics=tuple(map(_nic_of, message.nics)),
        classifier=_CLASSIFIER[message.classifier],
        why=message.classifier_why,
        cgroups=message.cgroup_count,
        addresses=message.address_count,
        unclassified=tuple(Untold(u.pod_uid, u.pod_name, u.why) for u in message.unclassified),
        failed=tuple(message.failed),
    )


def _network(found: NetTold) -> pb.Network:
    return pb.Network(
        nics=map(_nic, found.nics),
        classifier=CLASSIFIER[found.classifier],
        classifier_why=text(found.why),
        cgroup_count=min(found.cgroups, U32),
        address_count=min(found.addresses, U32),
        unclassified=[
            pb.Unclassified(pod_uid=text(u.uid), pod_name=text(u.name), why=text(u.why))
            for u in found.unclassified
        ],
        failed=map(text, found.failed),
    )


def _nic(nic: NicTold) -> pb.Nic:
    return pb.Nic(
        name=text(nic.name),
        role=ROLE[nic.role],
        scheduler=SCHEDULER[nic.scheduler],
        why=text(nic.why),
        up=nic.up,
        link_bps=nic.link_bps,
        egress=_tree(nic.egress),
        ingress=_tree(nic.ingress),
    )


def _tree(tree: TreeTold | None) -> pb.NicTree | None:
    return None if tree is None else pb.NicTree(top_bps=tree.top_bps, classes=map(_class, tree.classes))


def _class(found: ClassTold) -> pb.NicClass:
    message = pb.NicClass(
        qos=QOS[found.qos],
        guarantee_bps=found.guarantee_bps,
        rate_bps=found.rate_bps,
        bytes=counter(found.bytes),
        packets=counter(found.packets),
        drops=counter(found.drops),
        overlimits=counter(found.overlimits),
        backlog_bytes=counter(found.backlog_bytes),
        why=text(found.why),
    )
    if isinf(found.ceiling_bps):
        message.unlimited = True
    else:
        message.ceiling_bps = found.ceiling_bps
    return message


def _nic_of(message: pb.Nic) -> NicTold:
    return NicTold(
        name=message.name,
        role=_ROLE[message.role],
        scheduler=_SCHEDULER[message.scheduler],
        why=message.why,
        up=message.up if message.HasField("up") else None,
        link_bps=message.link_bps if message.HasField("link_bps") else None,
        egress=_tree_of(message.egress) if message.HasField("egress") else None,
        ingress=_tree_of(message.ingress) if message.HasField("ingress") else None,
    )


def _tree_of(message: pb.NicTree) -> TreeTold:
    return TreeTold(message.top_bps, tuple(map(_class_of, message.classes)))


def _class_of(message: pb.NicClass) -> ClassTold:
    known = {name: getattr(message, name) for name in _MAYBE if message.HasField(name)}
    return ClassTold(
        qos=_QOS[message.qos],
        guarantee_bps=message.guarantee_bps,
        ceiling_bps=inf if message.unlimited else message.ceiling_bps,
        why=message.why,
        **known,
    )
