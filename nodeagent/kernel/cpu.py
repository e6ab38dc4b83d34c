"""The cpu controller's knobs in cores and weights: what the two dialects share.

Invariant: a value is read and written with the same float expression (steps / scale), so that what was
written compares equal to what is found.
"""

from __future__ import annotations

import math
from functools import lru_cache

from nodeagent.kernel.cgroup import Count, Flag, Found, KnobCgroup
from nodeagent.model.errors import Garbled, Unsupported
from nodeagent.model.plan import Kind, Value, numeric

MIN_QUOTA_US = 1000  # Linux kernel/sched/core.c: min_cfs_quota_period
# Linux kernel commit d505b8af5891 ("sched: Defend cfs and rt bandwidth quota against overflow") (in v5.8)
MAX_QUOTA_US = (1 << 44) - 1


class CpuCgroup(KnobCgroup):
    """What the two dialects of the cpu controller share: cores and weights, and how idle hangs together.

    cpu.idle and the weight are one knob, because the kernel couples them: with cpu.idle=1 it refuses any
    weight, and leaving idle resets the weight to its default. Linux kernel commit 304000390f88
    ("sched: Cgroup SCHED_IDLE support") (in v5.15).
    """

    default_weight: int
    max_weight: int
    min_weight: int
    nested_quota: bool  # the kernel refuses a quota above the nearest limited ancestor's

    weight: Count
    idle: Flag
    burst_us: Count
    _lacks_idle = False  # seen while the weight was there: then it is the kernel that has no cpu.idle
    _lacks_burst = False  # the same, beside the quota

    def bandwidth(self) -> tuple[float, int]:
        """(quota_us or inf, period_us)."""
        raise NotImplementedError

    def set_bandwidth(self, quota_us: float, period_us: int) -> None:
        raise NotImplementedError

    def drop_kept(self) -> None:
        self._lacks_idle = self._lacks_burst = False
        super().drop_kept()

    def read(self, kind: Kind) -> Found:
        """Unsupported when this cgroup has no such knob, else Gone, Garbled or Refused."""
        if kind is Kind.CPU_BURST:
            return self._burst()
        return self._quota() if kind is Kind.CPU_QUOTA else self._weight()

    def write(self, kind: Kind, value: Value) -> Value:
        """Set it. Refused, without a try, when the value is outside of what the kernel takes."""
        if kind is Kind.CPU_QUOTA:
            self._set_quota(numeric(value))
        elif kind is Kind.CPU_BURST:
            self._set_burst(numeric(value))
        else:
            self._set_weight(numeric(value))
        return value

    def _quota(self) -> Found:
        return _found_quota(*self._bandwidth(), self._burst_us(), self.nested_quota)

    def _burst(self) -> Found:
        quota_us, period_us = self._bandwidth()
        return Found(self.burst_us / period_us, period_us, high=min(quota_us, MAX_QUOTA_US) / period_us)

    def _bandwidth(self) -> tuple[float, int]:
        quota_us, period_us = self.bandwidth()
        if period_us <= 0:
            raise Garbled(f"{self.path}: a CFS period of {period_us} us")
        return quota_us, period_us

    def _burst_us(self) -> int:
        """0 on a kernel without it: Linux commit f4183717b370 ("sched/fair: Introduce the burstable CFS
        controller") (in v5.14). A quota below it is refused: kernel/sched/core.c, tg_set_cfs_bandwidth."""
        if self._lacks_burst:
            return 0
        try:
            return self.burst_us
        except Unsupported:
            self._lacks_burst = True
            return 0

    def _set_quota(self, cores: float) -> None:
        _, period_us = self.bandwidth()
        low_us = max(MIN_QUOTA_US, self._burst_us())
        quota_us = cores if math.isinf(cores) else self._steps(cores, period_us, low_us, MAX_QUOTA_US)
        self.set_bandwidth(quota_us, period_us)

    def _set_burst(self, cores: float) -> None:
        quota_us, period_us = self._bandwidth()
        self.burst_us = self._steps(cores, period_us, 0, int(min(quota_us, MAX_QUOTA_US)))

    def _weight(self) -> Found:
        scale = self.default_weight
        has_idle, idle = self._idle()
        actual = 0.0 if idle else self.weight / scale
        self._lacks_idle = not has_idle
        return Found(actual, scale, self.min_weight / scale, self.max_weight / scale, has_idle=has_idle)

    def _set_weight(self, value: float) -> None:
        has_idle, idle = self._idle()
        if value == 0.0:
            if not has_idle:
                raise Unsupported(f"{self.path} has no cpu.idle", hint="Linux has it from 5.15 on")
            self.idle = True
            return
        weight = self._steps(value, self.default_weight, self.min_weight, self.max_weight)
        if idle:
            self.idle = False
        self.weight = weight

    def _idle(self) -> tuple[bool, bool]:
        if self._lacks_idle:
            return False, False
        try:
            return True, self.idle
        except Unsupported:
            return False, False


@lru_cache(maxsize=512)
def _found_quota(quota_us: float, period_us: int, burst_us: int, nested: bool) -> Found:
    """Most pods have one of few quotas, and the same one as in the last tick."""
    low, high = MIN_QUOTA_US / period_us, MAX_QUOTA_US / period_us
    return Found(quota_us / period_us, period_us, low, high, nested=nested, burst=burst_us / period_us)
