"""Pods shaped before they reach a NIC whose root qdisc is somebody else's: behind their host-side veths.

    pod -- veth -- clsact ingress: redirect --> na-ifbv7 -- 4e51: MID, BATCH by source --> veth, as it came in

What comes out of the veths of MID and BATCH pods goes through the IFB "na-ifbv" and the NIC's index, all to
one HTB tree, so together they keep their bounds. A packet from no address that is known (a spoofed one, ARP)
is Batch's there. LS pods are not redirected. What they send to others on this node is bounded as well, and
what they have for a NIC that is not shaped: the kernel has not chosen the way yet. A filter of somebody else
that takes the packets away before (the bandwidth plugin of CNI) keeps them from us.
Invariant: the device, its tree and its filters are there before a redirect comes, and go after the last.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

from nodeagent.kernel.nic.ifb import ifb_index, make_ifb, remove_ifb
from nodeagent.kernel.nic.ingress import SetsTrees, indexes, present
from nodeagent.kernel.nic.redirect import Redirects
from nodeagent.kernel.nic.rtnetlink import Rtnetlink
from nodeagent.kernel.nic.u32 import AddressFilters
from nodeagent.model.errors import AgentError, Gone
from nodeagent.model.nic import ClassSeen, Tree
from nodeagent.model.pod import Qos

PREFIX = "na-ifbv"


class Veths:
    """One IFB for each NIC that cannot be shaped itself; a veth belongs to one of them."""

    def __init__(self, link: Rtnetlink, trees: SetsTrees) -> None:
        self._link, self._trees = link, trees
        self._redirects, self._addresses = Redirects(link), AddressFilters(link)

    def read(self, index: int) -> tuple[ClassSeen, ...] | None:
        """The classes of the pods behind the NIC `index`; None where they are not shaped."""
        ifb = ifb_index(self._link, f"{PREFIX}{index}")
        return None if ifb is None else self._trees.read(ifb)

    def set(self, index: int, tree: Tree, pods: Sequence[tuple[str, Qos, tuple[str, ...]]]) -> int:
        """Shape what `pods` (veth, class, addresses) send; how many writes it took.

        A veth that is gone is passed over. Unsupported without the kernel's modules, Refused: then the others
        are done none the less.
        """
        present(index)
        redirected, writes = self._unblocked(index)
        ifb, made = make_ifb(self._link, f"{PREFIX}{index}")
        writes += made + self._trees.set(ifb, tree)
        shaped = [pod for pod in pods if pod[1] is not Qos.LS]
        addresses = {address: qos for _, qos, addresses in shaped for address in addresses}
        writes += self._addresses.set(ifb, sorted(addresses.items()), otherwise=Qos.BATCH)
        wanted = {veth for veth in (_index_of(name) for name, _, _ in shaped) if veth is not None}
        stale = [veth for veth, target in redirected.items() if target == ifb and veth not in wanted]
        writes += self._redirects.remove(stale)
        return writes + self._redirect([veth for veth in sorted(wanted) if redirected.get(veth) != ifb], ifb)

    def remove(self, index: int) -> int:
        """Let the pods be; how many writes it took. Also for a NIC that is gone."""
        ifb = ifb_index(self._link, f"{PREFIX}{index}")
        gone = 0 if ifb is None else ifb
        mine = [veth for veth, target in self._redirects.seen().items() if target == gone]
        writes = self._redirects.remove(mine) + self._redirects.sweep()
        return writes + remove_ifb(self._link, f"{PREFIX}{index}")

    def ours(self) -> tuple[int, ...]:
        """The indexes of NICs with an IFB of ours: of those that are gone, too."""
        return indexes(PREFIX)

    def _unblocked(self, index: int) -> tuple[dict[int, int], int]:
        # to an IFB that somebody has removed or set down nothing gets through: first let it in
        redirected = self._redirects.seen()
        ifb = ifb_index(self._link, f"{PREFIX}{index}")
        blocked = (
            [0] if ifb is None or ifb == ifb_index(self._link, f"{PREFIX}{index}", up=True) else [0, ifb]
        )
        stuck = [veth for veth, target in redirected.items() if target in blocked]
        writes = self._redirects.remove(stuck)
        return {veth: target for veth, target in redirected.items() if veth not in stuck}, writes

    def _redirect(self, veths: Sequence[int], ifb: int) -> int:
        writes, failed = 0, None
        for veth in veths:
            try:
                with contextlib.suppress(Gone):
                    writes += self._redirects.set(veth, ifb)
            except AgentError as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return writes


def _index_of(name: str) -> int | None:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None
