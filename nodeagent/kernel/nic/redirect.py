"""What comes in at a device goes through an IFB first: one filter at its clsact.

It is the last there, so that filters of others see the packets before; those after it would never (a packet
that comes back from an IFB skips them: skb_skip_tc_classify, net/core/dev.c), nor does an nftables chain of
the family netdev at the hook ingress.
Invariant: a redirect to an IFB that is gone or down drops everything, so it comes after and goes before it.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Collection, Iterable

from nodeagent.kernel.nic.clsact import INGRESS, Clsact
from nodeagent.kernel.nic.filters import (
    ANY,
    DELTFILTER,
    KIND,
    NEWTFILTER,
    OPTIONS,
    Seen,
    Wanted,
    change,
    filters,
)
from nodeagent.kernel.nic.rtnetlink import Rtnetlink, attribute, attributes
from nodeagent.model.errors import Refused

PRIO = 0xF051  # after 0xC000, which the kernel gives to filters that ask for none
_SEL, _ACTIONS = 5, 7  # TCA_U32_*
_ACT_KIND, _ACT_OPTIONS = 1, 2
_MIRRED_PARMS = 2
_MIRRED = struct.Struct("=IIiiiiI")  # tc_gen, eaction, ifindex
_STOLEN, _EGRESS_REDIR = 4, 1
# struct tc_u32_sel, TC_U32_TERMINAL, with one key that matches all
_ALL = struct.pack("=BBBxHHhhI", 1, 0, 1, 0, 0, 0, 0, 0) + bytes(16)


class Redirects:
    """The redirects of ours, on all devices."""

    def __init__(self, link: Rtnetlink) -> None:
        self._link = link
        self._clsact = Clsact(link)

    def seen(self) -> dict[int, int]:
        """Index of each device with one -> index of its IFB (0 if that is gone)."""
        targets = {index: self.target(index) for index in self._clsact.seen()}
        return {index: target for index, target in targets.items() if target is not None}

    def target(self, index: int) -> int | None:
        """Where it goes to, 0 if that is gone, None without any of ours."""
        return next(iter(_targets(filters(self._link, index, INGRESS))), None)

    def set(self, index: int, ifb: int) -> int:
        """Have one to `ifb`; how many writes it took. Gone, Unsupported, Refused (filters after ours)."""
        there = filters(self._link, index, INGRESS)
        if any(one.prio > PRIO for one in there):
            self.remove([index])
            raise Refused(
                f"interface {index}: somebody's filters at clsact would be bypassed",
                hint=f"give them a preference of at most {PRIO - 1}",
            )
        targets = _targets(there)
        if targets == [ifb]:
            return 0
        writes = self._clsact.claim(index)
        # `parent ffff:` is another name of that side; the kernel shows the one that was used last for all
        parent = there[0].parent if there else INGRESS
        stale = [_removal(index)] if targets else []
        return writes + change(self._link, [*stale, _redirect(index, parent, ifb)])

    def remove(self, indexes: Collection[int]) -> int:
        """Remove those, and each clsact that is ours and empty then; how many writes that took."""
        mine = [_removal(index) for index in indexes if self.target(index) is not None]
        if not mine:
            return 0
        gone = change(self._link, mine, {errno.ENOENT, errno.EINVAL, errno.ENODEV})
        return gone + self._clsact.sweep(indexes)

    def sweep(self) -> int:
        """Remove every clsact that is ours and empty: what a crash has left; how many there were."""
        return self._clsact.sweep()


def is_ours(seen: Seen) -> bool:
    """Whether a filter at clsact is a redirect of ours."""
    return seen.prio == PRIO and seen.kind == "u32"


def _removal(index: int) -> Wanted:
    return Wanted(DELTFILTER, index, 0, INGRESS, PRIO, ANY, attribute(KIND, b"u32\0"))


def _redirect(index: int, parent: int, ifb: int) -> Wanted:
    mirred = attribute(_MIRRED_PARMS, _MIRRED.pack(0, 0, _STOLEN, 0, 0, _EGRESS_REDIR, ifb))
    action = attribute(_ACT_KIND, b"mirred\0") + attribute(_ACT_OPTIONS, mirred)
    options = attribute(_SEL, _ALL) + attribute(_ACTIONS, attribute(1, action))
    wanted = attribute(KIND, b"u32\0") + attribute(OPTIONS, options)
    return Wanted(NEWTFILTER, index, 0, parent, PRIO, ANY, wanted)


def _targets(there: Iterable[Seen]) -> list[int]:
    targets = (_target(one) for one in there if is_ours(one))
    return [target for target in targets if target is not None]


def _target(seen: Seen) -> int | None:
    """None: it is the table that the filter is in."""
    actions = attributes(seen.attributes.get(OPTIONS, b"")).get(_ACTIONS, b"")
    action = attributes(attributes(actions).get(1, b""))
    parms = attributes(action.get(_ACT_OPTIONS, b"")).get(_MIRRED_PARMS, b"")
    return int(_MIRRED.unpack_from(parms)[6]) if len(parms) >= _MIRRED.size else None
