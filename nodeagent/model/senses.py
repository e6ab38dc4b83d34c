"""What the detector keeps between ticks: what is usual for each workload, and what is not now of each pod."""

from __future__ import annotations

from msgspec import Struct

from nodeagent.model.interference import Verdict
from nodeagent.model.symptom import Sign


class Served(Struct, frozen=True, array_like=True, gc=False):
    """Requests that a pod had answered at a moment, and the CPU time that it had used by then."""

    source: str
    at: float  # monotonic seconds
    requests: int
    cpu_us: float


class Baseline(Struct, frozen=True, array_like=True, gc=False):
    """Decaying histogram of one sign in one load bin: weights of the buckets from `low` on, as of `at`.

    `last` is when it was last added to, both in unix seconds; `samples` is the undecayed count. `q50`,
    `q95` and `q99` are its quantiles. `mean` is of the last samples, `clumped` what the variance of sums
    of ten in a row is to ten times that of one: 1 where each sample is independent of the last.
    """

    low: int = 0
    weights: tuple[float, ...] = ()
    at: float = 0.0
    last: float = 0.0
    samples: int = 0
    q50: float = 0.0
    q95: float = 0.0
    q99: float = 0.0
    mean: float = 0.0
    clumped: float = 1.0


class Usual(Struct, frozen=True, array_like=True, gc=False):
    """What is usual of a sign in a load bin. A value of at most `ceiling` adds nothing to a sum that is 0."""

    median: float
    spread: float
    ceiling: float


class Workload(Struct, frozen=True, gc=False):
    """Baselines of all pods of one workload, by "sign@bin"; `usual` by load bin is what follows from them."""

    baselines: dict[str, Baseline] = {}
    usual: dict[int, dict[Sign, Usual]] = {}


class Feeling(Struct, frozen=True, array_like=True, gc=False):
    """One sign of one pod that is not at rest. `opened` is when its alarm was raised, None: there is none.

    `worst` is the largest value since it is not at rest. `over` counts the samples in a row with the sum at
    its limit, `good` those with z < 1; `excess` are the times of those with z > 2, for signs that are seldom
    measured. `at` is that of the last sample. All times in monotonic seconds.
    """

    value: float
    median: float | None
    z: float
    cusum: float
    at: float
    worst: float
    opened: float | None = None
    over: int = 0
    good: int = 0
    excess: tuple[float, ...] = ()


class Onset(Struct, frozen=True, array_like=True, gc=False):
    """What a pod and the other pods of the node used before its alarm was raised (`at`), in cores."""

    at: float
    own_cores: float
    others_cores: float  # of those that share its CPUs
    all_cores: float


class Use(Struct, frozen=True, array_like=True, gc=False):
    """A pod's CPU use, smoothed over about 2 s and over about a minute."""

    now: float
    usual: float


class PodSense(Struct, frozen=True, gc=False):
    """`since` (monotonic) is when the pod appeared, None: it was there before the agent. `known_at` is when
    what tells its wait for CPU was last known. `part` is what ticks that came early add up to (`part_s`): per
    sign (value * seconds, seconds). `throttled` and `stolen` are smoothed over some seconds.
    """

    inode: int
    workload: str
    since: float | None
    known_at: float | None
    verdict: Verdict
    feelings: dict[Sign, Feeling] = {}
    part_s: float = 0.0
    part: dict[Sign, tuple[float, float]] = {}
    throttled: float = 0.0
    stolen: float = 0.0
    served: Served | None = None
    onset: Onset | None = None


class Senses(Struct, frozen=True, gc=False):
    """All but `workloads`, which survive a restart, is by uid. `pods` are the online ones, `pending` their
    samples that are not learned yet, each with its load bin; `uses` are of all pods that use CPU at all (and
    "" of what no pod accounts for). `begun`: a first tick was judged.
    """

    workloads: dict[str, Workload] = {}
    pods: dict[str, PodSense] = {}
    pending: dict[str, tuple[tuple[int, dict[Sign, float]], ...]] = {}
    uses: dict[str, Use] = {}
    begun: bool = False
