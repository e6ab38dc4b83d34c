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
    """CPUs in effect of each pod's cgroup: by its knob where that is read, else as of the slow tier."""

    def __init__(self, view: View, knobs: Mapping[Knob, KnobReading]) -> None:
        self._view = view
        self._knobs = knobs
        self._all = frozenset(cpu.id for cpu in view.snapshot.topology.cpus)
        self._told: dict[str, str] | None = None

    def __getitem__(self, cgroup: str) -> frozenset[int]:
        reading = self._knobs.get(Knob(Kind.CPUS, cgroup))
        found = self._symptom(cgroup) if reading is None else reading.effective or reading.actual
        return (_parsed(found) & self._all if isinstance(found, str) else self._all) or self._all

    def _symptom(self, cgroup: str) -> str:
        if self._told is None:
            pods = (p.pod for p in self._view.pods)
            self._told = {p.spec.cgroup: p.symptoms.cpus for p in pods if p.symptoms is not None}
        return self._told.get(cgroup, "")

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
