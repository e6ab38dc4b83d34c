"""How far each victim's trouble has come: what was seen of it, the trial that runs, and who is held to what.

Times are monotonic seconds. A pod is known by uid and inode: a cgroup made anew is another pod.
"""

from __future__ import annotations

from msgspec import Struct

from nodeagent.model.interference import Episode, Rung, Suspect, Trial
from nodeagent.model.symptom import Channel


class Sample(Struct, frozen=True, array_like=True, gc=False):
    """A victim's signs in one tick, and what Batch as a whole might use then (None: not told)."""

    at: float
    values: dict[str, float]
    limit_cores: float | None = None


class Held(Struct, frozen=True, gc=False, kw_only=True):
    """One suspect that is held for one victim's sake. `rungs` in the order taken; the lease ends at `until`.

    `stepped_at` is the last step, either way; `relaxing`: a step down was taken since the last step up, and
    `growing`: its quota is being raised; with `calm_cores` the victim was well for long. `turned_at` is when
    it was last frozen or thawed.
    """

    uid: str
    cgroup: str
    inode: int
    rungs: tuple[Rung, ...]
    name: str
    episode: str  # id
    channel: Channel
    until: float
    stepped_at: float
    why: str
    proven: bool = True  # by a trial; else it ends as soon as the victim is seen again
    quota_cores: float | None = None
    memory_high_bytes: int | None = None
    away_from: str = ""
    relaxing: bool = False
    growing: bool = False
    calm_cores: float | None = None
    frozen: bool = False
    turned_at: float | None = None
    asked_to_evict: bool = False
    stuck: str = ""  # why no step up is taken although one is due


class Probe(Struct, frozen=True, gc=False, kw_only=True):
    """The trial that runs. `excess` is what the victim's `sign` is above its `baseline`.

    `withheld_cores` is what the cap takes away: nobody else gets it meanwhile, or it would prove nothing.
    `used` are the suspect's cores, or its bytes where memory is bounded. A tick counts only where Batch as a
    whole might use at least `limit_cores` (None: in any case). The suspect is held by one of the two bounds;
    without either it is made idle.
    """

    trial: Trial
    suspect: Suspect
    inode: int
    cap_cores: float | None
    withheld_cores: float
    sign: str
    baseline: float
    limit_cores: float | None = None
    excess: tuple[tuple[float, float], ...] = ()  # (at, value)
    used: tuple[tuple[float, float], ...] = ()
    memory_high_bytes: int | None = None

    @property
    def rung(self) -> Rung:
        """What the suspect is held by."""
        if self.memory_high_bytes is not None:
            return Rung.SHRINK
        return Rung.IDLE if self.cap_cores is None else Rung.QUOTA


class FullStall(Struct, frozen=True, array_like=True, gc=False):
    """Memory PSI "full" of a victim: its total as of `at`, and the share of wall time before that."""

    at: float | None = None
    total_us: int = 0
    ratio: float = 0.0


class Case(Struct, frozen=True, gc=False, kw_only=True):
    """One victim, from the first alarm until nothing is left to do for it.

    `bad_at` is when it was last confirmed; it is calm since `calm_since`, unknown since `blind_since`, and
    waits far longer than it may since `hard_since`, without a break. `last_id` is its last episode.
    """

    uid: str
    inode: int
    episode: Episode | None = None
    last_id: str = ""
    samples: tuple[Sample, ...] = ()
    bad_at: float | None = None
    calm_since: float | None = None
    blind_since: float | None = None
    hard_since: float | None = None
    ranked_at: float | None = None
    probe: Probe | None = None
    held: tuple[Held, ...] = ()
    memory_full: FullStall = FullStall()


class Doubt(Struct, frozen=True, array_like=True, gc=False):
    """Trials of a suspect that did not help the victim: how many, and when the last one ended."""

    victim: str
    suspect: str
    at: float
    count: int = 1


class Proof(Struct, frozen=True, array_like=True, gc=False):
    """A suspect that a trial had proven for this victim, and that was let go at `at`."""

    victim: str
    suspect: Suspect
    at: float


class Course(Struct, frozen=True, gc=False):
    """As of `at` in the boot `boot_id`: cases by victim.

    By suspect: when it was stepped up or down, and when trouble came back after it was given more.
    """

    boot_id: str = ""
    at: float = 0.0
    cases: dict[str, Case] = {}
    steps: dict[str, tuple[float, ...]] = {}
    relapses: dict[str, tuple[float, ...]] = {}
    proofs: tuple[Proof, ...] = ()
    doubts: tuple[Doubt, ...] = ()
