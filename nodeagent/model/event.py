"""An event: a name and its keys, as it goes to the log, to the screen and to those who watch."""

from __future__ import annotations

import enum
from typing import NamedTuple

from msgspec import Struct

Value = str | int | float | bool


class Topic(enum.StrEnum):
    SIGNAL = "signal"
    ACTION = "action"
    DRIFT = "drift"
    POD = "pod"
    CAPACITY = "capacity"
    INTERFERENCE = "interference"


# By the name, else by its first word; what begins and ends without being here is a signal.
TOPICS = {
    "pod.appeared": Topic.POD,
    "pod.vanished": Topic.POD,
    "pod.known": Topic.POD,
    "pod": Topic.ACTION,
    "pods": Topic.POD,
    "knob.drift": Topic.DRIFT,
    "knob": Topic.ACTION,
    "batch": Topic.ACTION,
    "burst": Topic.ACTION,
    "cpus": Topic.ACTION,
    "nic": Topic.ACTION,
    "pages": Topic.ACTION,
    "offer": Topic.CAPACITY,
    "directive": Topic.CAPACITY,
    "mode": Topic.CAPACITY,
    "owners": Topic.SIGNAL,
    "interference": Topic.INTERFERENCE,
}


class Event(NamedTuple):
    """`level` is "debug", "info", "warning" or "error"."""

    level: str
    name: str
    keys: dict[str, Value]

    @property
    def topic(self) -> Topic:
        """What it is about."""
        return TOPICS.get(self.name) or TOPICS.get(self.name.partition(".")[0], Topic.SIGNAL)


class Happened(Struct, frozen=True, gc=False):
    """An event as a watcher is told: `number` counts within one run of the agent, `unix` is its tick's."""

    number: int
    seq: int
    unix: float
    level: str
    topic: str
    name: str
    keys: dict[str, str]


class Heard(Struct, frozen=True, gc=False):
    """One message to a watcher: what happened, and how many events before that are lost to it."""

    events: tuple[Happened, ...]
    missed: int
    run_id: str
