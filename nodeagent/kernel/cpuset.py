"""The cpuset controller's knobs as sets: what the two dialects share.

Invariant: a set is read as `str(CpuSet)` gives it, so that what was written compares equal to what is found.
"""

from __future__ import annotations

from nodeagent.kernel.cgroup import Found, Interface, KnobCgroup
from nodeagent.model.cpuset import canonical
from nodeagent.model.errors import Unsupported
from nodeagent.model.plan import Kind, Value, listed


class Listed(Interface[str]):
    """A set in the kernel's list format; a blank line is the empty one."""

    def parse(self, data: bytes) -> str:
        text = canonical(data.decode("ascii"))
        if text is None:
            raise ValueError("not a list of numbers")
        return text

    def render(self, value: str) -> str:
        return value or "\n"  # a write of no bytes at all does nothing


class CpusetCgroup(KnobCgroup):
    """What the two dialects of the cpuset controller share."""

    # 8192 CPUs (CONFIG_NR_CPUS of distributions), every other one in the set
    max_bytes = 32 << 10
    controller = "cpuset"
    cpus: Listed
    mems: Listed

    def read(self, kind: Kind) -> Found:
        """Unsupported when this cgroup has no such knob, else Gone, Garbled or Refused."""
        raise NotImplementedError

    def write(self, kind: Kind, value: Value) -> Value:
        """Set it; the kernel refuses what does not fit."""
        if kind is Kind.CPUS:
            self.cpus = listed(value)
        elif kind is Kind.MEMS:
            self.mems = listed(value)
        else:
            raise Unsupported(f"{self.path} has no {kind.value}")
        return value
