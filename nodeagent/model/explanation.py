"""Why a value is what it is: inputs, rule, arithmetic, result; and what became of it in the kernel.

Invariant: the arithmetic is the rule with this tick's numbers in it, and gives the result but for rounding.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct


class Input(Struct, frozen=True, gc=False):
    """One number of the rule, with its unit, and where it came from."""

    name: str
    value: str
    source: str


class Reason(Struct, frozen=True, gc=False, kw_only=True):
    """One value. `written` is "" when nothing was written in this tick, `read_back` when nothing is known."""

    name: str
    result: str
    rule: str = ""
    arithmetic: str = ""
    inputs: tuple[Input, ...] = ()
    by: str = ""
    why: str = ""
    written: str = ""
    read_back: str = ""


class Explanation(Struct, frozen=True, gc=False):
    """Of one tick; a reason that follows from others comes after them."""

    seq: int
    observed_unix: float
    subject: str
    reasons: tuple[Reason, ...]


class PodUse(Struct, frozen=True, gc=False):
    """What a pod used over the last tick; None = not known. Ratios are shares of wall time."""

    cpu_cores: float | None
    memory_bytes: int | None
    cpu_stall_ratio: float | None
    throttled_ratio: float | None


class Account(Protocol):
    """What one tick can tell of itself when it is asked."""

    def capacity(self) -> Explanation:
        """Why this much is offered, and why Batch may use what it may."""

    def pod(self, uid: str) -> Explanation:
        """Why this pod's limits are what they are; KeyError for a pod that is not in the tick."""

    def uses(self) -> dict[str, PodUse]:
        """By uid."""
