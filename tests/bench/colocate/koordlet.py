"""A program: koordlet's CPU suppression, policy cfsQuota, as Koordinator publishes it; once a second.

    python -m tests.bench.colocate.koordlet TIER ONLINE ...      cgroups; until a signal ends it

pkg/koordlet/qosmanager/plugins/cpusuppress of koordinator-sh/koordinator. Its Batch ("BE") pods are below one
cgroup, which gets the quota; what is used by neither kind of pod is the system's.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from nodeagent.kernel.mounts import Hierarchies, find_hierarchies
from tests.bench.eval.places import used_s
from tests.bench.eval.watch import busy_s

EVERY_S = 1.0
THRESHOLD_PERCENT = 65.0
PERIOD_US = 100_000
LEAST_QUOTA_US = 2_000
NO_QUOTA_US = -1
SKIPPED_RATIO = 0.01  # of the node's quota: a smaller change is not written
STEP_RATIO = 0.10  # of the node's quota: the largest raise at a time


def suppressed_milli(
    capacity_milli: float,
    online_milli: float,
    pods_milli: float,
    node_milli: float,
    threshold_percent: float = THRESHOLD_PERCENT,
    reserved_milli: float = 0.0,
    least_percent: float = 0.0,
) -> float:
    """What Batch may use, in thousandths of a core: the threshold less online pods' and the system's use.

    `pods_milli` is the use of all pods, `node_milli` that of the node; negative when nothing is left.
    """
    system_milli = max(node_milli - pods_milli, 0.0, reserved_milli)
    target = capacity_milli * threshold_percent / 100.0 - online_milli - system_milli
    return max(target, capacity_milli * least_percent / 100.0) if least_percent > 0.0 else target


def next_quota_us(target_milli: float, current_us: int, cores: int) -> int | None:
    """The quota to write for the Batch tier, None to leave it: down at once, up by STEP_RATIO at most."""
    quota_us = max(int(target_milli * PERIOD_US / 1000), LEAST_QUOTA_US)
    node_us = cores * PERIOD_US
    if abs(quota_us - current_us) < node_us * SKIPPED_RATIO and quota_us != LEAST_QUOTA_US:
        return None
    if current_us != NO_QUOTA_US and quota_us - current_us > node_us * STEP_RATIO:
        return current_us + int(node_us * STEP_RATIO)
    return quota_us


class Suppressor:
    """Looks and writes; `cores` are those of the node."""

    def __init__(self, hierarchies: Hierarchies, tier: str, online: Sequence[str], cores: int) -> None:
        self._hierarchies, self._tier, self._online, self._cores = hierarchies, tier, online, cores
        self._last = self._look()

    def step(self) -> None:
        """One round: what was used since the last one, and the quota for the next one."""
        last, self._last = self._last, self._look()
        dt_s = self._last[0] - last[0]
        node, online, batch = (
            1000 * (now - was) / dt_s for now, was in zip(self._last[1:], last[1:], strict=True)
        )
        target = suppressed_milli(1000.0 * self._cores, online, online + batch, node)
        quota_us = next_quota_us(target, self.quota_us(), self._cores)
        if quota_us is not None:
            self.write(quota_us)

    def quota_us(self) -> int:
        """The tier's quota per PERIOD_US, NO_QUOTA_US without one."""
        first = self._file().read_text().split()[0]
        return NO_QUOTA_US if first == "max" else int(first)

    def write(self, quota_us: int) -> None:
        """Set it."""
        text = str(quota_us)
        if self._hierarchies.roots["cpu"].version == 2:
            text = f"{'max' if quota_us == NO_QUOTA_US else quota_us} {PERIOD_US}"
        self._file().write_text(text)

    def _file(self) -> Path:
        root = self._hierarchies.roots["cpu"]
        return Path(root.root, self._tier, "cpu.cfs_quota_us" if root.version == 1 else "cpu.max")

    def _look(self) -> tuple[float, float, float, float]:
        """(now, node, online, Batch), in seconds of CPU."""
        online = sum(used_s(self._hierarchies, cgroup) for cgroup in self._online)
        return time.monotonic(), busy_s(), online, used_s(self._hierarchies, self._tier)


def main(tier: str, *online: str) -> None:
    """Suppress until SIGTERM; then the tier has no quota, as when the feature is switched off."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    import psutil

    suppressor = Suppressor(find_hierarchies(), tier, online, psutil.cpu_count() or 1)
    try:
        while not ended.wait(EVERY_S):
            suppressor.step()
    finally:
        suppressor.write(NO_QUOTA_US)


if __name__ == "__main__":
    main(*sys.argv[1:])
