"""Values of knobs as properties of units (org.freedesktop.systemd1(5)) and back.

Invariant: the property makes systemd write exactly the value of the knob: of a quota of Q us in each period
it computes floor(us per second * period / 1 s), so that us per second rounded up gives Q again.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from nodeagent.model.cpuset import CpuSet
from nodeagent.model.plan import DEFAULT_WEIGHT, Kind, Value, listed, numeric

INFINITY = (1 << 64) - 1  # systemd's "no limit" and "not set"
Raw = int | bytes  # of D-Bus type t or ay


class Property(NamedTuple):
    """`name` on the bus, `type` in D-Bus's words, `setting` in unit files; `scale`: of weight 1.0."""

    name: str
    type: str
    setting: str
    scale: int = 1


_QUOTA = Property("CPUQuotaPerSecUSec", "t", "CPUQuota")
_V1 = {Kind.CPU_QUOTA: _QUOTA, Kind.CPU_WEIGHT: Property("CPUShares", "t", "CPUShares", 1024)}
_V2 = {
    Kind.CPU_QUOTA: _QUOTA,
    Kind.CPU_WEIGHT: Property("CPUWeight", "t", "CPUWeight", 100),
    Kind.CPUS: Property("AllowedCPUs", "ay", "AllowedCPUs"),
    Kind.MEMS: Property("AllowedMemoryNodes", "ay", "AllowedMemoryNodes"),
    Kind.MEMORY_HIGH: Property("MemoryHigh", "t", "MemoryHigh"),
    Kind.IO_WEIGHT: Property("IOWeight", "t", "IOWeight", 100),
}


def property_of(kind: Kind, version: int) -> Property | None:
    """The property for a knob on cgroup v1 or v2; None where a reload does not touch its file.

    Freezing is no property, and no reload undoes it. A unit that is stopped while frozen ends once it is
    thawed, or by SIGKILL after its TimeoutStopSec.
    """
    return (_V2 if version == 2 else _V1).get(kind)


def raw(kind: Kind, prop: Property, value: Value) -> Raw | None:
    """`value` as systemd takes it; None for what it cannot keep (idle on v1). The default is "not set"."""
    if kind.is_set:
        return _bits(listed(value))
    number = numeric(value)
    if kind is Kind.CPU_QUOTA:
        return INFINITY if math.isinf(number) else math.ceil(round(number * 1e6, 3))
    if kind is Kind.MEMORY_HIGH:
        return INFINITY if math.isinf(number) else int(number)
    if number == DEFAULT_WEIGHT:
        return INFINITY
    if number == 0.0 and prop.name != "CPUWeight":
        return None
    return round(number * prop.scale)


def value(kind: Kind, prop: Property, found: Raw) -> Value:
    """What systemd has, as the value of the knob."""
    if isinstance(found, bytes):
        bits = int.from_bytes(found, "little")
        return str(CpuSet(number for number in range(bits.bit_length()) if bits >> number & 1))
    if kind is Kind.CPU_QUOTA:
        return math.inf if found == INFINITY else found / 1e6
    if kind is Kind.MEMORY_HIGH:
        return math.inf if found == INFINITY else float(found)
    return DEFAULT_WEIGHT if found == INFINITY else found / prop.scale


def _bits(text: str) -> bytes:
    numbers = CpuSet.parse(text)
    bits = sum(1 << number for number in numbers)
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")
