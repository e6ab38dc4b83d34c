"""The memory controller's bound that slows down but never kills, in both dialects.

    v2  memory.high                  what is beyond it is reclaimed at once, and who allocates is slowed down
    v1  memory.soft_limit_in_bytes   what is beyond it is reclaimed first when the node runs short of memory

Linux Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst. v1's memory.limit_in_bytes is not
used: a pod that grows into it is killed (seen on Linux 6.18; below what cannot be reclaimed it is EBUSY).

Invariant: no write waits for reclaim where the kernel can do without: files are opened with O_NONBLOCK, Linux
kernel commit c8e6002bd611 ("memcg: introduce non-blocking limit setting option") (in v6.16).
"""

from __future__ import annotations

import math

from nodeagent.kernel.cgroup import Found, Interface, KnobCgroup, count
from nodeagent.model.errors import Unsupported
from nodeagent.model.plan import Kind, Value, numeric

# v1 has no word for it but LONG_MAX in whole pages, and pages have from 4 to 64 KiB
UNLIMITED_BYTES, LEAST_UNLIMITED_BYTES = (1 << 63) - (1 << 12), (1 << 63) - (1 << 16)
MAX_BYTES = 1 << 62


class High(Interface[float]):
    """memory.high: bytes; "max" is inf."""

    def parse(self, data: bytes) -> float:
        return math.inf if data.strip() == b"max" else float(count(data))

    def render(self, value: float) -> str:
        return "max" if math.isinf(value) else str(int(value))


class SoftLimit(Interface[float]):
    """memory.soft_limit_in_bytes: bytes; inf is the largest number of pages that the kernel counts."""

    def parse(self, data: bytes) -> float:
        size = count(data)
        return math.inf if size >= LEAST_UNLIMITED_BYTES else float(size)

    def render(self, value: float) -> str:
        return str(UNLIMITED_BYTES if math.isinf(value) else int(value))


class MemoryCgroup(KnobCgroup):
    """What the two dialects share."""

    controller = "memory"
    bound: High | SoftLimit

    def read(self, kind: Kind) -> Found:
        """Unsupported when this cgroup has no such knob, else Gone, Garbled or Refused."""
        if kind is not Kind.MEMORY_HIGH:
            raise Unsupported(f"{self.path} has no {kind.value}")
        return Found(self.bound, high=MAX_BYTES)

    def write(self, kind: Kind, value: Value) -> Value:  # noqa: ARG002  # it has one knob
        """Set it, in bytes; the kernel rounds down to whole pages."""
        self.bound = numeric(value)
        return value


class MemoryV1(MemoryCgroup):
    """The memory controller of one v1 cgroup."""

    bound = SoftLimit("memory.soft_limit_in_bytes")


class MemoryV2(MemoryCgroup):
    """The memory controller of one v2 cgroup."""

    bound = High("memory.high")

    def unset(self, kind: Kind) -> Found:
        if kind is not Kind.MEMORY_HIGH:
            return super().unset(kind)
        return Found(math.inf, high=MAX_BYTES)
