"""The dialect of cgroup v2: Linux Documentation/admin-guide/cgroup-v2.rst, "CPU" and "Cpuset".

Invariant: the period is written back as it was found; it belongs to whoever made the cgroup.
"""

from __future__ import annotations

import math

from nodeagent.kernel.cgroup import Count, Flag, Found, Interface, count
from nodeagent.kernel.cpu import MAX_QUOTA_US, MIN_QUOTA_US, CpuCgroup
from nodeagent.kernel.cpuset import CpusetCgroup, Listed
from nodeagent.kernel.files import read_whole
from nodeagent.model.cpuset import canonical
from nodeagent.model.errors import Gone, Refused, Unsupported
from nodeagent.model.plan import DEFAULT_WEIGHT, Kind, Value

DEFAULT_PERIOD_US = 100_000  # Linux kernel/sched/core.c: default_cfs_period

# The numbers are the kernel's own: the same in every mount of /sys.
POSSIBLE = {
    Kind.CPUS: "/sys/devices/system/cpu/possible",
    Kind.MEMS: "/sys/devices/system/node/possible",
}


class QuotaPair(Interface[tuple[float, int]]):
    """cpu.max: "QUOTA PERIOD" in microseconds; "max" is inf."""

    def parse(self, data: bytes) -> tuple[float, int]:
        quota, period = data.split()
        return math.inf if quota == b"max" else float(count(quota)), count(period)

    def render(self, value: tuple[float, int]) -> str:
        quota_us, period_us = value
        return f"max {period_us}" if math.isinf(quota_us) else f"{int(quota_us)} {period_us}"


class CpuV2(CpuCgroup):
    """The cpu controller of one v2 cgroup."""

    default_weight = 100
    min_weight = 1
    max_weight = 10_000
    nested_quota = False

    max = QuotaPair("cpu.max")
    weight = Count("cpu.weight")
    idle = Flag("cpu.idle")
    burst_us = Count("cpu.max.burst", seldom=True)

    def bandwidth(self) -> tuple[float, int]:
        return self.max

    def unset(self, kind: Kind) -> Found:
        if kind is Kind.CPU_QUOTA:
            low, high = MIN_QUOTA_US / DEFAULT_PERIOD_US, MAX_QUOTA_US / DEFAULT_PERIOD_US
            return Found(math.inf, DEFAULT_PERIOD_US, low, high)
        if kind is Kind.CPU_WEIGHT:
            scale = self.default_weight
            return Found(DEFAULT_WEIGHT, scale, self.min_weight / scale, self.max_weight / scale)
        return super().unset(kind)

    def set_bandwidth(self, quota_us: float, period_us: int) -> None:
        self.max = (quota_us, period_us)


class CpusetV2(CpusetCgroup):
    """The cpuset controller of one v2 cgroup: any set is taken, an empty one is as the cgroup around.

    A write of cpuset.mems moves the pages too: Linux kernel commit ee9707e8593d
    ("cgroup/cpuset: Enable memory migration for cpuset v2") (in v5.15).
    """

    def write(self, kind: Kind, value: Value) -> Value:
        """Set it. A kernel that empties no set with tasks in it (ENOSPC) gets all that there can ever be.

        That means the same: CPUs that are offline just now count as soon as they come back.
        """
        try:
            return super().write(kind, value)
        except Refused:
            if value != "":
                raise
        possible = read_whole(POSSIBLE[kind], self.max_bytes)
        return super().write(kind, canonical(possible.decode("ascii", "replace")) or "")

    def unset(self, kind: Kind) -> Found:
        if kind not in (Kind.CPUS, Kind.MEMS):
            return super().unset(kind)
        return Found("", effective=self._above(kind))

    def _above(self, kind: Kind) -> str:
        """The effective set of the nearest cgroup that has one; the root always has."""
        name = "cpuset.cpus.effective" if kind is Kind.CPUS else "cpuset.mems.effective"
        path = self.path
        while path := path.rpartition("/")[0]:
            try:
                text = read_whole(f"{path}/{name}", self.max_bytes).decode("ascii", "replace")
            except Gone:
                continue
            return canonical(text) or ""
        raise Unsupported(f"{self.path}: no {name} above it")

    cpus = Listed("cpuset.cpus")
    cpus_effective = Listed("cpuset.cpus.effective")
    mems = Listed("cpuset.mems")
    mems_effective = Listed("cpuset.mems.effective")

    def read(self, kind: Kind) -> Found:
        if kind is Kind.CPUS:
            return Found(self.cpus, effective=self.cpus_effective)
        if kind is Kind.MEMS:
            return Found(self.mems, effective=self.mems_effective)
        raise Unsupported(f"{self.path} has no {kind.value}", hint="v2 moves pages without being told")
