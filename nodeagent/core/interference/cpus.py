"""The CPUs that each pod may use, by cgroup: looked up when asked for, since most pods are never asked about.

Invariant: where the set in effect is not known, it is all CPUs of the node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

from nodeagent.core.rates import View
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.plan import Kind, Knob, KnobReading


class CpusOf(Mapping[str, frozenset[int]]):
    """CPUs in effect of each pod's cgroup (Linux cgroup-v2.rst, cpuset.cpus.effective)."""

    def __init__(self, view: View, knobs: Mapping[Knob, KnobReading]) -> None:
        self._view = view
        self._knobs = knobs
        self._all = frozenset(cpu.id for cpu in view.snapshot.topology.cpus)

    def __getitem__(self, cgroup: str) -> frozenset[int]:
        reading = self._knobs.get(Knob(Kind.CPUS, cgroup))
        if reading is None:
            return self._all
        found = reading.effective or reading.actual
        return (_parsed(found) & self._all if isinstance(found, str) else self._all) or self._all

    def __iter__(self) -> Iterator[str]:
        return (p.pod.spec.cgroup for p in self._view.pods)

    def __len__(self) -> int:
        return len(self._view.pods)


@lru_cache(maxsize=256)
def _parsed(text: str) -> frozenset[int]:
    try:
        return CpuSet.parse(text)
    except ValueError:
        return frozenset()
