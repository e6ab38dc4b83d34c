"""Pods that come and go on a machine, and the laws that every placement of them obeys."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from nodeagent.core.placement import place
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.placement import BindRequest, Placed, Placement
from nodeagent.model.topology import Topology
from tests.unit.machines import free_bytes


@dataclass
class Life:
    """A machine, who is on it, and the placement until now."""

    topology: Topology
    requests: tuple[BindRequest, ...] = ()
    placement: Placement | None = None
    memory: Mapping[int, int] = field(default_factory=dict)
    batch_cores: float = 1.0
    floor: int = 1
    hands_off: CpuSet = field(default_factory=CpuSet)
    mid_cpus: int = 0

    def __post_init__(self) -> None:
        self.memory = self.memory or free_bytes(self.topology)
        self.hands_off = CpuSet(self.hands_off | set(self.topology.isolated))

    def next(self, defragment: bool = False) -> Placement:
        """What `place` says now; nothing is remembered."""
        return place(
            self.topology,
            self.requests,
            self.placement,
            self.memory,
            batch_cores=self.batch_cores,
            batch_floor_cpus=self.floor,
            hands_off=self.hands_off,
            mid_cpus=self.mid_cpus,
            defragment=defragment,
        )

    def step(self, defragment: bool = False) -> Placement:
        """Decide, check every law, decide again: nothing may move. The placement is remembered."""
        self.placement = self.next(defragment)
        self.check()
        assert self.next() == self.placement, "a second decision moves nothing"
        return self.placement

    def arrive(self, *requests: BindRequest) -> Placement:
        """These pods come, in one decision."""
        self.requests += requests
        return self.step()

    def leave(self, *uids: str) -> Placement:
        """These pods go."""
        self.requests = tuple(r for r in self.requests if r.uid not in uids)
        return self.step()

    @property
    def usable(self) -> set[int]:
        return {cpu.id for cpu in self.topology.cpus} - self.hands_off

    def whole(self) -> list[frozenset[int]]:
        """The cores that are in our hands with every online sibling."""
        online = {cpu.id for cpu in self.topology.cpus}
        cores = {frozenset(cpu.siblings or (cpu.id,)) & online for cpu in self.topology.cpus}
        return sorted((core for core in cores if core <= self.usable), key=min)

    def node_of(self, cpus: str | set[int]) -> set[int]:
        """The NUMA nodes of these CPUs."""
        wanted = cpu_ids(cpus) if isinstance(cpus, str) else cpus
        return {n.id for n in self.topology.nodes if wanted & set(n.cpus)}

    def check(self) -> None:
        """Every law of placement that holds for one moment."""
        now = self.placement
        assert now is not None
        asked = {r.uid: r for r in self.requests}
        uids = [placed.uid for placed in now.bound] + [uid for uid, _ in now.unplaced]
        assert sorted(uids) == sorted(asked), "each pod is placed or told why not"
        assert all(reason for _, reason in now.unplaced)
        owned: set[int] = set()
        whole = self.whole()
        for placed in now.bound:
            self._check_bound(placed, asked[placed.uid], whole)
            if asked[placed.uid].exclusive:
                self._check_alone(placed, now)
            assert not owned & cpu_ids(placed.cpus), "no CPU has two owners"
            owned |= cpu_ids(placed.cpus)
        self._check_pools(now, owned)

    def _check_bound(self, placed: Placed, request: BindRequest, whole: list[frozenset[int]]) -> None:
        mine = cpu_ids(placed.cpus)
        with_memory = {n.id for n in self.topology.nodes if n.memory_bytes != 0}
        assert len(mine) >= request.cpus
        assert cpu_ids(placed.mems) and cpu_ids(placed.mems) <= with_memory
        if not request.exclusive:
            cores = [core for core in whole if core & mine]
            assert mine == set().union(*cores), "whole cores only"
            assert all(len(mine) - len(core) < request.cpus for core in cores), "and no core too many"

    def _check_alone(self, placed: Placed, now: Placement) -> None:
        nodes = self.node_of(placed.cpus)
        all_cpus = {c for n in self.topology.nodes if n.id in nodes for c in n.cpus}
        assert cpu_ids(placed.cpus) == all_cpus & self.usable
        assert not nodes & cpu_ids(now.shared_mems) and not nodes & cpu_ids(now.batch_mems)
        others = [other for other in now.bound if other is not placed]
        assert not any(nodes & (cpu_ids(o.mems) | self.node_of(o.cpus)) for o in others)

    def _check_pools(self, now: Placement, owned: set[int]) -> None:
        shared, mid, batch = cpu_ids(now.shared), cpu_ids(now.mid), cpu_ids(now.batch)
        assert owned | shared | mid == self.usable, "together all that is ours"
        assert not owned & (shared | mid), "no CPU of a bound pod is in a pool"
        assert now.mid == now.shared or not mid & shared
        assert batch <= shared | mid
        assert not self.usable or (shared and mid and batch), "no pool is empty"
        whole = self.whole()
        free = [core for core in whole if not core & owned]
        assert free or not whole, "bound pods leave the pools a whole core"
        if free:
            assert now.shared_mems and now.batch_mems
            self._check_batch(batch, free)

    def _check_batch(self, batch: set[int], free: list[frozenset[int]]) -> None:
        assert batch == set().union(*(core for core in free if core & batch)), "Batch is in whole cores"
        widest = max(len(core) for core in free)
        wanted = min(max(1, self.floor, math.ceil(self.batch_cores)), sum(map(len, free)))
        assert len(batch) >= wanted
        if all(len(core) == widest for core in free):
            assert len(batch) < wanted + widest
            self._check_shares(batch, free, widest)

    def _check_shares(self, batch: set[int], free: list[frozenset[int]], threads: int) -> None:
        for node in self.topology.nodes:
            here = set(node.cpus)
            exact = len(batch) * sum(len(core) for core in free if core <= here) / sum(map(len, free))
            assert abs(len(batch & here) - exact) < threads, "in proportion, but for one core"


def cpu_ids(text: str) -> set[int]:
    return set(CpuSet.parse(text))


def random_request(dice: random.Random, topology: Topology, uid: str) -> BindRequest:
    """Mostly small, some half a node, few more than a node; one in ten exclusive, some near a device."""
    node = max(len(n.cpus) for n in topology.nodes)
    most = dice.choice((max(1, node // 8), max(1, node // 8), max(1, node // 2), node, 2 * node))
    near = dice.choice(("", *(device.name for device in topology.devices)))
    memory = dice.choice((0, 0, 1 << 20, 1 << 32, 1 << 37))
    return BindRequest(uid, dice.randint(1, most), memory, dice.random() < 0.1, near)
