"""What was used and suffered lately: the window in which an antagonist is looked for.

Packed, since it holds minutes of all active pods: 4 bytes per value and per pod that the value is of.
"""

from __future__ import annotations

from msgspec import Struct


class Column(Struct, frozen=True, array_like=True, gc=False):
    """One quantity of many pods at one moment: native uint32 numbers of pods (`slots`) and float32 `values`.

    The first slots have the values, all further ones have 0; NaN = present, but not known.
    """

    slots: bytes = b""
    values: bytes = b""


class Moment(Struct, frozen=True, array_like=True, gc=False):
    """One tick: `at` in monotonic seconds, `span_s` the time that it is of.

    `uses` are by what is used ("cores", "resident", "faults", "bandwidth", "net", "io 8:0", "operations
    8:0"), `signs` by `Sign`; `busy` is the busy share of each CPU in the order of /proc/stat, in 1/255.
    """

    at: float
    span_s: float
    uses: dict[str, Column] = {}
    signs: dict[str, Column] = {}
    busy: bytes = b""


class History(Struct, frozen=True, gc=False):
    """Moments of the window, oldest first. `slots` are the numbers of pods by uid, `next_slot` is free."""

    moments: tuple[Moment, ...] = ()
    slots: dict[str, int] = {}
    next_slot: int = 0
