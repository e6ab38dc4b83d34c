"""What decide() answers, and all that outlives a tick."""

from __future__ import annotations

from msgspec import Struct

from nodeagent.model.capacity import Capacity, Lent
from nodeagent.model.foreign import Foreign
from nodeagent.model.interference import Interference
from nodeagent.model.interference_memory import InterferenceMemory
from nodeagent.model.nic import KnownNic, Shaping
from nodeagent.model.pages import PageMove
from nodeagent.model.placement import Placement
from nodeagent.model.plan import Change, Knob, Outcome, Setting, Value
from nodeagent.model.senses import Baseline
from nodeagent.model.settings import Mode
from nodeagent.model.snapshot import Snapshot


class Condition(Struct, frozen=True, gc=False):
    """True right now. A detector's whole output. `subject` is a pod's uid, or "" for the node."""

    name: str
    subject: str
    level: float
    evidence: str


class Signal(Struct, frozen=True, gc=False):
    """A Condition that has lasted; `since` in monotonic seconds."""

    name: str
    subject: str
    level: float
    since: float
    evidence: str


class Spell(Struct, frozen=True, array_like=True, gc=False):
    """A Condition's life so far: first and last time seen."""

    name: str
    subject: str
    since: float
    last: float
    level: float
    evidence: str


class Drift(Struct, frozen=True, array_like=True, gc=False):
    """Somebody else's writes to a knob of ours: no write before `quiet_until`; `found` is their value."""

    knob: Knob
    count: int
    last: float
    quiet_until: float
    found: Value


class Histogram(Struct, frozen=True, gc=False):
    """Decaying histogram: weights per exponential bucket, decayed to the time `at` (unix seconds).

    `seconds` is the undecayed time observed. `window` are (unix, value) maxima of lately.
    """

    weights: tuple[float, ...] = ()
    at: float = 0.0
    seconds: float = 0.0
    window: tuple[tuple[float, float], ...] = ()


class OnlineHistory(Struct, frozen=True, gc=False):
    """Histograms of online use: the node's and each NUMA node's (by id), on so many `cores`. Checkpointed."""

    cpu: Histogram = Histogram()
    memory: Histogram = Histogram()
    zone_cpu: dict[int, Histogram] = {}
    zone_memory: dict[int, Histogram] = {}
    cores: int = 0  # 0: nothing observed yet


class Offer(Struct, frozen=True, gc=False):
    """What was last offered, for fast-down and slow-up; `at` in monotonic seconds, None before the first.

    `calm_cpu_cores` is what would have been, were nobody online disturbed.
    """

    at: float | None = None
    cpu_cores: float = 0.0
    memory_bytes: float = 0.0
    zone_cpu_cores: dict[int, float] = {}
    zone_memory_bytes: dict[int, float] = {}
    calm_cpu_cores: float = 0.0


class BatchLimit(Struct, frozen=True, gc=False):
    """State of the halve-and-recover law: the tier limit in force, in cores, None before the first."""

    cores: float | None = None
    hurt_at: float | None = None  # monotonic seconds of the last halving
    calm_after: float | None = None  # no growth before this time


class KnownUse(Struct, frozen=True, array_like=True, gc=False):
    """A pod's last known use; `cpu_at` and `memory_at` in monotonic seconds, `pages` bytes by NUMA node."""

    cpu_cores: float | None = None
    cpu_at: float = 0.0
    memory_bytes: float | None = None
    memory_at: float = 0.0
    pages: tuple[tuple[int, int], ...] | None = None


class BusyPart(Struct, frozen=True, array_like=True, gc=False):
    """CPU time of the node that no pod accounts for, added up over `span_s` seconds of ticks."""

    span_s: float = 0.0
    other_core_s: float = 0.0


class Wait(Struct, frozen=True, array_like=True, gc=False):
    """How long an LS pod waited for CPU, own throttling taken off, in the last `span_s` seconds of ticks."""

    span_s: float
    waited_s: float
    source: str


class BatchCpus(Struct, frozen=True, array_like=True, gc=False):
    """How many CPUs Batch was given, and when that was changed last (monotonic seconds)."""

    cpus: int
    at: float


class Burst(Struct, frozen=True, array_like=True, gc=False):
    """What a limited LS pod has saved up, in core-seconds, and has on top of its quota now, in cores.

    `needed_at` (monotonic seconds) is when it was last throttled or used more than its quota, `inner` which
    containers were throttled since the burst began; both empty between bursts.
    """

    left_core_s: float
    extra_cores: float = 0.0
    needed_at: float | None = None
    inner: tuple[str, ...] = ()
    why: str = ""


class Memory(Struct, frozen=True, gc=False):
    """All that outlives a tick. Owned by the engine; no detector or enforcer has any."""

    previous: Snapshot | None = None
    waits: dict[str, Wait] = {}
    spells: tuple[Spell, ...] = ()
    drifts: tuple[Drift, ...] = ()
    known: dict[str, KnownUse] = {}
    busy: BusyPart = BusyPart()
    online: OnlineHistory = OnlineHistory()
    online_cores: tuple[tuple[float, float], ...] = ()  # (monotonic, cores), for the enforcement window
    offer: Offer = Offer()
    batch: BatchLimit = BatchLimit()
    bursts: dict[str, Burst] = {}
    batch_cpus: BatchCpus | None = None
    placement: Placement | None = None
    foreign: Foreign = Foreign(None, None, None)  # as last known
    lent: Lent = Lent()
    nics: dict[str, KnownNic] = {}  # by name
    interference: InterferenceMemory = InterferenceMemory()


class Checkpoint(Struct, frozen=True, gc=False):
    """The part of Memory that survives a restart. `baselines` are by workload and "sign@bin"."""

    online: OnlineHistory = OnlineHistory()
    lent: Lent = Lent()
    baselines: dict[str, dict[str, Baseline]] = {}


class Decision(Struct, frozen=True, gc=False, kw_only=True):
    """`plan` is complete: a knob of ours that is neither in it nor in `yielded` is given back.

    `yielded` knobs are not written in this tick: somebody else holds them, for now or for good.
    `placement` is where everything shall run, None while the agent does not place pods; `moves` are the pods
    whose pages are to go where it says before their memory nodes are narrowed.
    `batch_limit_cores` is what Batch as a whole may use, None while not known. `shaping` is how all traffic
    shall be shaped, None where none is. `mode` is what the writes of this tick obey, None where not
    known.
    """

    seq: int
    signals: tuple[Signal, ...]
    plan: tuple[Setting, ...]
    yielded: tuple[Knob, ...]
    drifts: tuple[Drift, ...]
    capacity: Capacity
    batch_limit_cores: float | None
    limit_why: str
    placement: Placement | None = None
    moves: tuple[PageMove, ...] = ()
    shaping: Shaping | None = None
    mode: Mode | None = None
    interference: Interference = Interference()


class Tick(Struct, frozen=True, gc=False):
    """One turn of the loop, complete: what the journal keeps and what gRPC and /metrics show."""

    snapshot: Snapshot
    decision: Decision
    changes: tuple[Change, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
