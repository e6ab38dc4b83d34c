"""How far each victim's trouble has come: what was seen of it, the trial that runs, and who is held to what.

Times are monotonic seconds. A pod is known by uid and inode: a cgroup made anew is another pod.
"""

from __future__ import annotations

from msgspec import Struct

from nodeagent.model.interference import Episode, Rung, Suspect, Trial


class Sample(Struct, frozen=True, array_like=True, gc=False):
    """What the victim's alarmed signs were in one tick, and what Batch as a whole might use then (None: not told)."""

    at: float
    values: dict[str, float]
    limit_cores: float | None = None


class Hold(Struct, frozen=True, gc=False, kw_only=True):
    """One suspect held for one victim. `rungs` in the order taken; `until` is the end of the lease.

    `usual_cores` is what it used before: recovery goes up to there. `stepped_at` is the last step, either
    way; `relaxing` since the first step down. `frozen_at`: it is frozen since then, `thawed_at`: it was until.
    """

    uid: str
    cgroup: str
    inode: int
    rungs: tuple[Rung, ...]
    until: float
    stepped_at: float
    usual_cores: float
    quota_cores: float | None = None
    usual_bytes: int | None = None
    memory_high_bytes: int | None = None
    away_from: str = ""
    relaxing: bool = False
    relaxed_at: float | None = None
    frozen_at: float | None = None
    thawed_at: float | None = None
    asked_to_evict: bool = False
    why: str = ""


class Probe(Struct, frozen=True, gc=False, kw_only=True):
    """The trial that runs: `sign` of the victim is compared above its `baseline`, in ticks under a Batch limit
    of at least `limit_cores` (None: any)."""

    trial: Trial
    suspect: Suspect
    inode: int
    cap_cores: float
    usual_cores: float
    sign: str
    baseline: float
    limit_cores: float | None = None
    samples: tuple[tuple[float, float], ...] = ()  # (at, excess over the baseline)
    used: tuple[tuple[float, float], ...] = ()  # (at, cores of the suspect)


class Case(Struct, frozen=True, gc=False, kw_only=True):
    """One victim, from the first alarm until nothing is left to do for it.

    `bad_at` is when it was last confirmed, `calm_since` and `blind_since` since when it is calm or unknown
    without a break, `hard_since` since when it waits twice as long as it may.
    """

    uid: str
    inode: int
    since: float
    episode: Episode | None = None
    last_id: str = ""
    samples: tuple[Sample, ...] = ()
    bad_at: float | None = None
    calm_since: float | None = None
    blind_since: float | None = None
    hard_since: float | None = None
    ranked_at: float | None = None
    probe: Probe | None = None
    holds: tuple[Hold, ...] = ()


class Doubt(Struct, frozen=True, array_like=True, gc=False):
    """A suspect whose trial did not make the victim better, `count` times, the last one ended at `at`."""

    victim: str
    suspect: str
    at: float
    count: int = 1


class Course(Struct, frozen=True, gc=False):
    """Cases by victim. By suspect: when it was stepped up or down, and when trouble came back after a step down."""

    cases: dict[str, Case] = {}
    steps: dict[str, tuple[float, ...]] = {}
    relapses: dict[str, tuple[float, ...]] = {}
    doubts: tuple[Doubt, ...] = ()
