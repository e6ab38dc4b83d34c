"""Large machines as sysfs shows them: `build` puts one below a host root, `set_online` plugs CPUs.

CPUs are numbered as firmware does: first one thread of every core, node by node, then their siblings.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from nodeagent.model.cpuset import CpuSet

GIB_KB = 1 << 20


@dataclass(frozen=True)
class Machine:
    """`l3_cores` share one L3. `bare_nodes` have memory and no CPU, the nodes in `empty` have no memory."""

    sockets: int = 2
    nodes_per_socket: int = 1
    cores_per_node: int = 64
    threads: int = 2
    l3_cores: int = 8
    bare_nodes: int = 0
    empty: tuple[int, ...] = ()
    isolated: str = ""
    nohz_full: str = "(null)"
    nics: tuple[tuple[str, int], ...] = (("eth0", 0), ("eth1", 1))
    gpus: tuple[tuple[str, int], ...] = ()

    @property
    def nodes(self) -> int:
        return self.sockets * self.nodes_per_socket

    @property
    def cores(self) -> int:
        return self.nodes * self.cores_per_node

    @property
    def cpus(self) -> int:
        return self.cores * self.threads

    def cores_of(self, first: int, count: int) -> CpuSet:
        """All threads of `count` cores from core `first` on."""
        return CpuSet(
            core + thread * self.cores
            for core in range(first, first + count)
            for thread in range(self.threads)
        )

    def distance(self, a: int, b: int) -> int:
        """As firmware tells it: 10 itself, 12 in the socket, 32 across, 40 to memory without CPUs."""
        if a == b:
            return 10
        if max(a, b) >= self.nodes:
            return 40
        return 12 if a // self.nodes_per_socket == b // self.nodes_per_socket else 32


BIG_SMT = Machine()
FOUR_NODES = Machine(nodes_per_socket=2, cores_per_node=32)
SUB_NUMA = Machine(nodes_per_socket=4, cores_per_node=16, l3_cores=4)  # 2 sockets, 8 nodes, 32 L3 caches
EIGHT_SOCKETS = Machine(sockets=8, cores_per_node=8, threads=1)
WITH_CXL = Machine(cores_per_node=8, bare_nodes=2)
WITHOUT_LOCAL_MEMORY = Machine(nodes_per_socket=2, cores_per_node=4, l3_cores=4, empty=(1, 3))


def build(root: Path, machine: Machine) -> str:
    """The machine's /sys below `root`, all CPUs online; the path of that root."""
    system = root / "sys/devices/system"
    everything = CpuSet(range(machine.cpus))
    put(system / "cpu/present", everything)
    put(system / "cpu/possible", everything)
    put(system / "cpu/isolated", machine.isolated)
    put(system / "cpu/nohz_full", machine.nohz_full)
    set_online(root, machine, everything)
    _devices(root / "sys", machine)
    return str(root)


def set_online(root: Path, machine: Machine, online: CpuSet) -> None:
    """As the kernel does: a CPU that is offline is in no list, and its topology and caches are gone."""
    system = root / "sys/devices/system"
    for cpu in range(machine.cpus):
        _cpu(system / f"cpu/cpu{cpu}", machine, cpu, online)
    count = machine.nodes + machine.bare_nodes
    put(system / "node/online", CpuSet(range(count)))
    for node in range(count):
        _node(system / f"node/node{node}", machine, node, online)
    put(system / "cpu/offline", CpuSet(CpuSet(range(machine.cpus)) - online))
    put(system / "cpu/online", online)


def put(path: Path, content: object) -> None:
    try:
        path.write_text(f"{content}\n")
    except FileNotFoundError:
        path.parent.mkdir(parents=True)
        path.write_text(f"{content}\n")


def _cpu(where: Path, machine: Machine, cpu: int, online: CpuSet) -> None:
    if cpu not in online:
        for name in ("topology", "cache"):
            shutil.rmtree(where / name, ignore_errors=True)
        return
    core = cpu % machine.cores
    pair, near = CpuSet(machine.cores_of(core, 1) & online), core - core % machine.l3_cores
    put(where / "topology/core_id", core % (machine.cores_per_node * machine.nodes_per_socket))
    put(where / "topology/physical_package_id", core // machine.cores_per_node // machine.nodes_per_socket)
    put(where / "topology/thread_siblings_list", pair)
    caches = [(1, core, pair), (1, core, pair), (2, core, pair)]
    sharing = CpuSet(machine.cores_of(near, machine.l3_cores) & online)
    caches.append((3, near // machine.l3_cores, sharing))
    for index, (level, ident, shared) in enumerate(caches):
        put(where / f"cache/index{index}/level", level)
        put(where / f"cache/index{index}/id", ident)
        put(where / f"cache/index{index}/shared_cpu_list", shared)


def _node(where: Path, machine: Machine, node: int, online: CpuSet) -> None:
    every = range(machine.nodes + machine.bare_nodes)
    cpus = machine.cores_of(
        node * machine.cores_per_node, machine.cores_per_node if node < machine.nodes else 0
    )
    total_kb = 0 if node in machine.empty else 256 * GIB_KB
    put(where / "cpulist", CpuSet(cpus & online))
    put(where / "distance", " ".join(str(machine.distance(node, other)) for other in every))
    put(where / "meminfo", f"Node {node} MemTotal:  {total_kb} kB\nNode {node} MemFree:  {total_kb // 2} kB")


def _devices(sys: Path, machine: Machine) -> None:
    """eth0 hangs on its PCI device, eth1 on a virtio device below one; both as links, as in sysfs."""
    virtual("lo", sys)
    for number, (name, node) in enumerate(machine.nics):
        slot = f"0000:{number:02x}:00.0"
        device = sys / f"devices/pci0000:{number:02x}" / slot
        put(device / "numa_node", node)
        put(device / "class", "0x020000")
        inner = device / f"virtio{number}" if number % 2 else device
        link(sys / f"bus/pci/devices/{slot}", device)
        link(sys / f"class/net/{name}", inner / f"net/{name}")
        link(inner / f"net/{name}/device", inner)
    for number, (slot, home) in enumerate(machine.gpus):
        device = sys / f"devices/pci0000:a{number}" / slot
        put(device / "numa_node", home)
        put(device / "class", "0x030200")
        link(sys / f"bus/pci/devices/{slot}", device)


def virtual(name: str, sys: Path) -> Path:
    """An interface without a device."""
    link(sys / f"class/net/{name}", sys / f"devices/virtual/net/{name}")
    return sys / f"devices/virtual/net/{name}"


def link(path: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
