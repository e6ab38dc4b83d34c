"""WatchEvents: what happens, to each reader at its own pace.

Invariant: one message in flight per reader; who is too slow misses the oldest, and is told how many.
"""

from __future__ import annotations

import time

import grpc

from nodeagent.rpc.board import Board, Calls, Context, first, invalid, read
from nodeagent.rpc.ring import Reader
from nodeagent.v1 import event_pb2
from nodeagent.v1 import nodeagent_pb2 as pb

MAX_BYTES = 256 << 10  # of a message, about
MAX_RUN_ID = 64
MAX_TOPICS = 64


def event_calls(board: Board, max_message_bytes: int, heartbeat_s: float) -> Calls:
    """The calls about events, by method."""

    async def watch_events(request: bytes, context: Context) -> None:
        asked = await read(pb.WatchEventsRequest, request, context)
        await board.posted(context)
        board.events.take()
        after = await _after(board, asked, context)
        async with board.watching(context):
            reader = Reader(board.events, asked.topics, asked.least_level, after)
            await _watch(board, reader, context, min(MAX_BYTES, max_message_bytes // 4), heartbeat_s)

    return {"WatchEvents": grpc.unary_stream_rpc_method_handler(watch_events)}


async def _watch(board: Board, reader: Reader, context: Context, max_bytes: int, heartbeat_s: float) -> None:
    """A message at once, so that a reader knows the run; then events as they come, and a heartbeat."""
    due = 0.0
    while not board.stopping:
        news = board.news  # taken before the ring is read: what is posted from here on sets it
        events, missed, more = reader.read(max_bytes)
        if events or missed or time.monotonic() >= due:
            head = pb.WatchEventsResponse(missed=missed, run_id=board.events.run_id, caught_up=not more)
            await context.write(b"".join((*events, head.SerializeToString())))
            due = time.monotonic() + heartbeat_s
        if not more:
            await first(news, max(0.0, due - time.monotonic()))


async def _after(board: Board, asked: pb.WatchEventsRequest, context: Context) -> int:
    """The number after which it begins."""
    if len(asked.topics) > MAX_TOPICS:
        await invalid(context, "topics", f"{len(asked.topics)} of them; there are not so many")
    for topic in asked.topics:
        if topic not in event_pb2.EventTopic.values() or topic == event_pb2.EVENT_TOPIC_UNSPECIFIED:
            await invalid(context, "topics", f"{topic} is no topic")
    if asked.least_level not in event_pb2.EventLevel.values():
        await invalid(context, "least_level", f"{asked.least_level} is no level")
    if len(asked.run_id) > MAX_RUN_ID:
        await invalid(context, "run_id", f"has more than {MAX_RUN_ID} characters")
    if not asked.after_number and not asked.run_id:
        return board.events.last
    if asked.run_id == board.events.run_id and asked.after_number > board.events.last:
        told = f"{asked.after_number} is not yet there, the latest is {board.events.last}"
        await invalid(context, "after_number", told)
    same = asked.run_id in ("", board.events.run_id) and asked.after_number <= board.events.last
    return int(asked.after_number) if same else 0
