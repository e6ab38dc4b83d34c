"""The last events, for those who watch them: each at its own pace, and who is too slow misses the oldest.

Invariant: what is of level debug drives nothing else out; a number is given once in a run, in the order in
which things happened.
"""

from __future__ import annotations

import heapq
import secrets
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from itertools import islice

from nodeagent.model.event import Event, Topic, Value
from nodeagent.rpc.scalars import text, timestamp
from nodeagent.v1 import event_pb2, nodeagent_pb2

SIZE = 512  # events, and as many of level debug
TICKS = 64  # posted but not yet taken: the server's thread is that late only when the machine stands still
LONGEST = 500  # characters of a key's value
TOPIC = {
    Topic.SIGNAL: event_pb2.EVENT_TOPIC_SIGNAL,
    Topic.ACTION: event_pb2.EVENT_TOPIC_ACTION,
    Topic.DRIFT: event_pb2.EVENT_TOPIC_DRIFT,
    Topic.POD: event_pb2.EVENT_TOPIC_POD,
    Topic.CAPACITY: event_pb2.EVENT_TOPIC_CAPACITY,
    Topic.INTERFERENCE: event_pb2.EVENT_TOPIC_INTERFERENCE,
}
LEVEL = {
    "debug": event_pb2.EVENT_LEVEL_DEBUG,
    "info": event_pb2.EVENT_LEVEL_INFO,
    "warning": event_pb2.EVENT_LEVEL_WARNING,
    "error": event_pb2.EVENT_LEVEL_ERROR,
}
RANK: dict[int, int] = {level: rank for rank, level in enumerate(LEVEL.values())}


class Kept:
    """One event. `data` is a WatchEventsResponse with it alone, so that these may simply be joined."""

    def __init__(self, number: int, seq: int, unix: float, event: Event) -> None:
        self.number = number
        self.topic = TOPIC[event.topic]
        self.level = LEVEL.get(event.level, event_pb2.EVENT_LEVEL_INFO)
        self.rank = RANK[self.level]
        self._what = (seq, unix, event)

    @cached_property
    def data(self) -> bytes:
        """Made when the first reader wants it."""
        seq, unix, event = self._what
        message = event_pb2.Event(
            number=self.number,
            seq=seq,
            observed_at=timestamp(unix),
            level=self.level,
            topic=self.topic,
            name=text(event.name),
            keys={text(key): text(_told(value)) for key, value in event.keys.items()},
        )
        return nodeagent_pb2.WatchEventsResponse(events=[message]).SerializeToString()


class Lane:
    """The last `SIZE` events of one kind; `count` is how many there have been."""

    def __init__(self) -> None:
        self.count = 0
        self._kept: deque[Kept] = deque(maxlen=SIZE)
        self._gone_to = 0  # the number of the last one that is no longer kept

    def add(self, kept: Kept) -> None:
        """The newest one."""
        if len(self._kept) == SIZE:
            self._gone_to = self._kept[0].number
        self.count += 1
        self._kept.append(kept)

    def lose(self, many: int, last: int) -> None:
        """So many that were never seen here, up to event `last`."""
        self.count += many
        self._gone_to = last
        self._kept.clear()

    def after(self, place: int) -> tuple[Iterable[Kept], int]:
        """Those after the first `place` ones, and how many of these are lost."""
        gone = self.count - len(self._kept)
        return islice(self._kept, max(0, place - gone), None), max(0, gone - place)

    def place(self, number: int) -> int:
        """How many of them came up to event `number`; of those that are gone as few as can be.

        So what a reader misses may be told as more than it is where events of both lanes are gone, never as
        less.
        """
        gone = self.count - len(self._kept)
        later = min(gone, max(0, self._gone_to - number))
        return gone - later + sum(kept.number <= number for kept in self._kept)


class Ring:
    """Numbered events of one run; `post` is for another thread than all else."""

    def __init__(self) -> None:
        self.run_id = secrets.token_hex(8)
        self.last = 0
        self.loud, self.quiet = Lane(), Lane()
        self._posted = 0
        self._inbox: deque[tuple[int, int, float, Sequence[Event]]] = deque(maxlen=TICKS)

    def post(self, seq: int, unix: float, events: Sequence[Event]) -> None:
        """Those of one tick. Waits for nothing."""
        if events:
            self._inbox.append((self._posted + 1, seq, unix, events))
            self._posted += len(events)

    def take(self) -> None:
        """Take in what was posted."""
        while self._inbox:
            first, seq, unix, events = self._inbox.popleft()
            if first > self.last + 1:
                self.loud.lose(first - self.last - 1, first - 1)
            for event in events:
                first, self.last = first + 1, first
                kept = Kept(self.last, seq, unix, event)
                (self.quiet if event.level == "debug" else self.loud).add(kept)


class Reader:
    """One watcher's place in the ring; `topics` empty: all."""

    def __init__(self, ring: Ring, topics: Collection[int], least: int, after: int) -> None:
        lanes = (ring.loud, ring.quiet) if least == event_pb2.EVENT_LEVEL_DEBUG else (ring.loud,)
        self._lanes = {lane: lane.place(after) for lane in lanes}
        self._topics = frozenset(topics)
        self._rank = RANK.get(least, RANK[LEVEL["info"]])

    def read(self, max_bytes: int) -> tuple[list[bytes], int, bool]:
        """Events up to about `max_bytes`, how many were missed before them, and whether there are more."""
        missed, found = 0, []
        for lane, place in self._lanes.items():
            entries, lost = lane.after(place)
            missed += lost
            self._lanes[lane] = place + lost
            found.append([(kept, lane) for kept in entries])
        taken: list[bytes] = []
        size = 0
        for kept, lane in heapq.merge(*found, key=lambda pair: pair[0].number):
            wanted = kept.rank >= self._rank and (not self._topics or kept.topic in self._topics)
            if wanted and taken and size + len(kept.data) > max_bytes:
                return taken, missed, True
            self._lanes[lane] += 1
            if wanted:
                taken.append(kept.data)
                size += len(kept.data)
        return taken, missed, False


def _told(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return (f"{value:.12g}" if isinstance(value, float) else str(value))[:LONGEST]
