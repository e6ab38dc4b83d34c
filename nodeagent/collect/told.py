"""The view as a message, and the message as what is shown: a summary, as `-o json` prints it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp
from msgspec import Struct

from nodeagent.collect.offer import offer_of
from nodeagent.collect.view import Node, State, View
from nodeagent.model.errors import Garbled
from nodeagent.rpc.scalars import timestamp
from nodeagent.v1 import collector_pb2 as pb
from nodeagent.v1 import directive_pb2 as directive_pb

MODE = {directive_pb.MODE_OBSERVE: "observe", directive_pb.MODE_ENFORCE: "enforce"}


class ZoneLine(Struct, frozen=True):
    """One NUMA node id over all nodes."""

    numa_node: int
    available_cores: float
    available_bytes: int
    nodes: int


class NodeLine(Struct, frozen=True):
    """One node. What is offered counts only while the state is "offering"; None = not known."""

    name: str
    state: State
    connected: bool
    available_cores: float | None
    available_bytes: int | None
    total_cores: float
    total_bytes: int
    batch_limit_cores: float | None
    mode: str | None
    pods_ls: int
    pods_mid: int
    pods_batch: int
    withdrawn: str
    signals: tuple[str, ...]
    seq: int
    boot_id: str
    heard_unix: float
    agent_version: str
    slowed_pods: int = 0


class Summary(Struct, frozen=True):
    """A ClusterView; `fresh_nodes` includes those that offer nothing."""

    made_unix: float
    available_cores: float
    available_bytes: int
    fresh_nodes: int
    withdrawn_nodes: int
    stale_nodes: int
    zones: tuple[ZoneLine, ...]
    nodes: tuple[NodeLine, ...] = ()


def view_message(view: View, nodes: Iterable[Node], unix: float) -> pb.ClusterView:
    """The sums over all nodes, and these nodes one by one."""
    states = view.states
    message = pb.ClusterView(
        made_at=timestamp(unix),
        available_cores=view.sums.micro_cores / 1e6,
        available_bytes=view.sums.bytes,
        fresh_nodes=states[State.OFFERING] + states[State.WITHDRAWN],
        stale_nodes=states[State.STALE],
        withdrawn_nodes=states[State.WITHDRAWN],
    )
    for numa_node, zone in sorted(view.sums.zones.items()):
        message.zones.add(
            numa_node=numa_node,
            available_cores=zone.micro_cores / 1e6,
            available_bytes=zone.bytes,
            nodes=zone.nodes,
        )
    for node in nodes:
        _add_node(message, node)
    return message


def summary(view: pb.ClusterView) -> Summary:
    """What a ClusterView says."""
    return Summary(
        made_unix=_unix(view.made_at),
        available_cores=view.available_cores,
        available_bytes=view.available_bytes,
        fresh_nodes=view.fresh_nodes,
        withdrawn_nodes=view.withdrawn_nodes,
        stale_nodes=view.stale_nodes,
        zones=tuple(
            ZoneLine(zone.numa_node, zone.available_cores, zone.available_bytes, zone.nodes)
            for zone in view.zones
        ),
        nodes=tuple(map(_node, view.nodes)),
    )


def _add_node(message: pb.ClusterView, node: Node) -> None:
    added = message.nodes.add(
        node_name=node.name, connected=node.source is not None, stale=node.state is State.STALE
    )
    added.status.CopyFrom(node.status)
    if node.heard_unix:
        added.heard_at.CopyFrom(timestamp(node.heard_unix))


def _node(node: pb.NodeView) -> NodeLine:
    status, capacity, pods = node.status, node.status.capacity, node.status.pods
    known = status.HasField("capacity")
    return NodeLine(
        name=node.node_name,
        state=_state(node),
        connected=node.connected,
        available_cores=capacity.cpu.available_cores if known else None,
        available_bytes=capacity.memory.available_bytes if known else None,
        total_cores=status.total_cores,
        total_bytes=status.total_bytes,
        batch_limit_cores=status.batch_limit_cores if status.HasField("batch_limit_cores") else None,
        mode=MODE.get(status.mode),
        pods_ls=pods.ls,
        pods_mid=pods.mid,
        pods_batch=pods.batch,
        withdrawn=capacity.withdrawn,
        signals=tuple(signal.name for signal in status.signals),
        seq=capacity.seq,
        boot_id=capacity.boot_id,
        heard_unix=_unix(node.heard_at),
        agent_version=status.agent_version,
        slowed_pods=status.slowed_pods,
    )


def _state(node: pb.NodeView) -> State:
    if node.stale:
        return State.STALE
    try:
        offer = offer_of(node.status)
    except Garbled:  # of a controller that takes more than this one does
        return State.OFFERING
    return State.WITHDRAWN if offer is None or offer.withdrawn else State.OFFERING


def _unix(stamp: Timestamp) -> float:
    return stamp.seconds + stamp.nanos * 1e-9
