"""The dialect of cgroup v1: Linux Documentation/scheduler/sched-bwc.rst, sched-design-CFS.rst and
admin-guide/cgroup-v1/cpusets.rst.

Invariant: the period is only read, never written; it belongs to whoever made the cgroup.
"""

from __future__ import annotations

import math

from nodeagent.kernel.cgroup import Count, Flag, Found, Interface, count
from nodeagent.kernel.cpu import CpuCgroup
from nodeagent.kernel.cpuset import CpusetCgroup, Listed
from nodeagent.model.errors import Refused
from nodeagent.model.plan import Kind, Value, numeric

NESTING = "cgroup v1 refuses a quota above that of a cgroup around it or below that of one inside it"
SUBSETS = (
    "cgroup v1 wants a set within that of the cgroup around it, with all of those inside it, apart from "
    "exclusive ones beside it, and not empty while it has tasks"
)


class Quota(Interface[float]):
    """cpu.cfs_quota_us: microseconds per period; -1 is inf."""

    def parse(self, data: bytes) -> float:
        return math.inf if data.strip() == b"-1" else float(count(data))

    def render(self, value: float) -> str:
        return "-1" if math.isinf(value) else str(int(value))


class CpuV1(CpuCgroup):
    """The cpu controller of one v1 cgroup."""

    default_weight = 1024
    min_weight = 2
    max_weight = 262_144
    nested_quota = True

    cfs_quota_us = Quota("cpu.cfs_quota_us")
    cfs_period_us = Count("cpu.cfs_period_us", seldom=True)
    weight = Count("cpu.shares")
    idle = Flag("cpu.idle")
    burst_us = Count("cpu.cfs_burst_us", seldom=True)

    def bandwidth(self) -> tuple[float, int]:
        return self.cfs_quota_us, self.cfs_period_us

    def set_bandwidth(self, quota_us: float, period_us: int) -> None:  # noqa: ARG002  # a file of its own in v1
        try:
            self.cfs_quota_us = quota_us
        except Refused as refused:
            raise Refused(str(refused), hint=NESTING) from refused


class CpusetV1(CpusetCgroup):
    """The cpuset controller of one v1 cgroup.

    Its effective sets differ from the written ones only where these are empty: a CPU that goes offline leaves
    every set, for good.
    """

    cpus = Listed("cpuset.cpus")
    mems = Listed("cpuset.mems")
    memory_migrate = Flag("cpuset.memory_migrate")

    def read(self, kind: Kind) -> Found:
        if kind is Kind.MIGRATE:
            return Found(float(self.memory_migrate), high=1.0)
        held = self.cpus if kind is Kind.CPUS else self.mems
        return Found(held, nested=True, effective=held)

    def write(self, kind: Kind, value: Value) -> Value:
        if kind is Kind.MIGRATE:
            self.memory_migrate = numeric(value) == 1.0
            return value
        try:
            return super().write(kind, value)
        except Refused as refused:
            raise Refused(str(refused), hint=SUBSETS) from refused
