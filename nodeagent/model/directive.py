"""What a controller may ask of a node for a time, and what became of it.

Invariant: `wrong` names the field that no agent may take; what it lets pass is bounded, finite, printable.
"""

from __future__ import annotations

import enum
import math
import re

from msgspec import Struct

from nodeagent.model.settings import Mode

ID = re.compile(r"[A-Za-z0-9._:/-]{1,128}")
MAX_REASON = 256
MAX_CORES = 65536.0
MAX_LEASE_S = 2_592_000.0  # 30 days, whatever the configuration says
MAX_BYTES = 2**64 - 1


class SetMode(Struct, frozen=True, tag="mode"):
    mode: Mode


class Hold(Struct, frozen=True, tag="hold"):
    """The offer, and what Batch as a whole may use, are at most this; None = not bounded by it."""

    cpu_cores: float | None = None
    memory_bytes: int | None = None


class Lend(Struct, frozen=True, tag="lend"):
    """Nobody is expected online: what is not used now is offered, whatever the past was like."""


class Recall(Struct, frozen=True, tag="recall"):
    """Nothing is offered; Batch's limit falls to its floor until then (unix seconds)."""

    deadline_unix: float


class End(Struct, frozen=True, tag="end"):
    """Another directive is over."""

    id: str


Order = SetMode | Hold | Lend | Recall | End


class Directive(Struct, frozen=True, kw_only=True):
    """`lease_s` counts from when it is taken; that of an End is 0."""

    id: str
    lease_s: float = 0.0
    reason: str = ""
    order: Order

    @property
    def slot(self) -> str:
        """What it takes the place of when it is taken: of each, one is in force; a recall ends a lend."""
        order = self.order
        if isinstance(order, Lend | Recall):
            return "lend"
        return {SetMode: "mode", Hold: "hold"}.get(type(order), "")

    @property
    def kind(self) -> str:
        """In one word: observe, enforce, hold, lend, recall or end."""
        order = self.order
        return order.mode.value if isinstance(order, SetMode) else type(order).__name__.lower()


class State(enum.StrEnum):
    IN_FORCE = "in_force"
    EXPIRED = "expired"
    REPLACED = "replaced"
    ENDED = "ended"


class DirectiveStatus(Struct, frozen=True, kw_only=True):
    """A directive that was taken, from whom, and when it is over; unix seconds."""

    directive: Directive
    issuer: str
    taken_unix: float
    ends_unix: float
    state: State = State.IN_FORCE


class Code(enum.IntEnum):
    """Why not: codes of google.rpc.Code, which are gRPC's."""

    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    FAILED_PRECONDITION = 9
    UNAVAILABLE = 14


class Taken(Struct, frozen=True):
    """`already`: it had been taken before, and nothing has changed."""

    status: DirectiveStatus
    already: bool = False


class Refused(Struct, frozen=True):
    """Nothing has changed; `message` is one line for whoever asked."""

    code: Code
    message: str


class Refusal(Struct, frozen=True):
    """One that was not taken, for the record; `id` may be cut short."""

    id: str
    issuer: str
    code: Code
    message: str


def wrong(directive: Directive, max_lease_s: float, now_unix: float) -> str:
    """Empty, or "FIELD: what is wrong with it", fields named as in the protocol."""
    if not ID.fullmatch(directive.id):
        return f"id: takes 1 to 128 of A-Z a-z 0-9 . _ : / -, found {directive.id[:40]!a}"
    if len(directive.reason) > MAX_REASON or not directive.reason.isprintable():
        return f"reason: takes at most {MAX_REASON} printable characters"
    order = directive.order
    if isinstance(order, End):
        if not ID.fullmatch(order.id):
            return f"end_directive.id: is no id, found {order.id[:40]!a}"
        return "" if directive.lease_s == 0.0 else "lease: is not for an end"
    if not 0.0 < directive.lease_s <= max_lease_s:
        return f"lease: takes more than 0 and at most {max_lease_s:g} s here, found {directive.lease_s:g} s"
    if isinstance(order, Hold):
        return _wrong_hold(order)
    if isinstance(order, Recall) and not -math.inf < order.deadline_unix <= now_unix + directive.lease_s:
        return "recall_node.deadline: is after the end of the lease"
    return ""


def _wrong_hold(hold: Hold) -> str:
    cores, size = hold.cpu_cores, hold.memory_bytes
    if cores is None and size is None:
        return "hold_capacity: needs cpu_cores, memory_bytes or both"
    if cores is not None and not (math.isfinite(cores) and 0.0 <= cores <= MAX_CORES):
        return f"hold_capacity.cpu_cores: takes 0 to {MAX_CORES:g}, found {cores:g}"
    if size is not None and not 0 <= size <= MAX_BYTES:
        return f"hold_capacity.memory_bytes: takes 0 to {MAX_BYTES}, found {size}"
    return ""
