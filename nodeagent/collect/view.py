"""What all nodes offer together, kept by difference: O(1) a report, O(log n) an expiry. Pure: time comes in.

Invariant: `sums` are those over the nodes whose state is OFFERING, at every moment; in integers, so that
nothing drifts. `at` is monotonic seconds, `unix` seconds since the epoch, both by the controller's clock.
"""

from __future__ import annotations

import enum
import heapq
from collections import Counter
from itertools import count
from typing import NamedTuple, Protocol

from nodeagent.v1 import collector_pb2 as pb
from nodeagent.v1 import directive_pb2 as directive_pb

FORGET_S = 600.0  # a node that is stale and not connected for so long was taken out of the cluster


class State(enum.StrEnum):
    OFFERING = "offering"
    WITHDRAWN = "withdrawn"
    STALE = "stale"


class Zone(NamedTuple):
    numa_node: int
    micro_cores: int
    bytes: int


class Offer(NamedTuple):
    """A node's capacity as it counts. `observed_unix` and `valid_until_unix` are by the node's clock."""

    seq: int
    boot_id: str
    observed_unix: float
    valid_until_unix: float
    micro_cores: int
    bytes: int
    zones: tuple[Zone, ...]
    withdrawn: bool


class Source(Protocol):
    """What tells of a node: a stream, or an agent that is asked."""

    peer: str

    def replaced(self, by: str) -> None:
        """Another source tells of the same node from now on."""

    async def direct(self, directive: directive_pb.Directive, timeout_s: float) -> pb.DirectiveResult:
        """Hand the node a directive and wait for what became of it; TimeoutError, Gone."""


class ZoneTotal(NamedTuple):
    micro_cores: int = 0
    bytes: int = 0
    nodes: int = 0


class Sums:
    """Exact totals of what is offered."""

    def __init__(self) -> None:
        self.micro_cores = 0
        self.bytes = 0
        self.zones: dict[int, ZoneTotal] = {}

    def add(self, offer: Offer, sign: int) -> None:
        """Count an offer (+1), or count it no more (-1)."""
        self.micro_cores += sign * offer.micro_cores
        self.bytes += sign * offer.bytes
        for numa_node, micro_cores, size in offer.zones:
            cores, total, nodes = self.zones.get(numa_node, ZoneTotal())
            if nodes + sign == 0:
                del self.zones[numa_node]
            else:
                self.zones[numa_node] = ZoneTotal(
                    cores + sign * micro_cores, total + sign * size, nodes + sign
                )


class Node:
    """One node, as it was told last."""

    __slots__ = ("due", "expires_at", "heard_at", "heard_unix", "name", "offer", "source", "state", "status")

    def __init__(self, name: str, source: Source) -> None:
        self.name = name
        self.source: Source | None = source  # None: not connected
        self.state = State.STALE
        self.status = pb.NodeStatus(node_name=name)
        self.offer: Offer | None = None
        self.expires_at = 0.0
        self.heard_at = 0.0
        self.heard_unix = 0.0
        self.due = 0.0


class View:
    """All nodes by name, and their sums. A node whose validity is over counts for nothing until told anew.

    `clock_skew_s` is by how much the nodes' clocks may be behind.
    """

    def __init__(self, *, max_nodes: int, clock_skew_s: float = 2.0) -> None:
        self.nodes: dict[str, Node] = {}
        self.sums = Sums()
        self.states: Counter[State] = Counter()
        self.version = 0  # another one: something that is shown differs
        self._max_nodes = max_nodes
        self._skew_s = clock_skew_s
        self._due: list[tuple[float, int, Node]] = []
        self._serial = count()

    def join(self, name: str, source: Source, at: float) -> Source | None:
        """From now on `source` tells of the node; the one that did so far. OverflowError when full."""
        node = self.nodes.get(name)
        if node is None:
            self._make_room()
            node = self.nodes[name] = Node(name, source)
            node.heard_at = at
            self.states[State.STALE] += 1
            self._look_at(node, at + FORGET_S)
        before, node.source = node.source, source
        self.version += 1
        return None if before is source else before

    def leave(self, name: str, source: Source) -> None:
        """The source is gone; what it told holds until it expires. Nothing when it was replaced."""
        node = self.nodes.get(name)
        if node is not None and node.source is source:
            node.source = None
            self.version += 1

    def tell(self, name: str, status: pb.NodeStatus, offer: Offer | None, at: float, unix: float) -> None:
        """What the node's source says now; without a capacity `offer` is None. KeyError before join()."""
        node = self.nodes[name]
        expires_at = self._expiry(node, offer, at, unix)
        state = State.STALE if expires_at <= at else _state(offer)
        if state is not node.state or offer != node.offer:
            self._count(node, state, offer)
        node.status, node.heard_at, node.heard_unix, node.expires_at = status, at, unix, expires_at
        if state is not State.STALE and expires_at < node.due:
            self._look_at(node, expires_at)
        self.version += 1

    def expire(self, at: float) -> list[Node]:
        """Take out what is not valid any more; the nodes that have turned stale by it."""
        turned = []
        while self._due and self._due[0][0] <= at:
            due, _, node = heapq.heappop(self._due)
            if due != node.due or self.nodes.get(node.name) is not node:
                continue  # it is looked at another time
            if node.state is not State.STALE and node.expires_at <= at:
                self._count(node, State.STALE, node.offer)
                self.version += 1
                turned.append(node)
            if node.state is not State.STALE:
                self._look_at(node, node.expires_at)
            elif node.source is None and node.heard_at + FORGET_S <= at:
                self._forget(node)
            else:
                forget_at = node.heard_at + FORGET_S
                self._look_at(node, forget_at if forget_at > at else at + FORGET_S)
        return turned

    def next_due(self) -> float | None:
        """When expire() has something to do, at the earliest."""
        return self._due[0][0] if self._due else None

    def _expiry(self, node: Node, offer: Offer | None, at: float, unix: float) -> float:
        """By the node's clock, if that is not ahead; never longer from now on than the node itself allows."""
        if offer is None:
            return at
        span_s = offer.valid_until_unix - offer.observed_unix
        expires_at = at + min(span_s, offer.valid_until_unix + self._skew_s - unix)
        if node.offer is not None and node.offer[:3] == offer[:3]:
            return min(expires_at, node.expires_at)  # the same tick told once more is no newer
        return expires_at

    def _count(self, node: Node, state: State, offer: Offer | None) -> None:
        if node.state is State.OFFERING and node.offer is not None:
            self.sums.add(node.offer, -1)
        if state is State.OFFERING and offer is not None:
            self.sums.add(offer, 1)
        self.states[node.state] -= 1
        self.states[state] += 1
        node.state, node.offer = state, offer

    def _look_at(self, node: Node, due: float) -> None:
        node.due = due
        heapq.heappush(self._due, (due, next(self._serial), node))

    def _make_room(self) -> None:
        if len(self.nodes) < self._max_nodes:
            return
        for node in self.nodes.values():
            if node.source is None and node.state is State.STALE:
                self._forget(node)
                return
        raise OverflowError(f"{self._max_nodes} nodes are known already")

    def _forget(self, node: Node) -> None:
        del self.nodes[node.name]
        self.states[State.STALE] -= 1
        self.version += 1


def _state(offer: Offer | None) -> State:
    if offer is None:
        return State.STALE
    return State.WITHDRAWN if offer.withdrawn else State.OFFERING
