"""The device behind a network interface: its NUMA node, whether it is a virtual function, its speed.

Invariant: what is not known is None; a device is found by its bus address. Where the kernel does not tell
that, name and index have to do: a mounted /sys/class/net may be that of another network namespace.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
from contextlib import suppress

from msgspec import Struct

_SIOCETHTOOL, _ETHTOOL_GSET = 0x8946, 0x1
_COMMAND_BYTES = 44  # struct ethtool_cmd
_UNKNOWN_MBPS = (0, 0xFFFF, 0xFFFFFFFF)


class Device(Struct, frozen=True, gc=False):
    numa_node: int | None = None
    virtual_function: bool = False


def at(sys: str, bus: str, address: str, name: str, index: int) -> Device:
    """The device at a bus address as IFLA_PARENT_DEV_BUS_NAME and _NAME tell it; `sys` is where /sys is.

    Linux kernel commit 00e77ed8e64d ("rtnetlink: add IFLA_PARENT_[DEV|BUS]_NAME") (in v5.14).
    """
    if bus and address:
        path = f"{sys}/bus/{bus}/devices/{address}"
    elif _number(f"{sys}/class/net/{name}/ifindex") == index:
        path = f"{sys}/class/net/{name}/device"
    else:
        return Device()
    return _described(os.path.realpath(path)) if os.path.exists(path) else Device()


def link_bps(name: str) -> float | None:
    """Speed in bits per second as the driver tells it, None if it does not (ethtool of linux/ethtool.h).

    One ioctl for one link: psutil asks all links three times each, hundreds of veths among them.
    """
    command = array.array("B", struct.pack("=I", _ETHTOOL_GSET).ljust(_COMMAND_BYTES, b"\0"))
    request = struct.pack("16sP", os.fsencode(name), command.buffer_info()[0]).ljust(40, b"\0")
    with (
        suppress(OSError),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as via,
    ):
        fcntl.ioctl(via, _SIOCETHTOOL, request)
        low, high = struct.unpack_from("=12xH14xH", command)
        mbps = high << 16 | low
        return None if mbps in _UNKNOWN_MBPS else mbps * 1e6
    return None


def _described(path: str) -> Device:
    """A virtio device has neither file; the PCI device that it is on, a directory above, has."""
    virtual = os.path.exists(f"{path}/physfn")
    while path.count("/") > 3:
        node = _number(f"{path}/numa_node")
        if node is not None:
            return Device(node if node >= 0 else None, virtual)
        path = os.path.dirname(path)
    return Device(None, virtual)


def _number(path: str) -> int | None:
    try:
        with open(path, "rb") as file:
            return int(file.read(32))
    except (OSError, ValueError):
        return None
