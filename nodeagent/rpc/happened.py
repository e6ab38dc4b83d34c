"""Events from the running agent, for the command that shows them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from nodeagent.model.event import Happened, Heard, Topic
from nodeagent.rpc.channel import Target
from nodeagent.rpc.client import watch_events
from nodeagent.rpc.ring import LEVEL, TOPIC
from nodeagent.v1 import event_pb2
from nodeagent.v1 import nodeagent_pb2 as pb

ALL_KNOWN = "-"  # no run of an agent is called so, so that all that is known comes first
_LEVEL = {number: level for level, number in LEVEL.items()}
_TOPIC = {number: topic for topic, number in TOPIC.items()}


def watched(
    target: Target, topics: Collection[str], *, debug: bool, follow: bool, timeout_s: float
) -> Iterator[Heard]:
    """What the agent there still knows, and with `follow` what comes, as long as it runs.

    Failed or Refused, with what to do, when there is no answer within `timeout_s`.
    """
    request = pb.WatchEventsRequest(
        topics=[TOPIC[Topic(topic)] for topic in topics],
        run_id=ALL_KNOWN,
        least_level=event_pb2.EVENT_LEVEL_DEBUG if debug else event_pb2.EVENT_LEVEL_INFO,
    )
    for message in watch_events(target, request, timeout_s=timeout_s):
        if message.events or message.missed:
            yield Heard(tuple(map(_happened, message.events)), message.missed, message.run_id)
        if message.caught_up and not follow:
            return


def _happened(event: event_pb2.Event) -> Happened:
    return Happened(
        event.number,
        event.seq,
        event.observed_at.ToMicroseconds() / 1e6,
        _LEVEL.get(event.level, ""),
        str(_TOPIC.get(event.topic, "")),
        event.name,
        dict(event.keys),
    )
