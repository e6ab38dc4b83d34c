"""One finished tick on the board: bytes made on first demand; an offer that is too old reads as withdrawn.

Invariant: whatever the number of clients, a tick costs at most two reports, two capacities and one message of
each pod to serialise, and for explanations it is thought once more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from math import inf
from typing import NamedTuple

from msgspec.structs import replace

from nodeagent.model.capacity import Amount, Capacity
from nodeagent.model.decision import Memory, Tick
from nodeagent.model.explanation import Account, Explanation, PodUse, Reason
from nodeagent.model.nic_told import Way, told, ways
from nodeagent.model.placement import Place, places
from nodeagent.model.policy import Policy
from nodeagent.rpc.convert import capacity_message, report_message
from nodeagent.v1 import nodeagent_pb2 as pb

NOISE_RATIO = 0.01
NOISE_CORES = 0.01
NOISE_BYTES = 16 << 20


Accountant = Callable[[Tick, Policy, Memory], Account]


class Offer(NamedTuple):
    """A capacity and the GetCapacityResponse that carries it."""

    capacity: Capacity
    data: bytes


class Posted:
    """A tick as it is served. Read by the server's thread alone; `now` is monotonic seconds throughout."""

    def __init__(self, tick: Tick, now: float, account: Callable[[], Account] | None = None) -> None:
        capacity = tick.decision.capacity
        self.tick = tick
        self.valid_s = max(0.0, capacity.valid_until_unix - capacity.observed_unix)
        self.expires_at = now + self.valid_s
        self.serialised = 0
        self._offer: Offer | None = None
        self._withdrawn: Offer | None = None
        self._reports: dict[bool, bytes] = {}  # of the stale tick another one
        self._make_account = account
        self.statuses: dict[str, bytes] = {}  # by uid, as far as they were asked for

    @cached_property
    def account(self) -> Account | None:
        """What the tick tells when it is asked; None where nobody can explain it."""
        return None if self._make_account is None else self._make_account()

    @cached_property
    def capacity_explained(self) -> Explanation | None:
        """The same for all who ask."""
        return None if self.account is None else self.account.capacity()

    @cached_property
    def uses(self) -> dict[str, PodUse]:
        """What each pod used, by uid."""
        return {} if self.account is None else self.account.uses()

    @cached_property
    def places(self) -> dict[str, Place]:
        """Where each pod shall run, by uid; empty while pods are not placed."""
        found, specs = self.tick.decision.placement, [pod.spec for pod in self.tick.snapshot.pods]
        return {} if found is None else places(specs, found, self.tick.decision.plan)

    @cached_property
    def ways(self) -> Mapping[str, tuple[Way, str]]:
        """By what each pod's packets are told, by uid; empty while no traffic is shaped."""
        return {} if told(self.tick) is None else ways(self.tick)

    def stale(self, now: float) -> Reason | None:
        """Why nothing is offered any more, when no newer tick came in time."""
        if now < self.expires_at:
            return None
        return Reason(
            name="stale",
            rule="0 after valid_until",
            arithmetic="0",
            result="nothing is offered any more",
            by="rpc",
            why=f"the agent's loop has not finished a tick for {now - self.expires_at + self.valid_s:.1f} s",
        )

    def capacity(self, now: float) -> Capacity:
        """The one of `offer`."""
        capacity = self.tick.decision.capacity
        return withdraw(capacity) if now >= self.expires_at else capacity

    def offer(self, now: float) -> Offer:
        """The capacity, or a withdrawn one when no newer tick came while it was valid."""
        if now >= self.expires_at:
            self._withdrawn = self._withdrawn or self._made(withdraw(self.tick.decision.capacity))
            return self._withdrawn
        self._offer = self._offer or self._made(self.tick.decision.capacity)
        return self._offer

    def report(self, hostname: str, version: str, now: float = -inf) -> bytes:
        """The GetNodeReportResponse, with the capacity of `offer`."""
        stale = now >= self.expires_at
        if stale not in self._reports:
            message = pb.GetNodeReportResponse(report=report_message(self.tick, hostname, version))
            message.report.capacity.CopyFrom(capacity_message(self.capacity(now)))
            self._reports[stale] = message.SerializeToString()
            self.serialised += 1
        return self._reports[stale]

    def _made(self, capacity: Capacity) -> Offer:
        self.serialised += 1
        message = pb.GetCapacityResponse(capacity=capacity_message(capacity))
        return Offer(capacity, message.SerializeToString())


def withdraw(capacity: Capacity) -> Capacity:
    """The same with nothing available: what is left of an offer that the loop has not renewed in time."""
    return replace(
        capacity,
        cpu=replace(capacity.cpu, available=0.0),
        memory=replace(capacity.memory, available=0.0),
        zones=tuple(
            replace(zone, cpu=replace(zone.cpu, available=0.0), memory=replace(zone.memory, available=0.0))
            for zone in capacity.zones
        ),
        confidence=0.0,
        withdrawn=capacity.withdrawn or "stale: the agent's loop has not finished a tick in time",
    )


def differs(old: Capacity, new: Capacity) -> bool:
    """True when a watcher must hear of it: the rule that UPDATE_REASON_CHANGE in the .proto states."""
    if old.withdrawn != new.withdrawn or len(old.zones) != len(new.zones):
        return True
    if _moved(old.cpu, new.cpu, NOISE_CORES) or _moved(old.memory, new.memory, NOISE_BYTES):
        return True
    return any(
        a.numa_node != b.numa_node
        or _moved(a.cpu, b.cpu, NOISE_CORES)
        or _moved(a.memory, b.memory, NOISE_BYTES)
        for a, b in zip(old.zones, new.zones, strict=True)
    )


def _moved(old: Amount, new: Amount, noise: float) -> bool:
    a, b = old.available, new.available
    if (a == 0.0) != (b == 0.0):
        return True
    return abs(a - b) > max(noise, NOISE_RATIO * max(a, b))
