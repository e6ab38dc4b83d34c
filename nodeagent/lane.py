"""The fast lane: between ticks, who of the LS pods waits for CPU in this moment, and what online work uses.

    node   /proc/pressure/cpu
     +- cgroup above LS pods   its cpu.pressure
         +- LS pod             its cpu.pressure; where it has none, its threads' run-queue delays

A pod is read only while all above it waited for so long that it may have waited too long: on a node at rest a
look is a few reads, however many pods there are. Pods are read through the reader's own descriptors.

Invariant: what cannot be read tells nothing; a look costs no more than MOST pods of each cgroup.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

from nodeagent.core import waits
from nodeagent.core.rise import outside_cores
from nodeagent.core.surge import Look, Trail, began, lately, noted, share
from nodeagent.kernel.pod_reader import PodReader
from nodeagent.kernel.reader import NodeReader
from nodeagent.model.snapshot import Stalled

MOST = 32  # pods below one cgroup in one look
MOST_BY_THREADS = 8  # the same of those without pressure of their own, each of up to 64 threads


class _Gate:
    """The pressure of all that is in one cgroup, or of the node, and the LS pods right below."""

    def __init__(self, reader: NodeReader, path: str, most: int) -> None:
        self.file = reader.pressure(path)
        self.pods: list[PodReader] = []
        self.trail: Trail = ()
        self.start: Look | None = None  # where the moment begins that ends with the last look
        self.at_tick: Look | None = None
        self._most = most

    def look(self, at: float, above: Trail = ()) -> None:
        found, above_us = self.file.value(), above[-1].waited_us if above else 0
        self.trail = () if found is None else noted(self.trail, Look(at, found.some_us, above_us))
        self.start = began(self.trail)

    def shut(self, most_ratio: float, above: Look | None = None) -> bool:
        """Nobody inside waited more than `most_ratio` of this moment. What is not known leaves it open."""
        found = lately(self.trail, above)
        return found is not None and share(*found) <= most_ratio

    def chosen(self, trails: Mapping[PodReader, Trail], levels: Mapping[PodReader, float]) -> list[PodReader]:
        """Half are those that waited most when last looked at, the others those that were not for longest."""
        if len(self.pods) <= self._most:
            return self.pods
        first = heapq.nlargest(self._most // 2, self.pods, key=lambda pod: levels.get(pod, 0.0))
        taken = set(first)
        others = [pod for pod in self.pods if pod not in taken]
        return first + heapq.nsmallest(
            self._most - len(first), others, key=lambda pod: _seen_at(trails.get(pod, ()))
        )


class Lane:
    """Looks at the LS pods of `reader`; `close` it before that. `node` is the path of the node's pressure."""

    def __init__(self, reader: NodeReader, node: str) -> None:
        self._reader = reader
        self._node = _Gate(reader, node, MOST_BY_THREADS)
        self._gates: dict[str, _Gate] = {}
        self._trails: dict[PodReader, Trail] = {}
        self._levels: dict[PodReader, float] = {}  # share of the moment before the last look at each
        self._outside = reader.outside_batch()
        self._batch: tuple[str, ...] = ()
        self._spent: Trail = ()
        self._ticked_at = 0.0
        self.looked_at = 0  # pods read in the last look
        self.outside_cores: float | None = None  # used outside Batch, as of the last look or tick

    def follow(self, batch: tuple[str, ...]) -> None:
        """Batch is in these cgroups from now on, none of which is inside another."""
        if batch != self._batch:
            self._batch, self._spent = batch, ()  # what a cgroup that is gone has used counts elsewhere now
            self._outside.follow(batch)

    def ticking(self, at: float, most_ratio: float) -> None:
        """A tick begins: what is above the pods must not be read later than they are."""
        self._look_above(at)
        for gate in self._open(most_ratio):
            for pod in gate.pods:
                self._trails[pod] = self._until_now(pod, gate)

    def ticked(self, at: float, most_ratio: float) -> tuple[Stalled, ...]:
        """All pods were read at `at`: who waited for more than `most_ratio` of the moment before."""
        self._ticked_at = at
        self._follow(at)
        for gate in (self._node, *self._gates.values()):
            gate.at_tick = gate.trail[-1] if gate.trail else None
        looked = (
            self._judged(pod, gate, self._trails.get(pod, ()), at, _told(pod))
            for gate in self._open(most_ratio)
            for pod in gate.pods
        )
        return _over(looked, most_ratio)

    def look(self, at: float, most_ratio: float) -> tuple[Stalled, ...]:
        """The same between two ticks, of as many pods as one look is worth."""
        self.looked_at = 0
        self._look_above(at)
        chosen = [
            (pod, gate) for gate in self._open(most_ratio) for pod in gate.chosen(self._trails, self._levels)
        ]
        self.looked_at = len(chosen)
        looked = (
            self._judged(pod, gate, self._until_now(pod, gate), at, pod.waited(at)) for pod, gate in chosen
        )
        return _over(looked, most_ratio)

    def close(self) -> None:
        """Close what it has opened itself."""
        for gate in (self._node, *self._gates.values()):
            gate.file.close()
        self._gates = {}
        self._outside.close()

    def _look_above(self, at: float) -> None:
        used_us = self._outside.used_us()
        self._spent = () if used_us is None else noted(self._spent, Look(at, used_us))
        self.outside_cores = outside_cores(self._spent)
        self._node.look(at)
        for gate in self._gates.values():
            gate.look(at, self._node.trail)

    def _open(self, most_ratio: float) -> list[_Gate]:
        if self._node.shut(most_ratio):
            return []
        below = [gate for gate in self._gates.values() if not gate.shut(most_ratio, self._node.start)]
        return [self._node, *below]

    def _follow(self, at: float) -> None:
        """Which LS pod is below which gate now."""
        below: dict[str, list[PodReader]] = {}
        for pod in self._reader.latency_sensitive():
            above = "" if pod.psi_directory is None else pod.psi_directory.rpartition("/")[0]
            below.setdefault(above, []).append(pod)
        if self._trails:
            here = {pod for pods in below.values() for pod in pods}
            self._trails = {pod: trail for pod, trail in self._trails.items() if pod in here}
            self._levels = {pod: level for pod, level in self._levels.items() if pod in here}
        self._node.pods = below.pop("", [])
        for gone in self._gates.keys() - below.keys():
            self._gates.pop(gone).file.close()
        for above, pods in below.items():
            if above not in self._gates:
                self._gates[above] = _Gate(self._reader, f"{above}/cpu.pressure", MOST)
                self._gates[above].look(at, self._node.trail)
            self._gates[above].pods = pods

    def _judged(
        self, pod: PodReader, gate: _Gate, trail: Trail, at: float, total: tuple[int, int] | None
    ) -> Stalled | None:
        """How long it waited in this moment, if that is known; remembers the look."""
        if total is None:
            return None
        above_us = gate.trail[-1].waited_us if gate.trail else 0
        self._trails[pod] = trail = noted(trail, Look(at, total[0], above_us, total[1]))
        moment = lately(trail, gate.start)
        if moment is None:
            return None
        self._levels[pod] = share(*moment)
        return Stalled(pod.spec.uid, *moment)

    def _until_now(self, pod: PodReader, gate: _Gate) -> Trail:
        """The looks before this one, with what the last tick has read."""
        trail, told = self._trails.get(pod, ()), _told(pod)
        if told is None or gate.at_tick is None or (trail and trail[-1].at >= self._ticked_at):
            return trail
        return noted(trail, Look(self._ticked_at, told[0], gate.at_tick.waited_us, told[1]))


def _over(looked: Iterable[Stalled | None], most_ratio: float) -> tuple[Stalled, ...]:
    return tuple(s for s in looked if s is not None and share(s.span_s, s.waited_s) > most_ratio)


def _seen_at(trail: Trail) -> float:
    return trail[-1].at if trail else 0.0


def _told(pod: PodReader) -> tuple[int, int] | None:
    """us waited, and of these by its own quota, as the last tick has read it."""
    return None if pod.pod is None else waits.totals(pod.pod)
