"""Large machines, their devices, and CPUs that come and go, from generated sysfs trees of the real layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.kernel.files import Descriptors, Misses, Shelf
from nodeagent.kernel.topology import TopologyFiles
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.topology import Device, Topology
from tests.unit import captured, sysfs
from tests.unit.sysfs import Machine

MACHINES = {
    "2 sockets x 64 cores x 2 threads": sysfs.BIG_SMT,
    "4 nodes": sysfs.FOUR_NODES,
    "8 nodes, sub-NUMA": sysfs.SUB_NUMA,
    "8 sockets": sysfs.EIGHT_SOCKETS,
    "CXL": sysfs.WITH_CXL,
    "nodes without memory": sysfs.WITHOUT_LOCAL_MEMORY,
}


def files(root: str) -> TopologyFiles:
    return TopologyFiles(f"{root}/proc", f"{root}/sys/devices/system", Shelf(Descriptors(99), Misses()))


def topology(root: str) -> Topology:
    found = files(root)
    try:
        return found.read()
    finally:
        found.close()


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_is_told_as_it_was_built(tmp_path: Path, name: str) -> None:
    machine = MACHINES[name]
    found = topology(sysfs.build(tmp_path, machine))
    assert [cpu.id for cpu in found.cpus] == list(range(machine.cpus))
    assert len({cpu.siblings for cpu in found.cpus}) == machine.cores
    assert {len(cpu.siblings) for cpu in found.cpus} == {machine.threads}
    assert len({cpu.socket for cpu in found.cpus}) == machine.sockets
    assert len({(cpu.socket, cpu.core) for cpu in found.cpus}) == machine.cores
    assert len({cpu.l3 for cpu in found.cpus}) == machine.cores // machine.l3_cores
    assert len(found.nodes) == machine.nodes + machine.bare_nodes
    for node in found.nodes:
        assert node.cpus == tuple(cpu.id for cpu in found.cpus if cpu.numa_node == node.id)
        assert node.distances == tuple(machine.distance(node.id, other.id) for other in found.nodes)
        assert node.memory_bytes == (0 if node.id in machine.empty else 256 << 30)


@pytest.mark.parametrize("name", captured.NAMES)
def test_a_captured_machine_is_read_as_it_was_captured(tmp_path: Path, name: str) -> None:
    found, machine = topology(captured.build(tmp_path, name)), captured.topology(name)
    assert found.cpus == machine.cpus
    assert found.nodes == machine.nodes
    assert len(found.cpus) == len({cpu.id for cpu in found.cpus}) >= 28
    for node in found.nodes:
        assert len(node.distances) == len(found.nodes)
        assert node.distances[found.nodes.index(node)] == min(node.distances) == 10


def test_the_nodes_of_one_socket_are_nearer_than_the_other_socket_s(tmp_path: Path) -> None:
    machine = Machine(nodes_per_socket=4, cores_per_node=1, l3_cores=1)
    nodes = topology(sysfs.build(tmp_path, machine)).nodes
    assert nodes[5].distances == (32, 32, 32, 32, 12, 10, 12, 12)


def test_memory_without_cpus_is_a_node_of_its_own(tmp_path: Path) -> None:
    nodes = topology(sysfs.build(tmp_path, sysfs.WITH_CXL)).nodes
    assert [(node.id, len(node.cpus)) for node in nodes] == [(0, 16), (1, 16), (2, 0), (3, 0)]


def test_isolated_and_tickless_cpus_are_told_while_they_are_online(tmp_path: Path) -> None:
    machine = Machine(cores_per_node=4, l3_cores=4, isolated="2-3,10-11", nohz_full="3-4")
    sysfs.build(tmp_path, machine)
    found = files(str(tmp_path))
    assert found.read().isolated == (2, 3, 4, 10, 11)
    sysfs.set_online(tmp_path, machine, CpuSet(set(range(16)) - {10}))
    assert found.read().isolated == (2, 3, 4, 11)
    found.close()


@pytest.mark.parametrize("none", ["", "(null)", " (null)", "0-99999999", "x", "3-1"])
def test_no_isolated_cpus_is_said_in_many_ways(tmp_path: Path, none: str) -> None:
    machine = Machine(cores_per_node=2, l3_cores=2, isolated=none, nohz_full=none)
    assert topology(sysfs.build(tmp_path, machine)).isolated == ()


def test_a_cpu_that_goes_offline_is_noticed_and_so_is_its_return(tmp_path: Path) -> None:
    machine = Machine(cores_per_node=4, l3_cores=2)
    sysfs.build(tmp_path, machine)
    found, all_cpus = files(str(tmp_path)), CpuSet(range(16))
    whole = found.read(1.0)
    sysfs.set_online(tmp_path, machine, CpuSet(all_cpus - {9}))  # the sibling of 1
    without = found.read(1.5)
    assert without.offline == (9,)
    assert 9 not in [cpu.id for cpu in without.cpus]
    assert [cpu.siblings for cpu in without.cpus if cpu.id == 1] == [(1,)]
    assert without.nodes[0].cpus == (0, 1, 2, 3, 8, 10, 11)
    sysfs.set_online(tmp_path, machine, CpuSet(all_cpus - {1, 9}))
    assert found.read(2.0).offline == (1, 9)
    assert not {1, 9} & {cpu for each in found.read(2.0).cpus for cpu in each.siblings}
    sysfs.set_online(tmp_path, machine, all_cpus)
    assert found.read(2.5) == whole
    found.close()


def test_a_node_s_last_cpu_may_go_and_its_memory_stays(tmp_path: Path) -> None:
    machine = Machine(cores_per_node=1, l3_cores=1, threads=1)
    sysfs.build(tmp_path, machine)
    sysfs.set_online(tmp_path, machine, CpuSet({0}))
    found = topology(str(tmp_path))
    assert [(node.cpus, node.memory_bytes) for node in found.nodes] == [((0,), 256 << 30), ((), 256 << 30)]


def test_nics_have_the_node_of_their_pci_device_also_through_virtio(tmp_path: Path) -> None:
    machine = Machine(cores_per_node=1, l3_cores=1, gpus=(("0000:3b:00.0", 0), ("0000:d8:00.0", 1)))
    assert topology(sysfs.build(tmp_path, machine)).devices == (
        Device("0000:3b:00.0", "gpu", 0),
        Device("0000:d8:00.0", "gpu", 1),
        Device("eth0", "nic", 0),
        Device("eth1", "nic", 1),
    )


def test_what_is_virtual_is_no_device_but_a_bond_is_where_its_slaves_are(tmp_path: Path) -> None:
    nics = (("eth0", 1), ("eth1", 1), ("eth2", 0))
    machine = Machine(cores_per_node=1, l3_cores=1, nics=nics)
    sysfs.build(tmp_path, machine)
    sys = tmp_path / "sys"
    for bond, slaves in (("bond0", "eth0 eth1"), ("bond1", "eth1 eth2"), ("bond2", "")):
        sysfs.put(sysfs.virtual(bond, sys) / "bonding/slaves", slaves)
    sysfs.virtual("veth1", sys)
    sysfs.put(sys / "class/net/bonding_masters", "bond0 bond1 bond2 ghost ../../x")
    found = {device.name: device.numa_node for device in topology(str(tmp_path)).devices}
    assert found == {"eth0": 1, "eth1": 1, "eth2": 0, "bond0": 1, "bond1": None, "bond2": None}


def test_a_device_that_tells_no_node_has_none(tmp_path: Path) -> None:
    machine = Machine(cores_per_node=1, l3_cores=1, nics=(("eth0", -1),), gpus=(("0000:3b:00.0", -1),))
    found = topology(sysfs.build(tmp_path, machine)).devices
    assert [device.numa_node for device in found] == [None, None]


def test_memory_and_devices_that_come_later_are_seen_within_half_a_minute(tmp_path: Path) -> None:
    machine = Machine(cores_per_node=2, l3_cores=2)
    sysfs.build(tmp_path, machine)
    found = files(str(tmp_path))
    first = found.read(100.0)
    assert found.read(131.0) is first
    sysfs.put(
        tmp_path / "sys/devices/system/node/node1/meminfo", "Node 1 MemTotal: 8 kB\nNode 1 MemFree: 1 kB"
    )
    sysfs.link(tmp_path / "sys/class/net/usb0", tmp_path / "sys/devices/usb1/net/usb0")
    assert found.read(150.0) is first
    later = found.read(161.0)
    assert later.nodes[1].memory_bytes == 8192
    assert Device("usb0", "nic", None) in later.devices
    assert [cpu.id for cpu in later.cpus] == [cpu.id for cpu in first.cpus]
    found.close()


def test_a_name_that_nobody_could_write_is_left_out(tmp_path: Path) -> None:
    machine = Machine(cores_per_node=1, l3_cores=1, nics=())
    root = sysfs.build(tmp_path, machine)
    net = tmp_path / "sys/devices/pci0000:00/net"
    for raw in (b"\xff\xfe", b"a\x01b", "ä".encode()):
        name = raw.decode("utf-8", "surrogateescape")
        sysfs.link(tmp_path / "sys/class/net" / name, net / name)
    assert topology(root).devices == ()


def test_lists_of_a_machine_survive_the_kernels_text(tmp_path: Path) -> None:
    machine = sysfs.BIG_SMT
    sysfs.build(tmp_path, machine)
    text = (tmp_path / "sys/devices/system/node/node1/cpulist").read_text()
    assert text == "64-127,192-255\n"
    assert CpuSet.parse(text) == CpuSet(topology(str(tmp_path)).nodes[1].cpus)
