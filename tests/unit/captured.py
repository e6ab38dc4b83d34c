"""Machines that somebody captured (tests/unit/topologies): as a Topology, or as a sysfs tree below a root."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nodeagent.model.cpuset import CpuSet
from nodeagent.model.topology import Cpu, NumaNode, Topology
from tests.unit.sysfs import put

WHERE = Path(__file__).parent / "topologies"
NAMES = tuple(sorted(path.stem for path in WHERE.glob("*.txt")))
MIB = 1 << 20


@dataclass(frozen=True)
class Cache:
    """One L3: `threads[n][i]` is thread n of its core i."""

    socket: int
    node: int
    threads: tuple[tuple[int, ...], ...]

    @property
    def cores(self) -> list[tuple[int, ...]]:
        return list(zip(*self.threads, strict=True))


def topology(name: str) -> Topology:
    """The machine with all its CPUs online."""
    caches, nodes = _parsed(name)
    cpus: list[Cpu] = []
    for number, cache in enumerate(caches):
        for core in cache.cores:
            cpus += [
                Cpu(cpu, min(core), cache.socket, cache.node, number, tuple(sorted(core))) for cpu in core
            ]
    cpus.sort(key=lambda cpu: cpu.id)
    return Topology(
        tuple(cpus),
        tuple(
            NumaNode(node, tuple(cpu.id for cpu in cpus if cpu.numa_node == node), mib * MIB, distances)
            for node, mib, distances in nodes
        ),
    )


def build(root: Path, name: str) -> str:
    """The machine's /sys below `root`; the path of that root."""
    system, machine = root / "sys/devices/system", topology(name)
    everything = CpuSet(cpu.id for cpu in machine.cpus)
    for file in ("present", "possible", "online"):
        put(system / "cpu" / file, everything)
    for cpu in machine.cpus:
        where = system / f"cpu/cpu{cpu.id}"
        put(where / "topology/core_id", cpu.core)
        put(where / "topology/physical_package_id", cpu.socket)
        put(where / "topology/thread_siblings_list", CpuSet(cpu.siblings))
        sharing = CpuSet(other.id for other in machine.cpus if other.l3 == cpu.l3)
        for index, (level, ident, shared) in enumerate(
            ((1, cpu.core, CpuSet(cpu.siblings)), (3, cpu.l3, sharing))
        ):
            put(where / f"cache/index{index}/level", level)
            put(where / f"cache/index{index}/id", ident)
            put(where / f"cache/index{index}/shared_cpu_list", shared)
    put(system / "node/online", CpuSet(node.id for node in machine.nodes))
    for node in machine.nodes:
        there = system / f"node/node{node.id}"
        put(there / "cpulist", CpuSet(node.cpus))
        put(there / "distance", " ".join(map(str, node.distances)))
        kib = (node.memory_bytes or 0) // 1024
        put(there / "meminfo", f"Node {node.id} MemTotal: {kib} kB\nNode {node.id} MemFree: {kib // 2} kB")
    return str(root)


def _parsed(name: str) -> tuple[list[Cache], list[tuple[int, int, tuple[int, ...]]]]:
    caches, nodes = [], []
    for line in (WHERE / f"{name}.txt").read_text().splitlines():
        kind, *words = line.split()
        if kind == "l3":
            threads = tuple(tuple(sorted(CpuSet.parse(text))) for text in words[2:])
            caches.append(Cache(int(words[0]), int(words[1]), threads))
        elif kind == "node":
            nodes.append((int(words[0]), int(words[1]), tuple(map(int, words[2:]))))
    return caches, nodes
