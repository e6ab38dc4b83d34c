"""Interference as messages, and back again for the command that shows it."""

from __future__ import annotations

from collections.abc import Mapping

from nodeagent.model.decision import Tick
from nodeagent.model.interference import (
    Action,
    Alarm,
    Episode,
    Gate,
    Rejection,
    Restraint,
    Rung,
    State,
    Suspect,
    Trial,
    TrialResult,
)
from nodeagent.model.interference_told import antagonists, recovered_s, story
from nodeagent.model.symptom import Channel
from nodeagent.rpc.scalars import counter, text, timestamp
from nodeagent.v1 import interference_pb2 as pb
from nodeagent.v1 import nodeagent_pb2

CHANNEL = {
    Channel.CPU: pb.CHANNEL_CPU,
    Channel.LLC: pb.CHANNEL_LLC,
    Channel.MEMORY: pb.CHANNEL_MEMORY,
    Channel.IO: pb.CHANNEL_IO,
    Channel.NET: pb.CHANNEL_NET,
    Channel.APP: pb.CHANNEL_APP,
}
STATE = {
    State.UNKNOWN: pb.INTERFERENCE_STATE_UNKNOWN,
    State.CALM: pb.INTERFERENCE_STATE_CALM,
    State.SUSPECT: pb.INTERFERENCE_STATE_SUSPECT,
    State.CONFIRMED: pb.INTERFERENCE_STATE_CONFIRMED,
}
GATE = {
    Gate.OWN_QUOTA: pb.GATE_OWN_QUOTA,
    Gate.STEAL: pb.GATE_STEAL,
    Gate.OWN_LOAD: pb.GATE_OWN_LOAD,
    Gate.YOUNG: pb.GATE_YOUNG,
    Gate.IDLE: pb.GATE_IDLE,
    Gate.SMALL: pb.GATE_SMALL,
    Gate.HEALTHY: pb.GATE_HEALTHY,
}
RESULT = {
    TrialResult.RUNNING: pb.TRIAL_RESULT_RUNNING,
    TrialResult.KEPT: pb.TRIAL_RESULT_KEPT,
    TrialResult.UNDONE: pb.TRIAL_RESULT_UNDONE,
    TrialResult.CUT_SHORT: pb.TRIAL_RESULT_CUT_SHORT,
}
RUNG = {
    Rung.FREE: pb.RUNG_FREE,
    Rung.IDLE: pb.RUNG_IDLE,
    Rung.QUOTA: pb.RUNG_QUOTA,
    Rung.CPUSET: pb.RUNG_CPUSET,
    Rung.SHRINK: pb.RUNG_SHRINK,
    Rung.FREEZE: pb.RUNG_FREEZE,
    Rung.EVICT: pb.RUNG_EVICT,
}
_CHANNEL = {number: channel for channel, number in CHANNEL.items()}
_GATE = {number: gate for gate, number in GATE.items()}
_STATE = {number: state for state, number in STATE.items()}
_RESULT = {number: result for result, number in RESULT.items()}
_RUNG = {number: rung for rung, number in RUNG.items()}


def add_interference(report: nodeagent_pb2.NodeReport, tick: Tick) -> None:
    """Add what is wrong in this tick, if anything is."""
    found = tick.decision.interference
    message = pb.Interference(
        episodes=map(episode_message, found.episodes),
        restraints=[restraint_message(each, tick.snapshot.at) for each in found.restraints],
        rejections=rejection_messages(tick),
    )
    if message.ByteSize():
        report.interference.CopyFrom(message)


def episode_message(episode: Episode) -> pb.Episode:
    """One victim's trouble, with the line that tells it."""
    return pb.Episode(
        id=text(episode.id),
        victim_uid=text(episode.victim),
        victim_name=text(episode.victim_name),
        victim_cgroup=text(episode.victim_cgroup),
        channel=CHANNEL[episode.channel],
        state=STATE[episode.state],
        opened_at=timestamp(episode.opened_unix),
        cleared_at=None if episode.cleared_unix is None else timestamp(episode.cleared_unix),
        evidence=map(_alarm, episode.evidence),
        suspects=map(_suspect, episode.suspects),
        trials=[_trial(each, episode.opened_at) for each in episode.trials],
        actions=map(_action, episode.actions),
        held=text(episode.held),
        antagonist_uids=map(text, antagonists(episode)),
        recovered_s=recovered_s(episode),
        story=text(story(episode)),
    )


def episode_of(message: pb.Episode) -> Episode:
    """What was sent, trials timed from its opening; KeyError for a value that only a later agent knows."""
    return Episode(
        id=message.id,
        victim=message.victim_uid,
        victim_name=message.victim_name,
        victim_cgroup=message.victim_cgroup,
        channel=_CHANNEL[message.channel],
        state=_STATE[message.state],
        opened_at=0.0,
        opened_unix=message.opened_at.ToMicroseconds() / 1e6,
        cleared_unix=message.cleared_at.ToMicroseconds() / 1e6 if message.HasField("cleared_at") else None,
        evidence=tuple(map(alarm_of, message.evidence)),
        suspects=tuple(map(_suspect_of, message.suspects)),
        trials=tuple(map(_trial_of, message.trials)),
        actions=tuple(map(_action_of, message.actions)),
        held=message.held,
    )


def restraint_message(each: Restraint, now: float) -> pb.Restraint:
    """What a pod is held to; `now` is the monotonic time, in seconds, at which its lease counts from."""
    return pb.Restraint(
        pod_uid=text(each.uid),
        cgroup=text(each.cgroup),
        rung=RUNG[each.rung],
        episode_id=text(each.episode),
        lease_left_s=max(0.0, each.until - now),
        why=text(each.why),
        idle=each.idle,
        quota_cores=each.quota_cores,
        away_from_cpus=text(each.away_from),
        memory_high_bytes=counter(each.memory_high_bytes),
        io_weight_ratio=each.io_weight,
        llc_floor=each.llc_floor,
        frozen=each.frozen,
    )


def restraint_of(message: pb.Restraint) -> Restraint:
    """What was sent, with the lease counted from now; KeyError for a rung that only a later one knows."""
    return Restraint(
        uid=message.pod_uid,
        cgroup=message.cgroup,
        rung=_RUNG[message.rung],
        episode=message.episode_id,
        until=message.lease_left_s,
        why=message.why,
        idle=message.idle,
        quota_cores=message.quota_cores if message.HasField("quota_cores") else None,
        away_from=message.away_from_cpus,
        memory_high_bytes=message.memory_high_bytes if message.HasField("memory_high_bytes") else None,
        io_weight=message.io_weight_ratio if message.HasField("io_weight_ratio") else None,
        llc_floor=message.llc_floor,
        frozen=message.frozen,
    )


def rejection_messages(tick: Tick) -> list[pb.Rejection]:
    """The alarms of this tick that were stopped, with the names of their pods."""
    names = {pod.spec.uid: pod.spec.name for pod in tick.snapshot.pods}
    return [_rejection(v.uid, names, r) for v in tick.decision.interference.verdicts for r in v.rejections]


def gate_of(number: pb.Gate) -> Gate:
    """What was sent; KeyError for a gate that only a later agent knows."""
    return _GATE[number]


def _rejection(uid: str, names: Mapping[str, str], each: Rejection) -> pb.Rejection:
    return pb.Rejection(
        pod_uid=text(uid),
        pod_name=text(names.get(uid, uid)),
        alarm=_alarm(each.alarm),
        gate=GATE[each.gate],
        why=text(each.why),
    )


def _alarm(each: Alarm) -> pb.Alarm:
    return pb.Alarm(
        sign=text(each.sign),
        channel=CHANNEL[each.channel],
        value=each.value,
        baseline=each.baseline,
        z=each.z,
        cusum=each.cusum,
    )


def alarm_of(each: pb.Alarm) -> Alarm:
    """What was sent."""
    baseline = each.baseline if each.HasField("baseline") else None
    return Alarm(each.sign, _CHANNEL[each.channel], each.value, baseline, each.z, each.cusum)


def _suspect(each: Suspect) -> pb.Suspect:
    return pb.Suspect(
        uid=text(each.uid),
        name=text(each.name),
        cgroup=text(each.cgroup),
        scores=each.scores,
        p_value=each.p_value,
        share_ratio=each.share,
        contribution_ratio=each.contribution,
        named=each.named,
    )


def _suspect_of(each: pb.Suspect) -> Suspect:
    return Suspect(
        each.uid,
        each.name,
        each.cgroup,
        dict(each.scores),
        each.p_value if each.HasField("p_value") else None,
        each.share_ratio,
        each.contribution_ratio,
        each.named,
    )


def _trial(each: Trial, opened_at: float) -> pb.Trial:
    return pb.Trial(
        suspect_uid=text(each.uid),
        began_s=each.began - opened_at,
        until_s=each.until - opened_at,
        before=each.before,
        during=each.during,
        result=RESULT[each.result],
        sign=text(each.sign),
    )


def _trial_of(each: pb.Trial) -> Trial:
    during = each.during if each.HasField("during") else None
    result = _RESULT[each.result]
    return Trial(each.suspect_uid, each.began_s, each.until_s, each.before, during, result, each.sign)


def _action(each: Action) -> pb.Action:
    return pb.Action(
        at=timestamp(each.unix), pod_uid=text(each.uid), rung=RUNG[each.rung], why=text(each.why)
    )


def _action_of(each: pb.Action) -> Action:
    return Action(each.at.ToMicroseconds() / 1e6, each.pod_uid, _RUNG[each.rung], each.why)
