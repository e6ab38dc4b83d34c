"""clsact, which many share: whose it is, and when it goes.

One that we add has a size table with an overhead that nobody else would choose. Nothing is ever measured by
it (clsact queues nothing: the kernel keeps it and shows it, net/sched/sch_api.c qdisc_create), and it comes
in the same message as the qdisc: no crash can part the two. Whoever replaces the qdisc without it
(qdisc_change) has made it their own.
Invariant: a clsact without our mark, or with any filter in it, is never removed; filters of others never are.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable

from nodeagent.kernel.nic.filters import (
    DELQDISC,
    KIND,
    NEWQDISC,
    STAB,
    Seen,
    Wanted,
    change,
    filters,
    qdiscs,
)
from nodeagent.kernel.nic.rtnetlink import Rtnetlink, attribute
from nodeagent.model.nic import MAJOR

INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3  # parents of filters
_PARENT, _HANDLE = 0xFFFFFFF1, 0xFFFF0000
# struct tc_sizespec: cell_log, size_log, cell_align, overhead, linklayer, mpu, mtu, tsize
_SIZES = struct.Struct("=BBhiIIII")
_MARK = attribute(1, _SIZES.pack(0, 0, 0, MAJOR, 0, 0, 0, 0))  # TCA_STAB_BASE


class Clsact:
    """The clsact (and ingress) qdiscs of all devices."""

    def __init__(self, link: Rtnetlink) -> None:
        self._link = link

    def seen(self) -> dict[int, bool]:
        """By index of the device: is it ours? A device without any is not in it."""
        # twice: devices that come and go during a dump of all make it skip others (tc_dump_qdisc counts them)
        looks = [one for _ in range(2) for one in qdiscs(self._link)]
        return {one.device: is_ours(one) for one in looks if one.parent == _PARENT}

    def claim(self, index: int) -> int:
        """Have one, somebody's or ours; 1 if it was added. Gone, Unsupported, Refused."""
        attributes = attribute(KIND, b"clsact\0") + attribute(STAB, _MARK)
        return change(
            self._link, [Wanted(NEWQDISC, index, _HANDLE, _PARENT, attributes=attributes)], {errno.EEXIST}
        )

    def release(self, index: int) -> int:
        """Remove it if it is ours and empty; 1 if it was. For after the last filter of ours is gone."""
        return self.sweep([index])

    def sweep(self, indexes: Iterable[int] | None = None) -> int:
        """The same for many (without `indexes`: all) in one look; how many were removed."""
        ours = {index for index, mine in self.seen().items() if mine}
        empty = [
            Wanted(DELQDISC, index, _HANDLE, _PARENT)
            for index in (ours if indexes is None else ours.intersection(indexes))
            if not filters(self._link, index, INGRESS) and not filters(self._link, index, EGRESS)
        ]
        return change(self._link, empty, {errno.ENOENT, errno.EINVAL, errno.ENODEV})


def is_ours(seen: Seen) -> bool:
    """Whether a clsact has our mark."""
    sizes = seen.attributes.get(STAB, b"")[4:]
    return seen.kind == "clsact" and len(sizes) >= _SIZES.size and _SIZES.unpack_from(sizes)[3] == MAJOR
