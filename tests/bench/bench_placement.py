"""Placement: what a decision costs, how fragmented the machine gets, and how many CPUs move.

A pod is missed when it is on more NUMA nodes than it would need on an empty machine, although all pods that
are there could be packed so that each is on its least number: on small machines tried exhaustively, on large
ones taken for granted. That packing may move pods; placement never does.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
from collections import Counter
from functools import partial

from nodeagent.core.placement import place
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.placement import BindRequest, Placement
from nodeagent.model.topology import Topology
from tests.bench.packing import Greedy, least_bins, packable
from tests.bench.table import Figure, cpu_s, in_turns, show
from tests.unit.machines import MACHINES, Layout, free_bytes

WIDE = Layout(sockets=2, nodes=4, caches=4, cores=8).topology()  # 256 CPUs, each a core: room for 250 pods
SMT = MACHINES["2 sockets of 4 nodes of 4 L3"]  # 256 CPUs, 128 cores
ROUNDS = 20
PODS = (60, 120, 250)
ARRIVALS = 10_000
LARGE = (
    "2 sockets of 64 cores SMT",
    "4 sockets of 16 cores SMT",
    "8 sockets of 8 cores SMT",
    "2 sockets in 4 sub-NUMA clusters",
    "2 sockets of 8 L3",
    "2 sockets of 4 nodes of 2 L3",
    "2 sockets of 4 nodes of 4 L3",
    "2 sockets of 8 nodes",
)
SMALL = {
    "2 nodes of 8 CPUs": Layout(sockets=2, cores=8).topology(),
    "4 nodes of 6 CPUs": Layout(sockets=4, cores=6).topology(),
    "4 nodes of 4 cores SMT": Layout(sockets=2, nodes=2, cores=4, threads=2).topology(),
}
LOAD = 0.7  # of all CPUs: at this share as many pods leave as arrive


class Life:
    """Bound pods that come and go on one machine, in step with the greedy rule, and what became of them."""

    def __init__(
        self, topology: Topology, seed: int, *, exhaustive: bool = False, uniform: bool = False
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._topology = topology
        self._dice = random.Random(seed)
        self._exhaustive = exhaustive
        self._uniform = uniform
        self._threads = len(topology.cpus[0].siblings)
        self._bins = [len(node.cpus) // self._threads for node in topology.nodes]
        self._home = {cpu.id: cpu.numa_node for cpu in topology.cpus}
        self._requests: dict[str, BindRequest] = {}
        self._placement: Placement | None = None
        self._greedy = Greedy(topology)
        self._greedy_of: dict[str, frozenset[int]] = {}
        self._batch_cores = topology.cores * 0.2

    def run(self, arrivals: int) -> Counter[str]:
        """Until so many pods have been placed."""
        while self.counts["arrivals"] < arrivals:
            bound = sum(request.cpus for request in self._requests.values())
            if self._dice.random() < bound / (2 * LOAD * self._topology.cores):
                self._leave(self._dice.choice(list(self._requests)))
            else:
                self._arrive(f"pod-{self.counts['arrivals'] + self.counts['refused']}")
        return self.counts

    def _leave(self, uid: str) -> None:
        del self._requests[uid]
        self._greedy.free |= self._greedy_of.pop(uid)
        self._decide(dict(self._requests))

    def _arrive(self, uid: str) -> None:
        cores = self._size()
        asked = {**self._requests, uid: BindRequest(uid, cores * self._threads)}
        if sum(r.cpus for r in asked.values()) > self._topology.cores - self._threads:
            self.counts["refused"] += 1  # no algorithm has room: the pools keep a core
            return
        now = self._decide(asked)
        self._requests = asked
        mine = next(placed.cpus for placed in now.bound if placed.uid == uid)
        theirs = self._greedy_of[uid] = self._greedy.take(cores * self._threads)
        least = least_bins(self._bins, cores)
        could = not self._exhaustive or packable(
            self._bins, [r.cpus // self._threads for r in asked.values()]
        )
        self.counts["arrivals"] += 1
        self.counts["load"] += round(100 * sum(r.cpus for r in asked.values()) / self._topology.cores)
        self.counts["could"] += could
        self.counts["least"] += could and self._span(CpuSet.parse(mine)) == least
        self.counts["greedy"] += could and self._span(theirs) == least

    def _size(self) -> int:
        """Cores: mostly up to a quarter of a NUMA node, some up to a node, few beyond; or all alike."""
        node = self._bins[0]
        dice = 0.95 if self._uniform else self._dice.random()
        if dice > 0.98:
            return node + self._dice.randint(1, node)
        share = 0.25 if dice < 0.6 else 0.5 if dice < 0.9 else 1.0
        return self._dice.randint(1, max(1, round(node * share)))

    def _span(self, cpus: frozenset[int]) -> int:
        return len({self._home[cpu] for cpu in cpus})

    def _decide(self, asked: dict[str, BindRequest]) -> Placement:
        if self._dice.random() < 0.3:
            self._batch_cores = self._topology.cores * self._dice.uniform(0.05, 0.5)
        now = place(
            self._topology,
            tuple(asked.values()),
            self._placement,
            free_bytes(self._topology),
            batch_cores=self._batch_cores,
            batch_floor_cpus=self._threads,
            hands_off=CpuSet(),
        )
        if self._placement is not None:
            self._count_moves(self._placement, now)
        self._placement = now
        return now

    def _count_moves(self, before: Placement, now: Placement) -> None:
        old, new = CpuSet.parse(before.batch), CpuSet.parse(now.batch)
        bound = {placed.uid: placed.cpus for placed in now.bound}
        self.counts["bound moved"] += sum(bound.get(p.uid, p.cpus) != p.cpus for p in before.bound)
        self.counts["moved"] += len(old ^ new)
        self.counts["moved at least"] += self._least_moves(old, now) * self._threads

    def _least_moves(self, old: CpuSet, now: Placement) -> int:
        """Cores that Batch had to gain or give for its shares, were the cores of a node all alike."""
        owned: set[int] = set().union(*(CpuSet.parse(placed.cpus) for placed in now.bound))
        free = [len(set(n.cpus) - owned) // self._threads for n in self._topology.nodes]
        held = [len(old & set(n.cpus)) // self._threads for n in self._topology.nodes]
        wanted = len(CpuSet.parse(now.batch)) // self._threads
        shares = [wanted * cores / sum(free) for cores in free]
        counts = [
            min(max(had, math.floor(share)), math.ceil(share))
            for had, share in zip(held, shares, strict=True)
        ]
        return sum(abs(a - b) for a, b in zip(held, counts, strict=True)) + abs(wanted - sum(counts))


def main() -> bool:
    """Print the tables; True when all targets were held."""
    large, small, even = Counter[str](), Counter[str](), Counter[str]()
    for seed, name in enumerate(LARGE):
        large += Life(MACHINES[name], seed).run(ARRIVALS // len(LARGE))
    for seed, topology in enumerate(SMALL.values()):
        small += Life(topology, seed, exhaustive=True).run(ARRIVALS // 10)
        even += Life(topology, seed, exhaustive=True, uniform=True).run(ARRIVALS // 10)
    return all([_cost(), _fragmentation(large, small, even), _moves(large + small + even)])


def _requests(pods: int) -> tuple[BindRequest, ...]:
    return tuple(BindRequest(f"pod-{n:03}", 1, 1 << 30) for n in range(pods))


def _decision(topology: Topology, pods: int, current: Placement | None) -> Placement:
    return place(
        topology,
        _requests(pods),
        current,
        free_bytes(topology),
        batch_cores=40.0,
        batch_floor_cpus=2,
        hands_off=CpuSet(),
    )


def _cost() -> bool:
    variants = {}
    for name, topology in (("256 cores", WIDE), ("128 cores SMT", SMT)):
        for pods in PODS:
            placed = _decision(topology, pods, None)
            variants[f"{pods} pods, {name}: again"] = partial(
                cpu_s, partial(_decision, topology, pods, placed)
            )
            variants[f"{pods} pods, {name}: all new"] = partial(
                cpu_s, partial(_decision, topology, pods, None)
            )
    costs = {name: statistics.median(c) * 1e3 for name, c in in_turns(variants, ROUNDS).items()}
    few, some, many = (costs[f"{pods} pods, 256 cores: again"] for pods in PODS)
    slope = ((many - some) / (PODS[2] - PODS[1])) / ((some - few) / (PODS[1] - PODS[0]))
    return show(
        f"One placement decision on 256 CPUs, CPU time, median of {ROUNDS} rounds in turns",
        [
            *(Figure(name, ms, "ms", 5.0 if name.startswith("250") else None) for name, ms in costs.items()),
            Figure(f"each pod of {PODS[1]} to {PODS[2]} / of {PODS[0]} to {PODS[1]}", slope, "x", 1.3),
        ],
    )


def _fragmentation(large: Counter[str], small: Counter[str], even: Counter[str]) -> bool:
    def missed(counts: Counter[str], who: str = "least") -> float:
        return 100 * (1 - counts[who] / counts["could"])

    bound = large["load"] / 100 / large["arrivals"]
    return show(
        f"Bound pods not on the least number of NUMA nodes, {bound:.0%} of the CPUs bound",
        [
            Figure("large machines: arrivals", large["arrivals"], "pods"),
            Figure("large machines: missed", missed(large), "%", 5.0),
            Figure("large machines: missed by the greedy rule", missed(large, "greedy"), "%"),
            Figure("ours / greedy rule", missed(large) / missed(large, "greedy"), "x", 1.0),
            Figure("small machines: any packing could", small["could"], "pods"),
            Figure("small machines: missed of those", missed(small), "%", 5.0),
            Figure("small machines: missed of those by the greedy rule", missed(small, "greedy"), "%"),
            Figure("the same, all sizes up to a node alike: any could", even["could"], "pods"),
            Figure("the same: missed", missed(even), "%"),
            Figure("the same: missed by the greedy rule", missed(even, "greedy"), "%"),
        ],
    )


def _moves(counts: Counter[str]) -> bool:
    return show(
        "CPUs moved, arrivals and departures with a Batch capacity that changes",
        [
            Figure("bound pods moved", counts["bound moved"], "pods", 0.0),
            Figure("CPUs that Batch gained or gave", counts["moved"], "CPUs"),
            Figure("the least that its shares allow", counts["moved at least"], "CPUs"),
            Figure("moved / least", counts["moved"] / counts["moved at least"], "x", 1.2),
        ],
    )


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
