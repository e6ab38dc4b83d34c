"""The io controller's weight, in both dialects: 1.0 = the kernel's default.

    v2  io.weight        heeded by iocost (Linux Documentation/admin-guide/cgroup-v2.rst, "io.weight")
        io.bfq.weight    heeded by the BFQ scheduler (Documentation/block/bfq-iosched.rst)
    v1  blkio.bfq.weight, or blkio.weight of CFQ before Linux 5.0

On v2 the first one is the knob and BFQ's follows it, as systemd has it (src/core/cgroup.c), but only while
the two say the same: one that somebody has set apart stays theirs.

Invariant: weights of single devices ("8:0 200") are nobody's business here.
"""

from __future__ import annotations

import contextlib

from nodeagent.kernel.cgroup import Found, Interface, KnobCgroup, count
from nodeagent.model.errors import AgentError, Unsupported
from nodeagent.model.plan import DEFAULT_WEIGHT, Kind, Value, numeric

MAX_V2, MAX_BFQ = 10_000, 1000


class Weight(Interface[int]):
    """The weight for all devices: "100" or "default 100", those of single devices below it."""

    def parse(self, data: bytes) -> int:
        return count(data.partition(b"\n")[0].removeprefix(b"default "))

    def render(self, value: int) -> str:
        return str(value)


class DefaultWeight(Weight):
    """Of v2, which prints the word and takes it."""

    def render(self, value: int) -> str:
        return f"default {value}"


class IoCgroup(KnobCgroup):
    """What the two dialects share."""

    max_bytes = 16 << 10  # a line for each device with a weight of its own
    controller = "io"
    bfq: Weight

    def read(self, kind: Kind) -> Found:
        """Unsupported when this cgroup has no such knob, else Gone, Garbled or Refused."""
        if kind is not Kind.IO_WEIGHT:
            raise Unsupported(f"{self.path} has no {kind.value}")
        return self._weight()

    def write(self, kind: Kind, value: Value) -> Value:  # noqa: ARG002  # it has one knob
        """Set it for all devices without a weight of their own."""
        self._set(numeric(value))
        return value

    def _weight(self) -> Found:
        raise NotImplementedError

    def _set(self, weight: float) -> None:
        raise NotImplementedError


class BlkioV1(IoCgroup):
    """The blkio controller of one v1 cgroup."""

    controller = "blkio"
    bfq = Weight("blkio.bfq.weight")
    cfq = Weight("blkio.weight")

    def _weight(self) -> Found:
        with contextlib.suppress(Unsupported):
            return Found(self.bfq / 100, 100, 1 / 100, MAX_BFQ / 100)
        return Found(self.cfq / 500, 500, 10 / 500, 1000 / 500)

    def _set(self, weight: float) -> None:
        try:
            self.bfq  # noqa: B018  # raises where BFQ is not there
        except Unsupported:
            self.cfq = self._steps(weight, 500, 10, 1000)
        else:
            self.bfq = self._steps(weight, 100, 1, MAX_BFQ)


class IoV2(IoCgroup):
    """The io controller of one v2 cgroup."""

    weight = DefaultWeight("io.weight")
    bfq = DefaultWeight("io.bfq.weight")

    def unset(self, kind: Kind) -> Found:
        return self._found(DEFAULT_WEIGHT * 100) if kind is Kind.IO_WEIGHT else super().unset(kind)

    def _weight(self) -> Found:
        with contextlib.suppress(Unsupported):
            return self._found(self.weight)
        return Found(self.bfq / 100, 100, 1 / 100, MAX_BFQ / 100)

    def _set(self, weight: float) -> None:
        try:
            before = self.weight
        except Unsupported:
            self.bfq = self._steps(weight, 100, 1, MAX_BFQ)
            return
        steps = self._steps(weight, 100, 1, MAX_V2)
        with contextlib.suppress(AgentError):  # a kernel without BFQ; or one that is just going
            if self.bfq == _of_bfq(before):
                self.bfq = _of_bfq(steps)
        self.weight = steps

    def _found(self, steps: float) -> Found:
        return Found(steps / 100, 100, 1 / 100, MAX_V2 / 100)


def _of_bfq(steps: int) -> int:
    """1..10000 as 1..1000 with the same default."""
    return steps if steps <= 100 else 100 + (steps - 100) * (MAX_BFQ - 100) // (MAX_V2 - 100)
