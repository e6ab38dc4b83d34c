"""tc's qdiscs and filters: what is there, and changes to it.

Invariant: filters are added where none of the same handle is, never over another.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection, Sequence
from struct import Struct
from typing import NamedTuple

from nodeagent.kernel.nic.rtnetlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    Rtnetlink,
    attributes,
    translated,
)
from nodeagent.model.errors import AgentError, Unsupported

NEWQDISC, DELQDISC, GETQDISC = 36, 37, 38  # linux/rtnetlink.h
NEWTFILTER, DELTFILTER, GETTFILTER = 44, 45, 46
KIND, OPTIONS, STAB = 1, 2, 8  # TCA_*
ANY, IPV4, IPV6 = 0x0003, 0x0800, 0x86DD  # linux/if_ether.h

_TCMSG = Struct("=BxxxiIII")  # family, index, handle, parent, info
_ADDS = {NEWQDISC, NEWTFILTER}


class Seen(NamedTuple):
    """A qdisc or filter as the kernel has it; `prio` and `protocol` are a filter's."""

    device: int
    handle: int
    parent: int
    prio: int
    protocol: int
    kind: str
    attributes: dict[int, bytes]


class Wanted(NamedTuple):
    """One change: `type` is NEWQDISC, DELTFILTER and so on."""

    type: int
    device: int
    handle: int
    parent: int
    prio: int = 0
    protocol: int = 0
    attributes: bytes = b""


def qdiscs(link: Rtnetlink) -> list[Seen]:
    """Those of all devices."""
    return _dump(link, GETQDISC, 0, 0, "the qdiscs")


def filters(link: Rtnetlink, index: int, parent: int) -> list[Seen]:
    """Those of one qdisc, or of one side of clsact, in all chains; none without the qdisc or device."""
    return _dump(link, GETTFILTER, index, parent, f"the filters of interface {index}")


def change(link: Rtnetlink, changes: Sequence[Wanted], tolerated: Collection[int] = ()) -> int:
    """Make changes in their order; how many were made. All are tried, then the first error is raised.

    `tolerated` are the errors (errno) that mean that there was nothing to do.
    """
    done, failed = 0, None
    for wanted in changes:
        flags = NLM_F_CREATE | NLM_F_EXCL if wanted.type in _ADDS else 0
        try:
            link.ask(wanted.type, flags, _packed(wanted))
            done += 1
        except OSError as error:
            if error.errno not in tolerated and failed is None:
                failed = _explained(error, _words(wanted))
    if failed is not None:
        raise failed
    return done


def _dump(link: Rtnetlink, kind: int, index: int, parent: int, what: str) -> list[Seen]:
    try:
        return [_seen(one) for one in link.ask(kind, NLM_F_DUMP, _TCMSG.pack(0, index, 0, parent, 0))]
    except OSError as error:
        raise _explained(error, what) from error


def _packed(wanted: Wanted) -> bytes:
    info = wanted.prio << 16 | socket.htons(wanted.protocol)
    return _TCMSG.pack(0, wanted.device, wanted.handle, wanted.parent, info) + wanted.attributes


def _seen(data: bytes) -> Seen:
    _, index, handle, parent, info = _TCMSG.unpack_from(data)
    found = attributes(data, _TCMSG.size)
    kind = found.get(KIND, b"").rstrip(b"\0").decode()
    return Seen(index, handle, parent, info >> 16, socket.ntohs(info & 0xFFFF), kind, found)


def _explained(error: OSError, doing: str) -> AgentError:
    if error.errno == errno.ENOENT:  # "TC classifier not found", "Specified qdisc kind is unknown"
        hint = "are the kernel's modules there? modprobe cls_u32 act_mirred sch_ingress"
        return Unsupported(f"{doing}: {error.strerror}", hint=hint)
    return translated(error, doing)


def _words(wanted: Wanted) -> str:
    verb = "setting" if wanted.type in _ADDS else "removing"
    what = "qdisc" if wanted.type in {NEWQDISC, DELQDISC} else "filter"
    return f"{verb} a {what} of interface {wanted.device}"
