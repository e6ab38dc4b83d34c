"""Shares of the CPUs that a pod may use: stolen by the hypervisor, and spent in softirqs (/proc/stat).

Invariant: each set of CPUs is added up once a tick, and only if a pod that does something runs on it.
"""

from __future__ import annotations

from nodeagent.core.rates import View
from nodeagent.model.snapshot import CpuTimes
from nodeagent.model.symptom import Sign

_Row = tuple[int, int, int]  # us: all, stolen, softirq


class HostShares:
    """The node's CPUs between the last tick and this one."""

    __slots__ = ("_known", "_rows", "_view")

    def __init__(self, view: View) -> None:
        self._view = view
        self._rows: dict[int, _Row] | None = None
        self._known: dict[frozenset[int] | None, tuple[tuple[Sign, float], ...]] = {}

    def shares(self, cpus: frozenset[int] | None) -> dict[Sign, float]:
        """STEAL and SOFTIRQ of these CPUs (None: of all), in [0, 1]; empty while not known."""
        found = self._known.get(cpus)
        if found is None:
            found = self._known[cpus] = self._add_up(cpus)
        return dict(found)

    def _add_up(self, cpus: frozenset[int] | None) -> tuple[tuple[Sign, float], ...]:
        rows = self._grown()
        chosen = rows.values() if cpus is None else [rows[cpu] for cpu in cpus if cpu in rows]
        whole = sum(row[0] for row in chosen)
        if whole <= 0:
            return ()
        stolen, softirq = sum(row[1] for row in chosen), sum(row[2] for row in chosen)
        return ((Sign.STEAL, stolen / whole), (Sign.SOFTIRQ, softirq / whole))

    def _grown(self) -> dict[int, _Row]:
        if self._rows is None:
            now, before = self._view.snapshot.node.cpus, self._view.node_before
            self._rows = {}
            if now is not None and before is not None and before.cpus is not None:
                old = {row.cpu: row for row in before.cpus}
                pairs = ((row, old[row.cpu]) for row in now if row.cpu in old)
                self._rows = {row.cpu: _row(row, was) for row, was in pairs}
        return self._rows


def _row(now: CpuTimes, old: CpuTimes) -> _Row:
    """Idle and iowait may fall by a little (Linux Documentation/filesystems/proc.rst): what fell counts 0."""
    busy, softirq = max(0, now.busy_us - old.busy_us), max(0, now.softirq_us - old.softirq_us)
    idle = max(0, now.idle_us - old.idle_us) + max(0, now.iowait_us - old.iowait_us)
    stolen = max(0, now.steal_us - old.steal_us)
    return busy + idle + stolen, stolen, softirq
