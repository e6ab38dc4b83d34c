"""OfflineAvailable with everything that explains it."""

from __future__ import annotations

from msgspec import Struct


class Term(Struct, frozen=True, array_like=True, gc=False):
    """One input of the formula: cores or bytes, where it came from and how old it is."""

    name: str  # total, ceiling, steal, reserved, system, watermark, online_now, online_peak
    value: float
    source: str
    age_s: float


class Amount(Struct, frozen=True, gc=False):
    """One resource. `computed` is the formula's value, `available` what is offered (fast down, slow up)."""

    available: float
    computed: float
    terms: tuple[Term, ...] = ()


class Zone(Struct, frozen=True, gc=False):
    """The same formula on one NUMA node; the zones never add up to more than the node."""

    numa_node: int
    cpu: Amount  # cores
    memory: Amount  # bytes


class Lent(Struct, frozen=True, array_like=True, gc=False):
    """Integrals since the state directory was made, in core-seconds: used by Batch, and offered to it."""

    used_core_s: float = 0.0
    offered_core_s: float = 0.0


class Capacity(Struct, frozen=True, gc=False, kw_only=True):
    """`withdrawn` is empty, or the reason why everything is 0. `confidence` is within [0, 1]."""

    seq: int
    boot_id: str
    observed_unix: float
    valid_until_unix: float
    cpu: Amount  # cores
    memory: Amount  # bytes
    zones: tuple[Zone, ...]
    confidence: float
    withdrawn: str
    lent: Lent
