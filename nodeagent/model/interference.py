"""Interference: who is hurt, by what, who did it, what was tried and done.

An `Episode` is one victim's trouble from its opening to its clearing; all the rest is what it is made of.
"""

from __future__ import annotations

import enum

from msgspec import Struct

from nodeagent.model.symptom import Channel


class State(enum.StrEnum):
    UNKNOWN = "unknown"  # what would tell is missing or stale: never taken for calm
    CALM = "calm"
    SUSPECT = "suspect"
    CONFIRMED = "confirmed"


class Gate(enum.StrEnum):
    """Why an alarm does not lead to an accusation, in the order in which they are asked."""

    OWN_QUOTA = "own-quota"
    STEAL = "steal"
    OWN_LOAD = "own-load"
    YOUNG = "young"  # the pod, or its baseline; only absolute limits count
    IDLE = "idle"  # too little activity for the signal to mean anything
    SMALL = "small"  # statistically clear, practically nothing
    HEALTHY = "healthy"  # the application tells that it keeps its SLO with room to spare


class Alarm(Struct, frozen=True, gc=False):
    """One sign that is out of the ordinary. `baseline` is its median in this load bin, None while cold."""

    sign: str
    channel: Channel
    value: float
    baseline: float | None
    z: float
    cusum: float


class Rejection(Struct, frozen=True, gc=False):
    """An alarm that a gate has stopped; `why` with its numbers."""

    alarm: Alarm
    gate: Gate
    why: str


class Verdict(Struct, frozen=True, gc=False):
    """What the signals of one online pod come to in this tick. `evidence` is the fused one, in [0, 1]."""

    uid: str
    state: State
    evidence: float = 0.0
    channel: Channel | None = None
    alarms: tuple[Alarm, ...] = ()
    rejections: tuple[Rejection, ...] = ()


class Suspect(Struct, frozen=True, gc=False):
    """A pod that shares the contended resource. `scores` by scorer; `named`: significant beyond chance.

    `share` is its part of what all suspects use, `contribution` of what the victim suffers; both in [0, 1].
    """

    uid: str
    name: str
    cgroup: str
    scores: dict[str, float]
    p_value: float | None
    share: float
    contribution: float = 0.0
    named: bool = False


class TrialResult(enum.StrEnum):
    RUNNING = "running"
    KEPT = "kept"
    UNDONE = "undone"
    CUT_SHORT = "cut-short"  # victim or suspect ended, or the agent may not write


class Trial(Struct, frozen=True, gc=False):
    """The top suspect is capped for a while.

    `before` and `during` are medians of what the victim's main `sign` is above its baseline.
    """

    uid: str
    began: float  # monotonic seconds
    until: float
    before: float
    during: float | None = None
    result: TrialResult = TrialResult.RUNNING
    sign: str = ""


class Rung(enum.IntEnum):
    """Steps of the ladder, from gentle to harsh. Which of them touch a channel: core.interference.ladder."""

    FREE = 0
    IDLE = 1
    QUOTA = 2
    CPUSET = 3
    SHRINK = 4
    FREEZE = 5
    EVICT = 6  # asked for, by an event; never done by the agent


class Restraint(Struct, frozen=True, gc=False, kw_only=True):
    """What a Batch pod is held to for a victim's sake. It ends by itself at `until` (monotonic seconds).

    None, empty and False: not restrained in this respect. `episode` is the id of what it is for; `why` is
    said with each setting that comes of it.
    """

    uid: str
    cgroup: str
    rung: Rung
    episode: str
    until: float
    why: str
    idle: bool = False
    quota_cores: float | None = None
    away_from: str = ""  # CPUs (kernel's list format) that it leaves to the victim
    memory_high_bytes: int | None = None
    io_weight: float | None = None  # 1.0 = the kernel's default
    llc_floor: bool = False  # smallest share of the cache and of memory bandwidth
    frozen: bool = False  # in this tick
    withheld_cores: float = 0.0  # that nobody else in Batch gets instead, while it is on trial


class Action(Struct, frozen=True, gc=False):
    """One step of the ladder, or of a trial; `unix` seconds."""

    unix: float
    uid: str
    rung: Rung
    why: str


class Episode(Struct, frozen=True, gc=False, kw_only=True):
    """One victim's trouble. `opened_unix`, `cleared_unix` are wall clock, `opened_at` monotonic seconds.

    `evidence` are the alarms at their worst, `suspects` the ranking, the likeliest first. `held` tells why
    nothing more is done, empty while something can be. `changed` counts what was said of it, so that each
    change is told once.
    """

    id: str
    victim: str  # uid
    victim_name: str
    victim_cgroup: str
    channel: Channel
    state: State
    opened_at: float
    opened_unix: float
    cleared_unix: float | None = None
    evidence: tuple[Alarm, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    trials: tuple[Trial, ...] = ()
    actions: tuple[Action, ...] = ()
    held: str = ""
    changed: int = 0


class Interference(Struct, frozen=True, gc=False):
    """All of it in one tick: verdicts that are not calm or have rejections, episodes open or cleared in it.

    `directed` are the victims that somebody was named for and is restrained: the whole of Batch need not pay.
    """

    verdicts: tuple[Verdict, ...] = ()
    episodes: tuple[Episode, ...] = ()
    restraints: tuple[Restraint, ...] = ()
    directed: tuple[str, ...] = ()
