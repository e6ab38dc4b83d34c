"""A victim's trouble opens, is told, and clears; what flaps within some seconds is one trouble.

Invariant: an unknown verdict neither opens nor clears; an episode is cleared once, and told so once.
"""

from __future__ import annotations

import zlib

from msgspec.structs import replace

from nodeagent.core import waits
from nodeagent.core.interference.facts import Facts
from nodeagent.model.course import Case, Sample
from nodeagent.model.interference import (
    Action,
    Alarm,
    Episode,
    Gate,
    Rung,
    State,
    Suspect,
    Trial,
    TrialResult,
    Verdict,
)
from nodeagent.model.symptom import Channel

CLEAR_S = 5.0  # calm for so long: over
SAMPLES_S = 60.0  # most that is kept of a victim's signs
SAMPLE_S = 0.25  # between two: ticks that come early count once
MOST_SAMPLES = 64
MOST_OPEN = 16
MOST_ACTIONS, MOST_TRIALS, MOST_EVIDENCE = 64, 16, 8
HARD_FACTOR, HARD_MOST = 2.0, 0.9  # of the wait that an LS pod may have at most


def seen(case: Case, facts: Facts) -> Case:
    """The case after this tick's verdict and values."""
    state, now = facts.state(case.uid), facts.at
    calm = state is State.CALM or _healthy(facts.verdicts.get(case.uid))
    confirmed = state is State.CONFIRMED
    blind = state is State.UNKNOWN
    return replace(
        case,
        samples=_sampled(case, facts),
        bad_at=now if confirmed else case.bad_at,
        calm_since=_since(case.calm_since, now, calm),
        blind_since=_since(case.blind_since, now, blind),
        hard_since=_hard_since(case, facts),
    )


def opened(case: Case, facts: Facts) -> Case:
    """With an episode, where the victim is confirmed and has none; else with what is worse now."""
    verdict = facts.verdicts.get(case.uid)
    if verdict is None:
        return case
    if case.episode is not None:
        return replace(case, episode=_updated(case.episode, verdict))
    spec = facts.spec(case.uid, case.inode)
    if spec is None or verdict.state is not State.CONFIRMED:
        return case
    episode = Episode(
        id=_id(facts, case.uid),
        victim=case.uid,
        victim_name=spec.name,
        victim_cgroup=spec.cgroup,
        channel=verdict.channel or Channel.APP,
        state=verdict.state,
        opened_at=facts.at,
        opened_unix=facts.unix,
        evidence=_worst((), verdict.alarms),
    )
    return replace(case, episode=episode, last_id=episode.id, ranked_at=None)


def is_over(case: Case, facts: Facts) -> bool:
    """True when the victim has been calm for long enough and nothing is being tried."""
    calm_since = case.calm_since
    return case.probe is None and calm_since is not None and facts.at - calm_since >= CLEAR_S


def cleared(case: Case, facts: Facts) -> Episode | None:
    """The episode as it is told for the last time: over since the calm began, or since the victim is gone."""
    if case.episode is None:
        return None
    calm_s = facts.at - case.calm_since if case.calm_since is not None else 0.0
    ended = replace(case.episode, state=State.CALM, held="", cleared_unix=facts.unix - calm_s)
    return changed(ended)


def changed(episode: Episode) -> Episode:
    """Something is to be told of it."""
    return replace(episode, changed=episode.changed + 1)


def ranked(episode: Episode, suspects: tuple[Suspect, ...]) -> Episode:
    """With a new ranking; told when others are named than before."""
    after = replace(episode, suspects=suspects)
    return after if _named(episode.suspects) == _named(suspects) else changed(after)


def acted(episode: Episode, facts: Facts, uid: str, rung: Rung, why: str) -> Episode:
    """With one step more."""
    action = Action(facts.unix, uid, rung, why)
    return changed(replace(episode, actions=(*episode.actions, action)[-MOST_ACTIONS:]))


def tried(episode: Episode, trial: Trial) -> Episode:
    """With a trial that begins, or in place of the same trial as it was."""
    others = tuple(t for t in episode.trials if (t.uid, t.began) != (trial.uid, trial.began))
    after = replace(episode, trials=(*others, trial)[-MOST_TRIALS:])
    return after if trial.result is TrialResult.RUNNING else changed(after)


def held_because(episode: Episode, why: str) -> Episode:
    """With the reason why nothing more is done."""
    return episode if episode.held == why else changed(replace(episode, held=why))


def _updated(episode: Episode, verdict: Verdict) -> Episode:
    """The state as it is now, the evidence at its worst, the channel of the last confirmation."""
    worst = _worst(episode.evidence, verdict.alarms)
    after = replace(episode, state=verdict.state, evidence=worst)
    if verdict.state is not State.CONFIRMED or verdict.channel in (None, episode.channel):
        return after
    return changed(replace(after, channel=verdict.channel))


def _worst(known: tuple[Alarm, ...], now: tuple[Alarm, ...]) -> tuple[Alarm, ...]:
    worst = {a.sign: a for a in known}
    for alarm in now:
        last = worst.get(alarm.sign)
        if last is None or (alarm.z, alarm.cusum, alarm.value) > (last.z, last.cusum, last.value):
            worst[alarm.sign] = alarm
    return tuple(sorted(worst.values(), key=lambda a: (-a.z, -a.cusum, a.sign))[:MOST_EVIDENCE])


def _named(suspects: tuple[Suspect, ...]) -> frozenset[str]:
    return frozenset(s.uid for s in suspects if s.named)


def _id(facts: Facts, uid: str) -> str:
    """Of boot, time and victim: no other trouble has it, and a replay gives the same."""
    boot = facts.view.snapshot.boot_id.replace("-", "")[:8] or "boot"
    return f"{boot}-{int(facts.at * 1000):x}-{zlib.crc32(uid.encode()):08x}"


def _healthy(verdict: Verdict | None) -> bool:
    """The application tells that it is well, whatever it waits."""
    return verdict is not None and any(r.gate is Gate.HEALTHY for r in verdict.rejections)


def _since(before: float | None, now: float, true: bool) -> float | None:
    if not true:
        return None
    return now if before is None else before


def _sampled(case: Case, facts: Facts) -> tuple[Sample, ...]:
    values = facts.values(case.uid)
    if not values or facts.state(case.uid) is State.UNKNOWN:
        return case.samples
    if case.samples and facts.at - case.samples[-1].at < SAMPLE_S:
        return case.samples
    now = Sample(facts.at, {sign.value: x for sign, x in values.items()}, facts.limit_cores)
    kept = (s for s in (*case.samples, now) if facts.at - s.at <= SAMPLES_S)
    return tuple(kept)[-MOST_SAMPLES:]


def _hard_since(case: Case, facts: Facts) -> float | None:
    """While its wait is not known, what was last known of it counts."""
    rates = facts.pods.get(case.uid)
    waited = None if rates is None else waits.waited(rates)[0]
    if waited is None:
        return case.hard_since
    most = min(HARD_MOST, HARD_FACTOR * facts.policy.pressure.ls_cpu_stall_ratio)
    return _since(case.hard_since, facts.at, waited > most)
