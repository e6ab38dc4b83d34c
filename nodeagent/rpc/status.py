"""Tick to NodeStatus: the part of a tick that a controller keeps. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nodeagent.model.capacity import Capacity
from nodeagent.model.decision import Tick
from nodeagent.model.pod import Qos
from nodeagent.model.settings import Mode
from nodeagent.rpc.convert import capacity_message, signal_message
from nodeagent.rpc.directed import WIRE_MODE, status_message
from nodeagent.rpc.scalars import U64, text, whole
from nodeagent.v1 import collector_pb2 as pb
from nodeagent.v1 import directive_pb2


class Who(NamedTuple):
    """What never changes while the agent runs."""

    node_name: str
    version: str


class InForce(NamedTuple):
    """The mode, and the directives that are in force or ended in this tick."""

    mode: Mode
    directives: Sequence[directive_pb2.DirectiveStatus] = ()


def in_force(tick: Tick, configured: Mode) -> InForce:
    """What this tick obeyed; `configured` is the mode without any directive."""
    directives = tuple(map(status_message, tick.snapshot.directives))
    return InForce(tick.decision.mode or configured, directives)


def node_status(tick: Tick, capacity: Capacity, who: Who, obeyed: InForce) -> pb.NodeStatus:
    """`capacity` is the tick's, or what is left of it when it is too old; durations in s at the tick."""
    seen, decision = tick.snapshot, tick.decision
    qos = [pod.spec.qos for pod in seen.pods]
    memory = seen.node.memory
    return pb.NodeStatus(
        node_name=text(who.node_name),
        agent_version=who.version,
        mode=WIRE_MODE[obeyed.mode],
        capacity=capacity_message(capacity),
        total_cores=len(seen.topology.cpus),
        total_bytes=0 if memory is None else whole(memory.total_bytes, 0, U64),
        pods=pb.PodCounts(ls=qos.count(Qos.LS), mid=qos.count(Qos.MID), batch=qos.count(Qos.BATCH)),
        batch_limit_cores=decision.batch_limit_cores,
        signals=[signal_message(signal, seen.at) for signal in decision.signals],
        directives=obeyed.directives,
        slowed_pods=len({e.victim for e in decision.interference.episodes if e.cleared_unix is None}),
    )
