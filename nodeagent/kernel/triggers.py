"""PSI triggers on the LS pods, and on the node where a pod has no pressure of its own (psi.rst).

Only online work that waits shall wake the agent: Batch waiting for CPU is what a full node looks like.
Without CAP_SYS_RESOURCE the kernel takes windows of 2 s only; a tick no longer than that sees it sooner.
"""

from __future__ import annotations

import os
import select

from nodeagent.kernel.mounts import Hierarchies
from nodeagent.kernel.psi_trigger import open_trigger
from nodeagent.model.errors import AgentError

WINDOW_US = 500_000
MAX_TRIGGERS = 32  # each costs a kernel thread, and 14 ms to close
UNPRIVILEGED_WINDOW_S = 2.0
NODE = ""


class Triggers:
    """One descriptor per watched pressure file; where none can be had the timer alone drives the ticks."""

    def __init__(self, host_root: str, hierarchies: Hierarchies, stall_ratio: float, tick_s: float) -> None:
        self._node = os.path.join(host_root, "proc/pressure/cpu")
        self._unified = hierarchies.unified
        self._longer = tick_s > UNPRIVILEGED_WINDOW_S
        self._stall_us = max(1, round(stall_ratio * WINDOW_US))
        self._open: dict[str, int] = {}
        self._failed: set[str] = set()

    def fds(self) -> tuple[int, ...]:
        """Descriptors to poll for POLLPRI."""
        return tuple(self._open.values())

    def sync(self, cgroups: tuple[str, ...]) -> None:
        """Watch exactly these cgroups, and the node if one of them cannot be watched itself."""
        wanted = [c for c in cgroups[:MAX_TRIGGERS] if self._has_pressure(c)]
        if len(wanted) < len(cgroups):
            wanted.append(NODE)
        for gone in self._open.keys() - set(wanted):
            os.close(self._open.pop(gone))
        self._failed &= set(wanted)
        for cgroup in wanted:
            self._add(cgroup)
        if self._failed - {NODE}:
            self._add(NODE)

    def fired(self, fd: int, events: int) -> bool:
        """True for a stall; a descriptor whose cgroup is gone (POLLERR) is closed."""
        if events & (select.POLLERR | select.POLLNVAL):
            for cgroup in [c for c, open_fd in self._open.items() if open_fd == fd]:
                os.close(self._open.pop(cgroup))
            return False
        return bool(events & select.POLLPRI)

    def close(self) -> None:
        """Close all of them."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _path(self, cgroup: str) -> str:
        return self._node if cgroup == NODE else f"{self._unified}/{cgroup}/cpu.pressure"

    def _has_pressure(self, cgroup: str) -> bool:
        return self._unified is not None and os.access(self._path(cgroup), os.R_OK | os.W_OK)

    def _add(self, cgroup: str) -> None:
        if cgroup in self._open or cgroup in self._failed:
            return
        try:
            self._open[cgroup] = open_trigger(
                self._path(cgroup), self._stall_us, WINDOW_US, longer=self._longer
            )
        except AgentError:
            self._failed.add(cgroup)
