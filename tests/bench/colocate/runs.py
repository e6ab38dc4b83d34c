"""What is kept of an experiment: one record a run, from which all figures can be made anew."""

from __future__ import annotations

from msgspec import Struct

from tests.bench.colocate.tide import Shape

ALONE, EQUAL, STATIC, IDLE, KOORDLET, BY_QUOTA, NODEAGENT, BATCH_ALONE = VARIANTS = (
    "online alone",
    "no control",
    "static weights",
    "SCHED_IDLE",
    "koordlet",
    "nodeagent, by quota",
    "nodeagent",
    "Batch alone",
)


class Felt(Struct, frozen=True):
    """One online service: what its clients felt of the requests due in the window, and what CPU it used.

    A latency counts from when its request was due; None where so many requests were never answered.
    """

    sent: int
    answered: int
    p50_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    cpu_s: float


class Job(Struct, frozen=True):
    """One Batch pod: its work in the window, in units of its own, and the CPU seconds it took."""

    work: float
    unit: str
    cpu_s: float


class Reaction(Struct, frozen=True):
    """A surge, and the seconds until Batch was pushed back; None: not within the surge.

    `used_s`: its CPU use fell, as the best step of a function with one step; `quota_s`: its quota was lower.
    """

    at_s: float
    used_s: float | None
    quota_s: float | None


class Moment(Struct, frozen=True, array_like=True):
    """Cores that online pods and Batch used in a slice of the window, and Batch's quota (None: no limit)."""

    at_s: float
    online: float
    batch: float
    quota: float | None


class Run(Struct, frozen=True, kw_only=True):
    """One window of one variant. CPU in seconds over all CPUs; `idle_s` includes waiting for disks.

    `foreign` are the cores of nobody's here, second by second; `rejected` says why the run is not valid.
    """

    variant: str
    round: int
    seconds: float
    cpus: int
    busy_s: float
    idle_s: float
    steal_s: float
    client_s: float
    control_s: float
    online: dict[str, Felt]
    batch: dict[str, Job]
    surges: tuple[Reaction, ...]
    line: tuple[Moment, ...]
    foreign: tuple[float, ...]
    rejected: tuple[str, ...]


class Machine(Struct, frozen=True):
    """Where it ran."""

    kernel: str
    cpu: str
    cpus: int
    virtual: bool
    cgroups: str
    memory_gib: float


class Experiment(Struct, frozen=True, kw_only=True):
    """All of it. `crest_per_s` is each service's load at the crest; `absent` says what could not be run."""

    machine: Machine
    seed: int
    shape: Shape
    crest_per_s: dict[str, float]
    agent: dict[str, str]
    absent: tuple[str, ...]
    runs: tuple[Run, ...]
