"""When a node's extended resources are told to Kubernetes anew, and the patch of its status that tells them.

Invariant: what is told is never more than what is offered; what is not valid any more is told as 0, at once.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from math import floor

from msgspec import Struct

from nodeagent.model.capacity import Capacity
from nodeagent.model.publish import PublishSettings

VALID_UNTIL = "nodeagent.io/valid-until"
LEAST_GAP_S = 10.0  # between two patches that raise: the offer creeps up, and an API server has many nodes

Patch = dict[str, object]


class Told(Struct, frozen=True, gc=False):
    """What the API server has taken, at `at` (monotonic seconds): milli-cores and bytes, whole numbers."""

    at: float
    milli_cores: int
    bytes: int


def amounts(capacity: Capacity | None, unix: float, at: float) -> Told:
    """The offer as whole quantities, rounded down; 0 without one, or when its time was over at `unix`."""
    if capacity is None or capacity.withdrawn or unix > capacity.valid_until_unix:
        return Told(at, 0, 0)
    cores, memory = max(0.0, capacity.cpu.available), max(0.0, capacity.memory.available)
    return Told(at, floor(cores * 1000), floor(memory))


def due(last: Told | None, now: Told, settings: PublishSettings) -> bool:
    """True when `now` is to be told after `last` (None: nothing was told yet)."""
    if last is None:
        return True
    waited_s = now.at - last.at
    if waited_s >= settings.every_s:
        return True
    if withdrawn(last, now):
        return True
    pairs = ((last.milli_cores, now.milli_cores), (last.bytes, now.bytes))
    if any(old - new > settings.change_ratio * old for old, new in pairs):
        return True
    return waited_s >= LEAST_GAP_S and any(new - old > settings.change_ratio * old for old, new in pairs)


def withdrawn(before: Told, now: Told) -> bool:
    """True when nothing is left of what there was of one of them."""
    return now.milli_cores == 0 < before.milli_cores or now.bytes == 0 < before.bytes


def patch(told: Told, unix: float, settings: PublishSettings) -> Patch:
    """A merge patch (RFC 7386) of nodes/status: quantities, and until when they hold without a newer patch.

    The kubelet derives allocatable from capacity, some seconds later; so both are told.
    """
    quantities = {
        settings.cpu_name: str(told.milli_cores),
        settings.memory_name: str(told.bytes),
    }
    until = datetime.datetime.fromtimestamp(unix + 2 * settings.every_s, datetime.UTC)
    return _patch(quantities, until.strftime("%Y-%m-%dT%H:%M:%SZ"))


def removal(settings: PublishSettings) -> Patch:
    """The merge patch that takes both resources and the annotation away."""
    return _patch({settings.cpu_name: None, settings.memory_name: None}, None)


def _patch(quantities: Mapping[str, str | None], until: str | None) -> Patch:
    return {
        "metadata": {"annotations": {VALID_UNTIL: until}},
        "status": {"capacity": {**quantities}, "allocatable": {**quantities}},
    }
