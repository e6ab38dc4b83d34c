"""What the agent wants: at most one Setting per Knob, the Changes that get there, and how each went."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from msgspec import Struct


class Kind(enum.StrEnum):
    CPU_QUOTA = "cpu.quota"  # cores; inf = no limit
    CPU_WEIGHT = "cpu.weight"  # 1.0 = the kernel's default weight; 0.0 = idle (SCHED_IDLE, cpu.idle=1)


DEFAULT_WEIGHT = 1.0


class Knob(NamedTuple):
    """The name of one thing that can be set on this node."""

    kind: Kind
    target: str  # cgroup path below the hierarchy root

    def __str__(self) -> str:
        return f"{self.kind.value} {self.target}"


class KnobReading(Struct, frozen=True, gc=False):
    """One knob as found in this tick, what of it is ours, and what values the kernel takes.

    A value is accepted when it is inf (quota), 0.0 (weight, if `has_idle`) or n/`scale` within
    [`low`, `high`]. `nested`: the kernel refuses a value above the nearest limited ancestor's (v1 quota).
    `original` and `written` are None while the agent has not touched the knob; `pending` is a value that
    was about to be written when the agent died.
    """

    knob: Knob
    actual: float
    scale: int
    low: float
    high: float
    nested: bool = False
    has_idle: bool = False
    original: float | None = None
    written: float | None = None
    pending: float | None = None

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


class Held(Struct, frozen=True, gc=False):
    """What the agent remembers of a knob it has touched: durable, so that a crash can be undone.

    `inode` is that of the cgroup directory: a cgroup re-created under the same name is another one.
    """

    knob: Knob
    inode: int
    original: float
    written: float | None = None
    pending: float | None = None

    def explains(self, actual: float) -> bool:
        """True when `actual` is our doing: untouched, written, or left by a write that was cut short.

        A weight leaves idle in two writes, and the kernel puts the default weight in between.
        """
        ours = self.original if self.written is None else self.written
        torn = self.knob.kind is Kind.CPU_WEIGHT and ours == 0.0 and self.pending and actual == DEFAULT_WEIGHT
        return actual in (ours, self.pending) or bool(torn)


class Setting(Struct, frozen=True, gc=False):
    knob: Knob
    value: float
    by: str
    why: str


class Change(Struct, frozen=True, gc=False):
    """One write: the knob goes from `old` to `new`. `gives_back`: after it the knob is no longer ours."""

    knob: Knob
    old: float
    new: float
    why: str
    by: str = ""
    gives_back: bool = False


class Outcome(Struct, frozen=True, gc=False):
    """How one Change went: `found` is the value read back, `error` is empty on success."""

    change: Change
    found: float | None
    error: str = ""

    @property
    def ok(self) -> bool:
        return not self.error


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
