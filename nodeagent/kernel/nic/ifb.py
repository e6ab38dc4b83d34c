"""IFB devices of ours: made, found and removed.

Invariant: what has our name but is no IFB is somebody else's, and let be.
"""

from __future__ import annotations

import errno
import socket
from struct import Struct, pack

from nodeagent.kernel.nic.rtnetlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Rtnetlink,
    attribute,
    attributes,
    translated,
)
from nodeagent.model.errors import AgentError, Gone, Refused, Unsupported

_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18  # linux/rtnetlink.h
_IFNAME, _LINKINFO, _EXT_MASK, _INFO_KIND = 3, 18, 29, 1  # IFLA_*
_SKIP_STATS = 8  # RTEXT_FILTER_SKIP_STATS
_UP = 1  # IFF_UP
_IFINFOMSG = Struct("=BxHiII")  # family, type, index, flags, change


def make_ifb(link: Rtnetlink, name: str) -> tuple[int, int]:
    """Have the IFB `name`, up; its index and how many writes it took. Unsupported, Refused."""
    found = _find(link, name)
    if found is not None and found[1]:
        return found[0], 0
    if found is not None:
        index = found[0]
        _ask(link, _NEWLINK, 0, _IFINFOMSG.pack(0, 0, index, _UP, _UP), f"setting {name} up")
        return index, 1
    kind = attribute(_LINKINFO, attribute(_INFO_KIND, b"ifb"))
    body = _IFINFOMSG.pack(0, 0, 0, _UP, _UP) + attribute(_IFNAME, name.encode() + b"\0")
    _ask(link, _NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body + kind, f"making {name}")
    return socket.if_nametoindex(name), 1


def ifb_index(link: Rtnetlink, name: str, up: bool = False) -> int | None:
    """Where the IFB `name` is; None without one (with `up`: without one that is up). Refused."""
    found = _find(link, name)
    return None if found is None or (up and not found[1]) else found[0]


def remove_ifb(link: Rtnetlink, name: str) -> int:
    """Remove the IFB `name` and what is on it; 1 if it was there. Refused."""
    index = ifb_index(link, name)
    if index is None:
        return 0
    try:
        _ask(link, _DELLINK, 0, _IFINFOMSG.pack(0, 0, index, 0, 0), f"removing {name}")
    except Gone:
        return 0
    return 1


def _find(link: Rtnetlink, name: str) -> tuple[int, bool] | None:
    """Index and whether it is up."""
    mask = attribute(_EXT_MASK, pack("=I", _SKIP_STATS))
    body = _IFINFOMSG.pack(0, 0, 0, 0, 0) + attribute(_IFNAME, name.encode() + b"\0") + mask
    try:
        (answer,) = _ask(link, _GETLINK, 0, body, f"looking for {name}")
    except Gone:
        return None
    *_, index, flags, _ = _IFINFOMSG.unpack_from(answer)
    info = attributes(attributes(answer, _IFINFOMSG.size).get(_LINKINFO, b""))
    if info.get(_INFO_KIND, b"").rstrip(b"\0") != b"ifb":
        raise Refused(f"{name} is no IFB device", hint="rename it: names with na-ifb are the agent's")
    return index, bool(flags & _UP)


def _ask(link: Rtnetlink, kind: int, flags: int, body: bytes, doing: str) -> list[bytes]:
    try:
        return link.ask(kind, flags, body)
    except OSError as error:
        raise _explained(error, doing) from error


def _explained(error: OSError, doing: str) -> AgentError:
    if error.errno == errno.EOPNOTSUPP:
        return Unsupported(f"{doing}: this kernel has no IFB devices", hint="modprobe ifb")
    return translated(error, doing)
