"""Incoming traffic of a NIC goes through an IFB ("na-ifb" and the NIC's index) with an HTB tree of ours.

    NIC -- clsact ingress: redirect --> na-ifb7 -- 4e51: LS, MID, BATCH by destination --> NIC, as it came in

Classes are by the destination address alone, on the wire's side of conntrack: pods behind a masquerade and
host-network pods are not told apart, their downloads pass for LS. Packets wait after they have crossed the
wire, so this slows down senders (TCP) and protects the median of online traffic rather than its tail.
Invariant: the device, its tree and its filters are there before the redirect comes, and go after it.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from typing import Protocol

from nodeagent.kernel.nic.ifb import ifb_index, make_ifb, remove_ifb
from nodeagent.kernel.nic.redirect import Redirects
from nodeagent.kernel.nic.rtnetlink import Rtnetlink
from nodeagent.kernel.nic.u32 import AddressFilters
from nodeagent.model.errors import Gone
from nodeagent.model.nic import ClassSeen, Tree
from nodeagent.model.pod import Qos

PREFIX = "na-ifb"


class SetsTrees(Protocol):
    """What puts HTB trees of ours on devices."""

    def read(self, index: int) -> tuple[ClassSeen, ...] | None: ...
    def set(self, index: int, tree: Tree) -> int: ...


class Ingress:
    """One IFB for each NIC whose incoming traffic is shaped."""

    def __init__(self, link: Rtnetlink, trees: SetsTrees) -> None:
        self._link, self._trees = link, trees
        self._redirects, self._addresses = Redirects(link), AddressFilters(link)

    def read(self, index: int) -> tuple[ClassSeen, ...] | None:
        """The classes of what comes in at the NIC `index`; None where it is not shaped."""
        ifb = ifb_index(self._link, f"{PREFIX}{index}")
        return None if ifb is None else self._trees.read(ifb)

    def set(self, index: int, tree: Tree, addresses: Sequence[tuple[str, Qos]]) -> int:
        """Shape what comes in at the NIC `index` to `addresses`; how many writes it took.

        Gone without the NIC, Unsupported without the kernel's modules, Refused.
        """
        present(index)
        writes = self._unblocked(index)
        ifb, made = make_ifb(self._link, f"{PREFIX}{index}")
        writes += made + self._trees.set(ifb, tree)
        writes += self._addresses.set(ifb, addresses, source=False)
        return writes + self._redirects.set(index, ifb)

    def remove(self, index: int) -> int:
        """Let it come in as it did, also when the NIC is gone; how many writes it took."""
        writes = self._redirects.remove([index]) + self._redirects.sweep()
        return writes + remove_ifb(self._link, f"{PREFIX}{index}")

    def ours(self) -> tuple[int, ...]:
        """The indexes of NICs with an IFB of ours: of those that are gone, too."""
        return indexes(PREFIX)

    def _unblocked(self, index: int) -> int:
        # to an IFB that somebody has removed or set down nothing gets through: first let it in
        target = self._redirects.target(index)
        if target is None or target == ifb_index(self._link, f"{PREFIX}{index}", up=True):
            return 0
        return self._redirects.remove([index])


def present(index: int) -> None:
    """Gone if the interface is."""
    try:
        socket.if_indextoname(index)
    except OSError as error:
        raise Gone(f"interface {index} is gone") from error


def indexes(prefix: str) -> tuple[int, ...]:
    """The numbers after `prefix` in the names of interfaces."""
    names = (name for _, name in socket.if_nameindex() if name.startswith(prefix))
    found = []
    for name in names:
        with contextlib.suppress(ValueError):
            found.append(int(name.removeprefix(prefix)))
    return tuple(sorted(found))
