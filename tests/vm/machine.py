"""What a machine is made of, and the QEMU arguments that make it so.

Invariant: pure; the same machine and files give the same arguments. NUMA nodes are numbered: first those with
CPUs and memory, then those without memory, then those without CPUs. Each node with CPUs is a socket.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.vm.root import PORTS, mac

CGROUP_MODES = {
    "v2": "",
    "v1": "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1",
    "hybrid": "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=0",
}
KERNEL_WORDS = (
    "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off tsc=reliable nowatchdog "
    "audit=0 apparmor=0 cryptomgr.notests rcupdate.rcu_expedited=1 psi=1"
)
PORT_NAME = "nodeagent-vm"
NEAR, FAR = 10, 21
SPEED = ",speed=10000,duplex=full"


@dataclass(frozen=True)
class Mount:
    """A host path that the guest has as a folder: unpacked from a disk, or live (a 9p share)."""

    source: Path
    target: str
    live: bool = False
    readonly: bool = False


@dataclass(frozen=True)
class Machine:
    """Sizes per NUMA node; `memoryless` and `cpuless` nodes come on top of `nodes`."""

    nodes: int = 2
    memoryless: int = 0
    cpuless: int = 0
    cores: int = 2
    threads: int = 1
    memory_mib: int = 1024
    # Newer CPU models clear pages by `rep stos`, which is slow to emulate.
    cpu: str = "Nehalem"
    nics: int = 2
    nic_model: str = "virtio-net-pci"
    scratch_mib: int = 0
    cgroup: str = "v2"
    kernel: str = "6.1"
    packages: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    append: str = ""
    qemu_args: str = ""

    @property
    def sockets(self) -> int:
        """NUMA nodes with CPUs."""
        return self.nodes + self.memoryless

    @property
    def copies(self) -> tuple[Mount, ...]:
        return tuple(mount for mount in self.mounts if not mount.live)

    @property
    def shares(self) -> tuple[Mount, ...]:
        return tuple(mount for mount in self.mounts if mount.live)

    def described(self) -> str:
        extra = [
            f"{count} {what}"
            for count, what in ((self.memoryless, "memory-less"), (self.cpuless, "CPU-less"))
        ]
        more = "".join(f" + {text}" for text in extra if not text.startswith("0"))
        shape = f"{self.nodes}{more} NUMA nodes x {self.cores} cores x {self.threads} threads"
        return f"{shape}, {self.memory_mib} MiB a node, cgroup {self.cgroup}"


@dataclass(frozen=True)
class Files:
    """What a machine is started from, and the directory it lives in."""

    root: Path
    kernel: Path
    home: Path

    def copy(self, number: int) -> Path:
        """The tar that the guest unpacks."""
        return self.home / f"copy{number}"

    @property
    def scratch(self) -> Path:
        return self.home / "scratch"


def qemu_argv(machine: Machine, files: Files, machine_id: str) -> list[str]:
    """The whole command line; machine_id is systemd's (32 hexadecimal digits)."""
    return [
        *("qemu-system-x86_64", "-name", f"{PORT_NAME}-{files.home.name}", "-no-user-config", "-nodefaults"),
        *("-display", "none", "-no-reboot", "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=512"),
        *("-cpu", machine.cpu, "-rtc", "base=utc"),
        *_cpus_and_memory(machine),
        *_kernel(machine, files, machine_id),
        *_disks(machine, files),
        *_channels(files.home),
        *_shares(machine),
        *_nics(machine),
        *shlex.split(machine.qemu_args),
    ]


def _cpus_and_memory(machine: Machine) -> list[str]:
    per_node, sockets = machine.cores * machine.threads, machine.sockets
    with_memory = [*range(machine.nodes), *range(sockets, sockets + machine.cpuless)]
    count = sockets + machine.cpuless
    topology = f"cpus={sockets * per_node},sockets={sockets},cores={machine.cores},threads={machine.threads}"
    words = ["-smp", topology, "-m", f"{machine.memory_mib * len(with_memory)}M"]
    for node in range(count):
        text = f"node,nodeid={node}"
        if node < sockets:
            text += f",cpus={node * per_node}-{(node + 1) * per_node - 1}"
        if node in with_memory:
            words += ["-object", f"memory-backend-ram,id=m{node},size={machine.memory_mib}M"]
            text += f",memdev=m{node}"
        words += ["-numa", text]
    pairs = [(a, b) for a in range(count) for b in range(count) if a < b]
    return words + [word for a, b in pairs for word in ("-numa", f"dist,src={a},dst={b},val={FAR}")]


def _kernel(machine: Machine, files: Files, machine_id: str) -> list[str]:
    words = [KERNEL_WORDS, CGROUP_MODES[machine.cgroup], f"systemd.machine_id={machine_id}"]
    if not machine.nic_model.startswith("virtio"):
        words.append(f"modules_load={machine.nic_model}")
    line = " ".join(word for word in (*words, machine.append) if word)
    return ["-kernel", f"{files.kernel}/vmlinux", "-initrd", f"{files.kernel}/initrd", "-append", line]


def _disks(machine: Machine, files: Files) -> list[str]:
    """Rising PCI addresses: vda, vdb, ... in this order."""
    disks = [(files.root, "root", "snapshot=on"), (files.kernel / "modules.ext4", "modules", "readonly=on")]
    if machine.scratch_mib:
        disks.append((files.scratch, "scratch", "cache=unsafe"))
    disks += [(files.copy(number), f"copy{number}", "readonly=on") for number in range(len(machine.copies))]
    words = []
    for number, (path, serial, options) in enumerate(disks):
        device = f"virtio-blk-pci,bus=pcie.0,drive=d{number},serial={serial},addr={number + 4:#x}"
        words += ["-drive", f"file={path},if=none,id=d{number},format=raw,{options}", "-device", device]
    return words


def _channels(home: Path) -> list[str]:
    """The console's log, QEMU's own control socket, and the ports of the guest's agent."""
    words = ["-device", "virtio-rng-pci,bus=pcie.0", "-chardev", f"file,id=con,path={home}/console.log"]
    words += ["-device", "isa-serial,chardev=con", "-qmp", f"unix:{home}/qmp,server=on,wait=off"]
    words += ["-device", "virtio-serial-pci,bus=pcie.0"]
    for number in range(PORTS):
        socket = f"socket,id=c{number},path={home}/agent.{number},server=on,wait=off"
        port = f"virtserialport,chardev=c{number},name={PORT_NAME}.{number}"
        words += ["-chardev", socket, "-device", port]
    return words


def _shares(machine: Machine) -> list[str]:
    words = []
    for number, mount in enumerate(machine.shares):
        folder = f"local,id=f{number},path={mount.source},security_model=none,multidevs=remap"
        device = f"virtio-9p-pci,bus=pcie.0,fsdev=f{number},mount_tag=share{number}"
        words += ["-fsdev", folder + (",readonly=on" if mount.readonly else ""), "-device", device]
    return words


def _nics(machine: Machine) -> list[str]:
    """A PCI root for each NUMA node gives the NICs below it their numa_node; each has a twin on its hub."""
    words = []
    for node in range(machine.nodes if machine.nics else 0):
        words += ["-device", f"pxb-pcie,id=pxb{node},bus_nr={64 + 32 * node},bus=pcie.0,numa_node={node}"]
    for number in range(machine.nics):
        speed = SPEED if machine.nic_model.startswith("virtio") else ""
        nic = f"{machine.nic_model},id=nic{number},netdev=n{number},bus=rp{number},mac={mac('nic', number)}"
        peer = f"virtio-net-pci,id=peer{number},netdev=p{number},bus=pcie.0,mac={mac('peer', number)}"
        bus = f"pxb{number % machine.nodes},chassis={number + 1},slot={number + 1}"
        words += ["-device", f"pcie-root-port,id=rp{number},bus={bus}"]
        words += ["-netdev", f"hubport,id=n{number},hubid={number}"]
        words += ["-netdev", f"hubport,id=p{number},hubid={number}"]
        words += ["-device", nic + speed, "-device", peer + SPEED]
    return words
