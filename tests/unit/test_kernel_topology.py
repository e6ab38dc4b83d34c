"""Topology from captured sysfs trees: SMT, L3, offline CPUs, CPU-less and memory-less nodes, no sysfs."""

from __future__ import annotations

from pathlib import Path

from nodeagent.kernel.files import Descriptors, Misses, Shelf
from nodeagent.kernel.node import NodeFiles
from nodeagent.kernel.topology import TopologyFiles
from nodeagent.model.topology import Topology
from tests.unit import trees


def files(root: str) -> TopologyFiles:
    return TopologyFiles(f"{root}/proc", f"{root}/sys/devices/system", Shelf(Descriptors(99), Misses()))


def topology(root: str) -> Topology:
    found = files(root)
    try:
        return found.read()
    finally:
        found.close()


def test_cores_sockets_caches_and_siblings_are_told(tmp_path: Path) -> None:
    found = topology(trees.plant(tmp_path, trees.NUMA))
    assert [(cpu.id, cpu.core, cpu.socket, cpu.numa_node) for cpu in found.cpus] == [
        (0, 0, 0, 0), (1, 1, 0, 0), (2, 0, 1, 1), (3, 1, 1, 3), (4, 0, 0, 0), (5, 1, 0, 0), (6, 0, 1, 1)
    ]  # fmt: skip
    assert [cpu.siblings for cpu in found.cpus[:4]] == [(0, 4), (1, 5), (2, 6), (3,)]
    assert found.offline == (7,)
    assert found.cores == 7


def test_an_l3_without_an_id_is_named_by_its_lowest_cpu(tmp_path: Path) -> None:
    found = topology(trees.plant(tmp_path, trees.NUMA))
    assert [cpu.l3 for cpu in found.cpus] == [0, 0, 2, 2, 0, 0, 2]


def test_nodes_without_cpus_and_without_memory_are_there(tmp_path: Path) -> None:
    nodes = topology(trees.plant(tmp_path, trees.NUMA)).nodes
    assert [(node.id, node.cpus) for node in nodes] == [(0, (0, 1, 4, 5)), (1, (2, 6)), (2, ()), (3, (3,))]
    assert [node.memory_bytes for node in nodes] == [4000 << 10, 2000 << 10, 8000 << 10, 0]
    assert nodes[2].distances == (30, 30, 10, 30)


def test_it_is_read_again_only_when_a_cpu_comes_or_goes(tmp_path: Path) -> None:
    found = files(trees.plant(tmp_path, trees.NUMA))
    first = found.read()
    (tmp_path / "sys/devices/system/cpu/cpu0/topology/core_id").write_text("9\n")
    assert found.read() is first
    (tmp_path / "sys/devices/system/cpu/online").write_text("0-2,4-6\n")
    second = found.read()
    assert second.offline == (3, 7)
    assert second.cpus[0].core == 9
    found.close()


def test_without_sysfs_all_cpus_of_proc_stat_are_on_node_0(tmp_path: Path) -> None:
    found = topology(trees.plant(tmp_path, trees.V2))
    assert [(cpu.id, cpu.numa_node, cpu.core) for cpu in found.cpus] == [(0, 0, None), (1, 0, None)]
    assert found.nodes[0].memory_bytes == 1000 << 10


def test_a_list_of_all_cpus_in_the_world_is_not_believed(tmp_path: Path) -> None:
    found = topology(trees.plant(tmp_path, trees.V2 | {"sys/devices/system/cpu/online": "0-99999999\n"}))
    assert [cpu.id for cpu in found.cpus] == [0, 1]


def test_each_numa_node_s_memory_is_read_and_a_lost_one_left_out(tmp_path: Path) -> None:
    root = trees.plant(tmp_path, trees.NUMA | trees.V2)
    reader = NodeFiles(
        f"{root}/proc",
        f"{root}/sys/devices/system/node",
        f"{root}/sys/block",
        5.0,
        Shelf(Descriptors(99), Misses()),
    )
    memory = reader.read(1.0, (0, 2, 9)).numa_memory
    assert [(each.numa_node, each.total_bytes) for each in memory] == [(0, 4000 << 10), (2, 8000 << 10)]
    assert reader.read(2.0, (1,)).numa_memory[0].numa_node == 1
    reader.close()
