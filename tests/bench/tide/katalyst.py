"""Katalyst: sysadvisor's dynamic-quota, the CPU headroom (default or util-based) and how it is reported.

Source: kubewharf/katalyst-core, pkg/agent/sysadvisor/plugin/qosaware (provision, headroom, reporter), by the
defaults of its options. One NUMA node; all CPUs are in the reclaim pool (overlap); the target is that of an
unknown microarchitecture. The headroom is computed when it is sampled for the report.
"""

from __future__ import annotations

import math
from collections import deque

from nodeagent.simulate.fluid import Share, Terms
from tests.bench.tide.inputs import Every, Window, online

ADVISE_S = 5.0
TARGET_RATIO = 0.60  # CPU use that dynamic-quota aims at
RESERVED_CORES = 4.0  # for reclaimed_cores
UTIL_TARGET, UTIL_MAX, OVERSOLD_RATE, CAPACITY_RATE = 0.6, 0.0, 1.2, 1.0
SYNC_S, SAMPLES = 30.0, 4
LEAST_STEP_CORES, MOST_STEP_CORES, LEAST_REPORT_CORES = 0.3, 4.0, 4.0
BE_WEIGHT = 2 / 1024


def dynamic_quota(cpus: float, target: float, used: float, reclaim_used: float, reserved: float) -> float:
    """Cores for reclaimed pods; `used` by all, `reclaim_used` of it by them."""
    return max(cpus * (target - used / cpus) + reclaim_used, reserved)


def supply(cpus: float, used: float, reclaim_used: float, quota: float) -> float:
    """What the reclaim pool has in cores, its own use added back."""
    return min(max(cpus - used, 0.0) + reclaim_used, quota)


def util_headroom(
    last: float, supplied: float, reclaim_used: float, target: float, most: float, oversold: float, cap: float
) -> float:
    """Util-based: an integrator of what is shown (`last`), within supply and `oversold` times that."""
    if supplied <= 0.0:
        return 0.0
    util = reclaim_used / supplied
    more = 0.0
    if util < target:
        more = supplied * (target - util)
    elif most > 0.0 and util > most:
        more = supplied * (most - util)
    found = min(max(last + more, supplied), supplied * oversold)
    return min(found, cap) if cap > 0.0 else found


def reported(last: float | None, mean: float) -> float:
    """The next report: small steps ignored, large ones cut in both directions, never below the floor."""
    if last is not None:
        step = mean - last
        if abs(step) < LEAST_STEP_CORES:
            return last
        mean = last + max(-MOST_STEP_CORES, min(MOST_STEP_CORES, step))
    return max(mean, LEAST_REPORT_CORES)


class Katalyst:
    """One lender on a node of `cores`; `util`: with the util-based headroom, which is off by default."""

    def __init__(self, cores: int, *, util: bool) -> None:
        self.name = "katalyst util" if util else "katalyst"
        self._cores, self._util = cores, util
        self._quota = float("inf")
        self._shown: float | None = None
        self._samples: deque[float] = deque(maxlen=SAMPLES)
        self._advise, self._sync = Every(ADVISE_S), Every(SYNC_S)
        self._online, self._reclaim = Window(ADVISE_S), Window(ADVISE_S)

    def start(self, at: float) -> Terms:
        """Nothing is reported before the window is full."""
        self._advise.due(at)
        self._sync.due(at)
        return self._terms()

    def after(self, share: Share) -> Terms:
        """What is not known leaves quota and report as they are: the last value is kept on an error."""
        used = online(share)
        if used is None or share.batch is None:
            return self._terms()
        self._online.add(share.at, used, share.span_s)
        self._reclaim.add(share.at, share.batch, share.span_s)
        now, reclaim = self._online.mean or 0.0, self._reclaim.mean or 0.0
        if self._advise.due(share.at):
            self._quota = dynamic_quota(self._cores, TARGET_RATIO, now + reclaim, reclaim, RESERVED_CORES)
        if self._sync.due(share.at):
            self._samples.append(self._headroom(now, reclaim))
            if len(self._samples) == SAMPLES:
                self._shown = reported(self._shown, sum(self._samples) / SAMPLES)
        return self._terms()

    def _headroom(self, used: float, reclaim: float) -> float:
        there = supply(self._cores, used + reclaim, reclaim, self._quota)
        if not self._util:
            return float(math.floor(there))
        cap = CAPACITY_RATE * self._cores
        last = self._shown or 0.0
        return float(
            math.floor(util_headroom(last, there, reclaim, UTIL_TARGET, UTIL_MAX, OVERSOLD_RATE, cap))
        )

    def _terms(self) -> Terms:
        return Terms(self._quota, self._shown or 0.0, BE_WEIGHT)
