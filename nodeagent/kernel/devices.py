"""NICs and GPUs with the NUMA node that each is wired to (Linux Documentation/ABI/testing/sysfs-bus-pci).

    /sys/class/net/eth0   -> devices/pci0000:00/0000:00:03.0/net/eth0           its device is the PCI device
    /sys/class/net/eth1   -> devices/pci0000:00/0000:00:04.0/virtio2/net/eth1   its device's parent is
    /sys/class/net/bond0  -> devices/virtual/net/bond0                          as its slaves, if they agree

Invariant: only what is a device of the machine is told (no veth, bridge or tunnel), ordered by name.
"""

from __future__ import annotations

import os

from nodeagent.kernel.files import read_whole
from nodeagent.kernel.parse import number
from nodeagent.model.errors import AgentError
from nodeagent.model.topology import Device

_MAX_DEVICES = 4096
_MAX_NODES = 1024  # CONFIG_NODES_SHIFT is at most 10
_GPUS = (b"0x03", b"0x12")  # PCI base classes: display controller, processing accelerator


class DeviceFiles:
    """Lists what is there with each `read`, but asks PCI devices only when their list has changed."""

    __slots__ = ("_gpus", "_net", "_pci", "_slots")

    def __init__(self, sys: str) -> None:
        self._net = f"{sys}/class/net"
        self._pci = f"{sys}/bus/pci/devices"
        self._slots: tuple[str, ...] = ()
        self._gpus: tuple[Device, ...] = ()

    def read(self) -> tuple[Device, ...]:
        """All NICs and GPUs as of now."""
        slots = _entries(self._pci)
        if slots != self._slots:
            self._slots = slots
            self._gpus = tuple(
                Device(slot, "gpu", _numa_node(f"{self._pci}/{slot}"))
                for slot in slots
                if _raw(f"{self._pci}/{slot}/class").startswith(_GPUS)
            )
        return tuple(sorted((*self._nics(), *self._gpus), key=lambda device: device.name))

    def _nics(self) -> list[Device]:
        names = _entries(self._net)
        nics = {name: self._nic(name) for name in names if self._is_physical(name)}
        for bond in _words(f"{self._net}/bonding_masters") & set(names):
            slaves = _words(f"{self._net}/{bond}/bonding/slaves")
            homes = {nics[slave].numa_node for slave in slaves if slave in nics}
            nics[bond] = Device(bond, "nic", homes.pop() if len(homes) == 1 else None)
        return list(nics.values())

    def _nic(self, name: str) -> Device:
        device = f"{self._net}/{name}/device"
        found = _numa_node(device)
        return Device(name, "nic", _numa_node(f"{device}/..") if found is None else found)

    def _is_physical(self, name: str) -> bool:
        try:
            return "/virtual/" not in os.readlink(f"{self._net}/{name}")
        except OSError:  # bonding_masters is a file, and an interface may be gone by now
            return False


def _entries(directory: str) -> tuple[str, ...]:
    """Names in order; one that nobody could write in a configuration is left out."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return ()
    return tuple(name for name in names if name.isascii() and name.isprintable())[:_MAX_DEVICES]


def _words(path: str) -> set[str]:
    return set(_raw(path).decode("ascii", "replace").split())


def _numa_node(device: str) -> int | None:
    """None too for -1, which stands for "not told"."""
    found = number(_raw(f"{device}/numa_node"))
    return found if found is not None and found < _MAX_NODES else None


def _raw(path: str) -> bytes:
    try:
        return read_whole(path)
    except AgentError:
        return b""
