"""What the agent wants: at most one Setting per Knob, the Changes that get there, and how each went."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from nodeagent.model.cpuset import canonical, union
from nodeagent.model.units import format_bps, format_bytes


class Kind(enum.StrEnum):
    CPU_QUOTA = "cpu.quota"  # cores; inf = no limit
    CPU_BURST = "cpu.burst"  # cores, never above the quota: what a period may use of what was saved up before
    CPU_WEIGHT = "cpu.weight"  # 1.0 = the kernel's default weight; 0.0 = idle (SCHED_IDLE, cpu.idle=1)
    CPUS = "cpuset.cpus"  # a set: CPUs that tasks may run on
    MEMS = "cpuset.mems"  # a set: NUMA nodes that memory may come from
    MIGRATE = "cpuset.memory_migrate"  # v1: 1.0 = a change of MEMS moves the pages too (v2 always does)
    MEMORY_HIGH = "memory.high"  # bytes beyond which memory is taken back (see kernel.memory); inf = no bound
    IO_WEIGHT = "io.weight"  # 1.0 = the kernel's default weight
    FREEZE = "cgroup.freeze"  # 1.0 = all its processes stand still
    NET_CLASS = "net_cls.classid"  # v1: the HTB class of its sockets (0x4e510030); 0 = none, as new ones have
    NIC_RATE = "nic.rate"  # bits/s that a class of a NIC ("eth0/batch") is guaranteed; 0 = nothing
    NIC_CEIL = "nic.ceil"  # bits/s that it never exceeds; inf = no limit

    @property
    def is_set(self) -> bool:
        return self in _SETS

    @property
    def of_nic(self) -> bool:
        """Of no cgroup, and nothing to remember: the kernel tells what is ours, and before there was none."""
        return self in _NIC


_SETS = frozenset({Kind.CPUS, Kind.MEMS})
_NIC = frozenset({Kind.NIC_RATE, Kind.NIC_CEIL})
DEFAULT_WEIGHT = 1.0
MAX_CLASS = 2**32 - 1
BURST = "burst"  # the enforcer by which an LS pod has more quota than its own

# A number, or the text of a set in the kernel's list format as `str(CpuSet)` gives it ("0-3,8").
# The empty set holds nothing on cgroup v1; on v2 it means: as the cgroup around.
Value = float | str


class Knob(NamedTuple):
    """The name of one thing that can be set on this node."""

    kind: Kind
    target: str  # cgroup path below the hierarchy root

    def __str__(self) -> str:
        return f"{self.kind.value} {self.target}"


class KnobReading(Struct, frozen=True, gc=False):
    """One knob as found in this tick, what of it is ours, and what values the kernel takes.

    A number is accepted when it is inf (quota, memory bound), 0.0 (weight, if `has_idle`) or n/`scale` within
    [`low`, `high`]. A set is accepted when it lies within `allowed`, that of the hierarchy's root ("" = any
    is); `effective` is the set that really holds. `nested` (v1): the kernel refuses a quota above the nearest
    limited ancestor's, and a set that is not within its parent's or does not hold its children's.
    `burst` (quota): the burst that is there; the kernel refuses a quota below it.
    `original` and `written` are None while the agent has not touched the knob; `pending` is a value that
    was about to be written when the agent died.
    """

    knob: Knob
    actual: Value
    scale: int = 1
    low: float = 0.0
    high: float = math.inf
    nested: bool = False
    has_idle: bool = False
    original: Value | None = None
    written: Value | None = None
    pending: Value | None = None
    effective: str = ""
    allowed: str = ""
    burst: float = 0.0

    @property
    def held(self) -> bool:
        """True when the agent has touched, or was about to touch, this knob."""
        return self.original is not None

    @property
    def drifted(self) -> bool:
        """True when somebody else has written to a knob that we hold."""
        if not self.held or self.actual == self.pending:
            return False
        return self.actual != (self.original if self.written is None else self.written)

    @property
    def restorable(self) -> bool:
        """True when giving the knob back overwrites nobody else's value."""
        return self.held and (not self.drifted or self.actual == self.original)


class Kept(Struct, frozen=True, gc=False):
    """What systemd was told to write, whenever it writes the knob of a unit, and what it would have written.

    `ours`: nobody else had told it anything until the next boot.
    """

    value: Value
    found: Value
    ours: bool


class Held(Struct, frozen=True, gc=False):
    """What the agent remembers of a knob it has touched: durable, so that a crash can be undone.

    `inode` is that of the cgroup directory: a cgroup re-created under the same name is another one, unless
    systemd has put there what it keeps for us (`lasts`).
    """

    knob: Knob
    inode: int
    original: Value
    written: Value | None = None
    pending: Value | None = None
    kept: Kept | None = None

    @property
    def wanted(self) -> Value:
        """What the knob has while nobody else writes it."""
        return self.original if self.written is None else self.written

    def lasts(self, actual: Value) -> bool:
        """True when a new cgroup of the unit has begun with our value: then it is held as the old one was."""
        return self.kept is not None and self.kept.value == actual

    def explains(self, actual: Value) -> bool:
        """True when `actual` is our doing: untouched, written, or left by a write that was cut short.

        A weight leaves idle in two writes, and the kernel puts the default weight in between. A set may go by
        way of the union of both. Systemd may have put back what it keeps for us, which changes less often.
        """
        ours = self.wanted
        if actual in (ours, self.pending) or self.lasts(actual):
            return True
        if isinstance(ours, str) and isinstance(self.pending, str):
            return actual == union(ours, self.pending)
        return (
            self.knob.kind is Kind.CPU_WEIGHT
            and ours == 0.0
            and bool(self.pending)
            and actual == DEFAULT_WEIGHT
        )


class Setting(Struct, frozen=True, gc=False):
    knob: Knob
    value: Value
    by: str
    why: str


class Change(Struct, frozen=True, gc=False):
    """One write: the knob goes from `old` to `new`. `gives_back`: after it the knob is no longer ours.

    `inherited` is not None for a cgroup that was made with what we wrote to the one around it, as v1 cpusets
    are: the value that it would have had without us, which then counts as its original.
    """

    knob: Knob
    old: Value
    new: Value
    why: str
    by: str = ""
    gives_back: bool = False
    inherited: Value | None = None


class Outcome(Struct, frozen=True, gc=False):
    """How one Change went: `found` is the value read back, `error` is empty on success."""

    change: Change
    found: Value | None
    error: str = ""

    @property
    def ok(self) -> bool:
        return not self.error


def joined(changes: Iterable[Change]) -> Iterable[Change]:
    """One change per knob, from the first one's old value to the last one's new one."""
    whole: dict[Knob, Change] = {}
    for change in changes:
        first = whole.setdefault(change.knob, change)
        whole[change.knob] = replace(first, new=change.new, gives_back=change.gives_back)
    return whole.values()


def numeric(value: Value) -> float:
    """The value of a quota or weight. TypeError for a set: that is a bug, never a runtime condition."""
    if isinstance(value, str):
        raise TypeError(f"{value!r} is a set, not a number")
    return value


def listed(value: Value) -> str:
    """The text of a set. TypeError for a number: that is a bug, never a runtime condition."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is a number, not a set")
    return value


def sound(kind: Kind, value: object) -> bool:
    """True for a value that a knob of this kind can have: for what comes from a file."""
    if kind.is_set:
        return isinstance(value, str) and canonical(value) == value
    if not isinstance(value, float) or kind is not Kind.NET_CLASS:
        return isinstance(value, float) and value >= 0.0  # nan is not
    return 0.0 <= value <= MAX_CLASS and value.is_integer()


def shown(value: Value, kind: Kind | None = None) -> str:
    """For people: "no limit", "0.5", "0-3,8", "(empty)"; by `kind` "950 Mbit/s", "64 MiB", "frozen"."""
    if isinstance(value, str):
        return value or "(empty)"
    if kind is not None and kind.of_nic:
        return format_bps(value)
    if kind is Kind.NET_CLASS:
        return f"{int(value) >> 16:x}:{int(value) & 0xFFFF:x}" if value else "none"
    if kind is Kind.FREEZE:
        return "frozen" if value else "running"
    if math.isinf(value):
        return "no limit"
    return format_bytes(value) if kind is Kind.MEMORY_HIGH else f"{value:g}"


class Conflict(Exception):
    """Two enforcers claimed one knob. A bug, never a runtime condition."""


Plan = Mapping[Knob, Setting]


def one_owner(settings: Iterable[Setting]) -> dict[Knob, Setting]:
    """Index the settings by knob; Conflict when one knob is set twice."""
    plan: dict[Knob, Setting] = {}
    for setting in settings:
        held = plan.setdefault(setting.knob, setting)
        if held is not setting:
            raise Conflict(f"{setting.knob}: {held.by} and {setting.by}")
    return plan
