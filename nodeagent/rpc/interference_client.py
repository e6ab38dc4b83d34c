"""ListInterference, asked by a command."""

from __future__ import annotations

from nodeagent.model.errors import Failed
from nodeagent.model.interference import Rejection
from nodeagent.model.interference_told import Listed
from nodeagent.rpc.channel import Target
from nodeagent.rpc.client import asking
from nodeagent.rpc.interference import alarm_of, episode_of, gate_of, restraint_of
from nodeagent.v1 import interference_pb2
from nodeagent.v1 import nodeagent_pb2 as pb


def listed(target: Target, victim: str, *, open_only: bool, timeout_s: float) -> Listed:
    """Who is slowed by whom at the agent there, and was lately; of `victim` (uid or name), "": of all.

    Failed or Refused, with what to do, when there is no answer within `timeout_s`.
    """
    request = pb.ListInterferenceRequest(open_only=open_only, victim=victim)
    with asking(target, timeout_s) as agent:
        answer = agent.ListInterference(request, timeout=timeout_s)
    try:
        return Listed(
            seq=answer.seq,
            observed_unix=answer.observed_at.ToMicroseconds() / 1e6,
            episodes=tuple(map(episode_of, answer.episodes)),
            restraints=tuple(map(restraint_of, answer.restraints)),
            rejections=tuple(map(_rejection, answer.rejections)),
            left_out=answer.left_out,
        )
    except KeyError:
        raise Failed("the agent is newer than this command", hint="use the agent's own nodeagent") from None


def _rejection(each: interference_pb2.Rejection) -> tuple[str, Rejection]:
    return each.pod_name, Rejection(alarm_of(each.alarm), gate_of(each.gate), each.why)
