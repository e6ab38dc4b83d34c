"""ListInterference: who is slowed by whom now, and who was lately.

Invariant: an answer fits the message limit; what does not is counted, the oldest first.
"""

from __future__ import annotations

import grpc

from nodeagent.model.interference import Episode
from nodeagent.rpc.board import Board, Calls, Context, invalid, read
from nodeagent.rpc.interference import episode_message, rejection_messages, restraint_message
from nodeagent.rpc.posted import Posted
from nodeagent.rpc.scalars import text, timestamp
from nodeagent.v1 import nodeagent_pb2 as pb

MAX_NAME = 4096  # longest uid: a cgroup's path


def interference_calls(board: Board, max_message_bytes: int) -> Calls:
    """The calls about interference, by method."""

    async def list_interference(request: bytes, context: Context) -> bytes:
        asked = await read(pb.ListInterferenceRequest, request, context)
        if len(asked.victim) > MAX_NAME:
            await invalid(context, "victim", f"takes a uid or a name of at most {MAX_NAME} characters")
        posted = await board.posted(context)
        return _answer(posted, () if asked.open_only else board.cleared, asked.victim, max_message_bytes)

    return {"ListInterference": grpc.unary_unary_rpc_method_handler(list_interference)}


def _answer(posted: Posted, cleared: tuple[Episode, ...], victim: str, max_bytes: int) -> bytes:
    tick, found = posted.tick, posted.tick.decision.interference
    head = pb.ListInterferenceResponse(
        seq=tick.snapshot.seq,
        observed_at=timestamp(tick.snapshot.unix),
        restraints=[restraint_message(each, tick.snapshot.at) for each in found.restraints],
        rejections=rejection_messages(tick),
    )
    if head.ByteSize() > max_bytes // 2:
        del head.rejections[:]
    still = [each for each in found.episodes if each.cleared_unix is None]
    wanted = [each for each in (*still, *cleared) if _is(each, victim)]
    parts, size = [], head.ByteSize() + 8
    for each in wanted:
        part: bytes = pb.ListInterferenceResponse(episodes=[episode_message(each)]).SerializeToString()
        if size + len(part) > max_bytes:
            break
        parts.append(part)
        size += len(part)
    head.left_out = len(wanted) - len(parts)
    return b"".join((*parts, head.SerializeToString()))  # messages may simply be joined


def _is(episode: Episode, victim: str) -> bool:
    return not victim or victim in (text(episode.victim), text(episode.victim_name))
