"""Watchers that stay, and count: what they were told, what they were told to have missed, and the rest."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import grpc

from nodeagent.v1 import event_pb2
from nodeagent.v1 import nodeagent_pb2 as pb
from nodeagent.v1.nodeagent_pb2_grpc import NodeAgentStub
from tests.bench.endurance_seen import untold
from tests.bench.soak_clients import OWN

AGAIN_S = 0.5
ALL = pb.WatchEventsRequest(least_level=event_pb2.EVENT_LEVEL_DEBUG, run_id="another")  # what is known, too


class Watcher:
    """Of a stream that is never to end; `cut` counts its ends, `silence_s` is the longest without a word."""

    def __init__(self, address: str) -> None:
        self.messages = self.cut = 0
        self.silence_s = 0.0
        self._address = address

    async def watch(self) -> None:
        """Until it is cancelled."""
        while True:
            heard = time.monotonic()
            try:
                async with grpc.aio.insecure_channel(self._address, options=OWN) as channel:
                    async for message in self._stream(NodeAgentStub(channel)):
                        now = time.monotonic()
                        self.silence_s, heard = max(self.silence_s, now - heard), now
                        self.messages += 1
                        self._take(message)
                why = "the server ended it"
            except grpc.RpcError as error:
                why = str(error)
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise asyncio.CancelledError  # we ended it
            print(f"a stream was cut: {why}", file=sys.stderr)
            self.cut += 1
            await asyncio.sleep(AGAIN_S)

    def _stream(self, stub: Any) -> Any:
        raise NotImplementedError

    def _take(self, message: Any) -> None:
        raise NotImplementedError


class EventWatcher(Watcher):
    """All events; `appeared` are cgroups, `vanished` the names of pods."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.appeared: set[str] = set()
        self.vanished: set[str] = set()
        self.received = self.missed = self.unordered = 0
        self._first = self._last = 0

    @property
    def untold(self) -> int:
        """Events that it neither got nor was told to have missed."""
        return untold(self._first, self._last, self.received, self.missed)

    def _stream(self, stub: Any) -> Any:
        return stub.WatchEvents(ALL)

    def _take(self, message: Any) -> None:
        if self._first:  # before, it is what was known no more when it came
            self.missed += message.missed
        for event in message.events:
            self._first = self._first or event.number
            self.unordered += event.number <= self._last
            self._last = max(self._last, event.number)
            self.received += 1
            if event.name == "pod.appeared":
                self.appeared.add(event.keys["cgroup"])
            elif event.name == "pod.vanished":
                self.vanished.add(event.keys["pod"])


class CapacityWatcher(Watcher):
    """The offer of the ticks, of which a slow reader gets the latest: `back` counts those that were older."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.back = 0
        self.last = -1

    def _stream(self, stub: Any) -> Any:
        return stub.WatchCapacity(pb.WatchCapacityRequest())

    def _take(self, message: Any) -> None:
        self.back += message.capacity.seq < self.last
        self.last = message.capacity.seq
