"""The machine: CPUs, sockets, caches and NUMA nodes (Linux Documentation/admin-guide/cputopology.rst)."""

from __future__ import annotations

from msgspec import Struct


class Cpu(Struct, frozen=True, array_like=True, gc=False):
    """One online CPU. `siblings` are the SMT threads of its core, itself included; None = not told."""

    id: int
    core: int | None
    socket: int | None
    numa_node: int | None
    l3: int | None
    siblings: tuple[int, ...] = ()


class NumaNode(Struct, frozen=True, array_like=True, gc=False):
    """One NUMA node; `cpus` is empty for a CPU-less node, `memory_bytes` 0 for a memory-less one.

    `distances` to all nodes in their order (which is not by id where ids have gaps); 10 is the node itself.
    """

    id: int
    cpus: tuple[int, ...]
    memory_bytes: int | None
    distances: tuple[int, ...] = ()


class Device(Struct, frozen=True, array_like=True, gc=False):
    """A NIC by its interface name, or a GPU by its PCI address; `numa_node` is None where it is not told."""

    name: str
    kind: str  # "nic" or "gpu"
    numa_node: int | None


class Topology(Struct, frozen=True, gc=False):
    """All online CPUs and all NUMA nodes, ordered by id. `offline` are present but not online CPUs.

    `isolated` are online CPUs that the kernel keeps free of other work (isolcpus=, nohz_full=).
    """

    cpus: tuple[Cpu, ...] = ()
    nodes: tuple[NumaNode, ...] = ()
    offline: tuple[int, ...] = ()
    isolated: tuple[int, ...] = ()
    devices: tuple[Device, ...] = ()

    @property
    def cores(self) -> int:
        """Number of online CPUs: the node's `Total` in cores."""
        return len(self.cpus)
