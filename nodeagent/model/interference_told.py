"""Interference in words: what a sign says, who was behind it, what was done, and the whole of it in one line.

One wording for log, screen, gRPC and explanations, so that no two of them disagree. Invariant: nobody is
called the cause before a trial has shown it; until then it is "probably", and who was acquitted is not named.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo

from msgspec import Struct

from nodeagent.model.interference import (
    Action,
    Alarm,
    Episode,
    Rejection,
    Restraint,
    Rung,
    State,
    Suspect,
    TrialResult,
)
from nodeagent.model.symptom import Channel, Sign
from nodeagent.model.units import format_bytes

SHARES = frozenset(
    {
        Sign.CPU_STALL, Sign.RUN_DELAY, Sign.THROTTLED, Sign.STEAL, Sign.SOFTIRQ, Sign.MEMORY_STALL,
        Sign.IO_STALL, Sign.RETRANSMITS,
    }
)  # fmt: skip
TIMES = frozenset({Sign.IO_AWAIT, Sign.CPU_PER_REQUEST, Sign.LATENCY})
RATES: dict[str, str] = {
    Sign.REFAULTS: " pages/s",
    Sign.DIRECT_RECLAIM: " pages/s",
    Sign.LISTEN_DROPS: "/s",
}
TAKES = {  # one does, several do, it was done
    Channel.CPU: ("takes CPU time", "take CPU time", "took CPU time"),
    Channel.LLC: (
        "takes cache or memory bandwidth",
        "take cache or memory bandwidth",
        "took cache or memory bandwidth",
    ),
    Channel.MEMORY: ("takes memory", "take memory", "took memory"),
    Channel.IO: ("keeps the disk busy", "keep the disk busy", "kept the disk busy"),
    Channel.NET: ("fills the network", "fill the network", "filled the network"),
    Channel.APP: ("stands in its way", "stand in its way", "stood in its way"),
}
DONE = {
    Rung.IDLE: "put {} behind all other work",
    Rung.QUOTA: "capped {}",
    Rung.CPUSET: "moved {} to other CPUs",
    Rung.SHRINK: "shrank memory and cache of {}",
    Rung.FREEZE: "froze {} for moments",
    Rung.EVICT: "asked for the eviction of {}",
}


class Listed(Struct, frozen=True, gc=False, kw_only=True):
    """What an agent tells when it is asked: open episodes, then those that are over, the latest first.

    `rejections` are with the names of their pods; `left_out` counts episodes that did not fit.
    """

    seq: int
    observed_unix: float
    episodes: tuple[Episode, ...]
    restraints: tuple[Restraint, ...]
    rejections: tuple[tuple[str, Rejection], ...]
    left_out: int


def shown(sign: str, value: float) -> str:
    """A sign's value with its unit: "41 %", "3.2 ms", "120 pages/s", "1.9 GiB/s"."""
    if sign in SHARES:
        return f"{_few(value * 100)} %"
    if sign in TIMES:
        return f"{_few(value * 1e3)} ms" if value < 1.0 else f"{_few(value)} s"
    if sign in {Sign.LLC_OCCUPANCY, Sign.MEMORY_BANDWIDTH}:
        return format_bytes(value) + ("/s" if sign == Sign.MEMORY_BANDWIDTH else "")
    return f"{_few(value)}{RATES.get(sign, '')}"


def evidence(alarm: Alarm) -> str:
    """One alarm: "cpu.stall 41 % (usual 3.0 %, z 6.0)"."""
    usual = "no baseline yet" if alarm.baseline is None else f"usual {shown(alarm.sign, alarm.baseline)}"
    return f"{alarm.sign} {shown(alarm.sign, alarm.value)} ({usual}, z {alarm.z:.1f})"


def worst(alarms: Iterable[Alarm]) -> tuple[Alarm, ...]:
    """The clearest first."""
    return tuple(sorted(alarms, key=lambda each: (-each.cusum, -each.z, each.sign)))


def score(suspect: Suspect) -> str:
    """A suspect with what speaks against it: "transcode-3 (lift 0.42, rho 0.91, p 0.006, share 80 %)"."""
    told = [f"{name} {value:.2f}" for name, value in sorted(suspect.scores.items())]
    told += [] if suspect.p_value is None else [f"p {_few(suspect.p_value)}"]
    return f"{suspect.name} ({', '.join([*told, f'share {_few(suspect.share * 100)} %'])})"


def step(rung: Rung) -> str:
    """A step of the ladder, in a word."""
    return rung.name.lower()


def proven(episode: Episode) -> tuple[str, ...]:
    """Uids of those whose trial was kept: the victim got better while they were held back."""
    return tuple(dict.fromkeys(t.uid for t in episode.trials if t.result is TrialResult.KEPT))


def antagonists(episode: Episode) -> tuple[str, ...]:
    """Uids of those that it is put down to: proven ones; else who is held back; else who is named."""
    acquitted = frozenset(_acquitted(episode))
    held = dict.fromkeys(a.uid for a in episode.actions if a.rung > Rung.FREE and a.uid not in acquitted)
    named = (s.uid for s in episode.suspects if s.named and s.uid not in acquitted)
    return proven(episode) or tuple(held) or tuple(named)


def named(episode: Episode, uids: Iterable[str]) -> str:
    """Names of suspects, "transcode-3 and build-1"; a uid where the name is no longer known."""
    names = {s.uid: s.name for s in episode.suspects}
    return _joined([names.get(uid, uid) for uid in uids])


def deeds(episode: Episode) -> tuple[Action, ...]:
    """The steps against antagonists, trials too, in their order; not those that let them have more again."""
    found, last, who = [], dict[str, Rung](), antagonists(episode)
    for each in (a for a in episode.actions if a.uid in who):
        if each.rung >= max(Rung.IDLE, last.get(each.uid, Rung.FREE)):
            found.append(each)
        last[each.uid] = each.rung
    return tuple(found)


def done(episode: Episode) -> str:
    """The last step against an antagonist and its reason: "quota: 0.5 cores"; empty while there was none."""
    steps = deeds(episode)
    return ": ".join(filter(None, (step(steps[-1].rung), steps[-1].why))) if steps else ""


def recovered_s(episode: Episode) -> float | None:
    """Seconds from the first step against an antagonist to the end; None without an end or a step before it.

    What was tried before an antagonist was let go does not count. A trial goes on when the victim is well
    again, and what it has shown is acted on after that.
    """
    end, who = episode.cleared_unix, antagonists(episode)
    first: dict[str, float] = {}
    for each in (a for a in episode.actions if end is not None and a.uid in who and a.unix <= end):
        if each.rung is Rung.FREE:
            first.pop(each.uid, None)
        else:
            first.setdefault(each.uid, each.unix)
    return None if end is None or not first else end - min(first.values())


def restrained(each: Restraint) -> str:
    """What one is held to: "idle, 0.5 cores, off CPUs 0-3"."""
    told = ["idle"] if each.idle else []
    told += [] if each.quota_cores is None else [f"{each.quota_cores:.3g} cores"]
    told += [f"off CPUs {each.away_from}"] if each.away_from else []
    told += [] if each.memory_high_bytes is None else [f"memory {format_bytes(each.memory_high_bytes)}"]
    told += [] if each.io_weight is None else [f"I/O weight {each.io_weight:g}"]
    told += ["least cache and memory bandwidth"] if each.llc_floor else []
    told += ["frozen"] if each.frozen else []
    return ", ".join(told) or step(each.rung)


def story(episode: Episode, zone: tzinfo | None = None) -> str:
    """The whole of it in one line for an operator; times of the day in `zone`, None: this machine's.

    "web-7 was slowed from 14:02:11 because transcode-3 took CPU time; I capped it; web-7 recovered in 4 s"
    """
    over = episode.cleared_unix is not None
    parts = [_trouble(episode, zone, over=over), *_said(episode)]
    if over:
        parts.append(_end(episode))
    elif episode.held:
        parts.append(f"nothing more is done: {episode.held}")
    elif episode.state is State.CALM:
        parts.append(f"{episode.victim_name} is well again")
    return "; ".join(parts)


def clock(unix: float, zone: tzinfo | None = None) -> str:
    """The time of the day."""
    try:
        return f"{datetime.fromtimestamp(unix, UTC).astimezone(zone):%H:%M:%S}"
    except (ValueError, OverflowError, OSError):  # a clock that was never set, or a forged journal
        return f"{unix} s"


def _trouble(episode: Episode, zone: tzinfo | None, *, over: bool) -> str:
    since = clock(episode.opened_unix, zone)
    slowed = f"{episode.victim_name} {'was slowed from' if over else 'is slowed since'} {since}"
    who = antagonists(episode)
    if not who:
        signs = worst(episode.evidence)[:1]
        because = f": {evidence(signs[0])}" if signs else ""
        return f"{slowed}{because}; nobody {'could' if over else 'can'} be named for it"
    sure = "because" if proven(episode) else "probably because"
    takes = TAKES[episode.channel][2 if over else len(who) > 1]
    return f"{slowed} {sure} {named(episode, who)} {takes}"


def _said(episode: Episode) -> list[str]:
    """What was done to each that was held back, the harshest of it; and whom it was done to in vain."""
    who, in_vain = antagonists(episode), _acquitted(episode)
    most = {uid: max((a.rung for a in episode.actions if a.uid == uid), default=Rung.FREE) for uid in who}
    trial = {t.uid for t in episode.trials if t.result is TrialResult.RUNNING}
    found = []
    for uid in (uid for uid in who if most[uid]):
        name = "it" if len(who) == 1 else named(episode, [uid])
        found.append(DONE[most[uid]].format(name) + (" on trial" if uid in trial else ""))
    told = [f"holding back {named(episode, in_vain)} did not help"] if in_vain else []
    return [*told, f"I {_joined(found)}"] if found else told


def _acquitted(episode: Episode) -> tuple[str, ...]:
    """Uids of those whose trial has not helped the victim."""
    undone = dict.fromkeys(t.uid for t in episode.trials if t.result is TrialResult.UNDONE)
    return tuple(uid for uid in undone if uid not in proven(episode))


def _end(episode: Episode) -> str:
    took, lasted = recovered_s(episode), (episode.cleared_unix or 0.0) - episode.opened_unix
    if took is None:
        return f"{episode.victim_name} recovered by itself after {seconds(lasted)}"
    return f"{episode.victim_name} recovered in {seconds(took)}"


def seconds(span: float) -> str:
    """ "4 s", "2 min", "1.5 h"."""
    span = max(0.0, span)
    if span < 120.0:
        return f"{_few(span)} s" if span >= 1.0 or span == 0.0 else "less than 1 s"
    return f"{span / 60:.0f} min" if span < 7200.0 else f"{span / 3600:.1f} h"


def _joined(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def _few(value: float) -> str:
    """Two digits: "41", "3.2", "0.05", "1200"."""
    if abs(value) >= 10.0 or value % 1 == 0:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 1.0 else f"{value:.2g}"
