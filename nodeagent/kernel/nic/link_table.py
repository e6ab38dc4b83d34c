"""The links of this network namespace as the kernel tells each (RTM_GETLINK), by index.

Invariant: a link is taken apart only when the kernel tells it otherwise than before.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable

from msgspec import Struct

from nodeagent.kernel.nic import hardware
from nodeagent.kernel.nic.rt_dump import dump
from nodeagent.kernel.nic.rtnetlink import Rtnetlink, attribute, attributes, number, text, translated
from nodeagent.model.errors import Gone
from nodeagent.model.nic import Link, Qdisc

_GETLINK = 18
_UP, _LOOPBACK, _LOWER_UP = 0x1, 0x8, 0x10000
_IFNAME, _MTU, _LINK, _QDISC, _MASTER, _INFO, _EXT_MASK, _QUEUES = 3, 4, 5, 6, 10, 18, 29, 31
_NETNSID, _PARENT_DEV, _PARENT_BUS = 37, 56, 57
_IFINFO = struct.Struct("=BxHiII")  # struct ifinfomsg
_SKIP_STATS = attribute(_EXT_MASK, struct.pack("=I", 8))


class Known(Struct, gc=False):
    """One link as the kernel told it, in bytes, and what is in them; `lower` and `master` are indices.

    `other` is the index of what it is tied to: its device, or the other end of a veth, wherever that is.
    """

    raw: bytes
    flags: int
    link: Link
    master: int
    lower: int
    other: int
    netns_id: int

    @property
    def loopback(self) -> bool:
        return bool(self.flags & _LOOPBACK)


class LinkTable:
    """`links` by index. `sys` is where /sys is; close it."""

    def __init__(self, sys: str) -> None:
        self.links: dict[int, Known] = {}
        self._sys = sys
        self._rtnetlink = Rtnetlink()

    def read(self) -> None:
        """All of them; Interrupted, AgentError."""
        told = dump(_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0) + _SKIP_STATS)
        self.links = dict(self._known(raw) for raw in told)

    def read_again(self, indices: Iterable[int], gone: Collection[int]) -> None:
        """These, and those that were tied to one that is gone; AgentError."""
        tied = {index for index, known in self.links.items() if known.other in gone or known.master in gone}
        for index in tied.union(indices):
            self.links.pop(index, None) if (raw := self._asked(index)) is None else self._take(raw)

    def close(self) -> None:
        """Give the socket back."""
        self._rtnetlink.close()

    def _asked(self, index: int) -> bytes | None:
        """None where there is no such link."""
        try:
            answers = self._rtnetlink.ask(_GETLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + _SKIP_STATS)
        except OSError as error:
            told = translated(error, f"interface {index}")
            if isinstance(told, Gone):
                return None
            raise told from error
        return answers[0] if answers else None

    def _take(self, raw: bytes) -> None:
        index, known = self._known(raw)
        self.links[index] = known

    def _known(self, raw: bytes) -> tuple[int, Known]:
        _, _, index, flags, _ = _IFINFO.unpack_from(raw)
        before = self.links.get(index)
        return index, before if before and before.raw == raw else self._parsed(raw, index, flags)

    def _parsed(self, raw: bytes, index: int, flags: int) -> Known:
        told = attributes(raw, _IFINFO.size)
        kind = text(attributes(told.get(_INFO, b""), 0).get(1))
        name = text(told.get(_IFNAME))
        bus, address = text(told.get(_PARENT_BUS)), text(told.get(_PARENT_DEV))
        device = hardware.Device() if kind else hardware.at(self._sys, bus, address, name, index)
        link = Link(
            name=name,
            index=index,
            up=flags & (_UP | _LOWER_UP) == _UP | _LOWER_UP,
            root=Qdisc(text(told.get(_QDISC)), 0),
            kind=kind,
            mtu_bytes=number(told.get(_MTU)),
            tx_queues=number(told.get(_QUEUES), 1),
            numa_node=device.numa_node,
            virtual_function=device.virtual_function,
        )
        elsewhere, other = _NETNSID in told, number(told.get(_LINK))
        lower = 0 if elsewhere or kind == "veth" or other == index else other
        netns_id = number(told[_NETNSID]) if elsewhere and kind == "veth" else -1
        return Known(raw, flags, link, number(told.get(_MASTER)), lower, other, netns_id)
