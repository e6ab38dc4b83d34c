"""Classes by the address of a pod: tc u32 filters on an HTB tree of ours, the last step of the ladder.

    4: IPv4    800: -> all -> table 4:  \\
    6: IPv6    801: -> all -> table 6:   > 256 buckets by the last byte of the address -> classid
    7: others                   -> all -> classid, where asked for

A packet is looked for in one bucket, so 2000 pods cost about as much as 8. HTB asks the filters only about
packets whose skb->priority names no class. They see the packet as it is on this device: behind a masquerade
(source) or before it is undone (incoming: conntrack comes later) all pods have the address of the node.
VLAN tags that the hardware takes off make it neither IPv4 nor IPv6: the default class.
Invariant: everything at our preferences in a tree of ours is ours; only differences are written, and a filter
that names an address no longer wanted goes before another comes.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Sequence
from typing import NamedTuple

from nodeagent.kernel.nic.filters import (
    ANY,
    DELTFILTER,
    IPV4,
    IPV6,
    KIND,
    NEWTFILTER,
    OPTIONS,
    Seen,
    Wanted,
    change,
    filters,
)
from nodeagent.kernel.nic.rtnetlink import Rtnetlink, attribute, attributes
from nodeagent.model.errors import Garbled
from nodeagent.model.nic import MAJOR, classid
from nodeagent.model.pod import Qos

_CLASSID, _HASH, _LINK, _DIVISOR, _SEL = 1, 2, 3, 4, 5  # TCA_U32_*
_PARENT = MAJOR << 16
_OTHERS = 7  # the last preference
_ROOT = 0  # stands for the table that the kernel makes, whatever its number is
_BUCKETS = 256
# struct tc_u32_sel: flags (1 = TC_U32_TERMINAL), offshift, nkeys, offmask, off, offoff, hoff, hmask
_SELECTOR = struct.Struct("=BBBxHHhhI")
_KEY = struct.Struct("=4s4sii")  # mask, value, offset from the network header, offmask


class Family(NamedTuple):
    """Where an IP version has its addresses; `prio` is also the number of its table."""

    prio: int
    protocol: int
    socket_family: int
    source: int
    destination: int
    bytes: int


class Rule(NamedTuple):
    """A filter but for its class and its handle; two that are equal match the same packets."""

    prio: int
    protocol: int
    table: int  # with the bucket
    selector: bytes
    link: int = 0


_FAMILIES = (Family(4, IPV4, socket.AF_INET, 12, 16, 4), Family(6, IPV6, socket.AF_INET6, 8, 24, 16))
_TABLES = {family.prio for family in _FAMILIES}
_PRIOS = _TABLES | {_OTHERS}


class AddressFilters:
    """Our u32 filters on the HTB roots of our devices (NICs and IFBs)."""

    def __init__(self, link: Rtnetlink) -> None:
        self._link = link

    def set(
        self,
        index: int,
        addresses: Sequence[tuple[str, Qos]],
        *,
        source: bool = True,
        otherwise: Qos | None = None,
    ) -> int:
        """Have packets from (or with `source` False: to) `addresses` in their classes, all others in that of
        `otherwise` (None: the tree's default); how many writes it took.

        The tree has to be there. Gone without the device, Garbled for what is no address.
        """
        wanted = _wanted(addresses, source, otherwise)
        tables, kept, stale = set(), set(), []
        for one in self._seen(index):
            options = attributes(one.attributes.get(OPTIONS, b""))
            rule = _rule(one, options)
            if _DIVISOR in options:
                tables.add(one.handle)
            elif _SEL in options and wanted.get(rule) == _number(options, _CLASSID):
                kept.add(rule)
            elif _SEL in options:
                stale.append(_removal(one))
        missing = [_table(index, family) for family in _FAMILIES if family.prio << 20 not in tables]
        new = [_addition(index, rule, flow) for rule, flow in wanted.items() if rule not in kept]
        return change(self._link, [*stale, *missing, *new])

    def remove(self, index: int) -> int:
        """Remove all of ours there; how many writes it took."""
        prios = {(one.prio, one.protocol) for one in self._seen(index)}
        return change(
            self._link,
            [
                Wanted(DELTFILTER, index, 0, _PARENT, prio, protocol, attribute(KIND, b"u32\0"))
                for prio, protocol in sorted(prios)
            ],
            {errno.ENOENT, errno.EINVAL, errno.ENODEV},
        )

    def _seen(self, index: int) -> list[Seen]:
        there = filters(self._link, index, _PARENT)
        return [one for one in there if one.prio in _PRIOS and one.kind == "u32"]


def _wanted(addresses: Sequence[tuple[str, Qos]], source: bool, otherwise: Qos | None) -> dict[Rule, int]:
    wanted = {_to_table(family, source): 0 for family in _FAMILIES}
    for address, qos in addresses:
        wanted[_by_address(address, source)] = classid(qos)
    if otherwise is not None:
        wanted[Rule(_OTHERS, ANY, _ROOT, _selector([_key(bytes(4), bytes(4), 0)]))] = classid(otherwise)
    return wanted


def _to_table(family: Family, source: bool) -> Rule:
    last = (family.source if source else family.destination) + family.bytes - 4
    hashed = _SELECTOR.pack(0, 0, 1, 0, 0, 0, last, socket.htonl(_BUCKETS - 1))
    return Rule(
        family.prio, family.protocol, _ROOT, hashed + _key(bytes(4), bytes(4), 0), link=family.prio << 20
    )


def _by_address(address: str, source: bool) -> Rule:
    family = _FAMILIES[":" in address]
    try:
        packed = socket.inet_pton(family.socket_family, address)
    except OSError as error:
        raise Garbled(f"{address!r} is not an IP address") from error
    offset = family.source if source else family.destination
    keys = [_key(b"\xff" * 4, packed[at : at + 4], offset + at) for at in range(0, family.bytes, 4)]
    return Rule(family.prio, family.protocol, family.prio << 20 | packed[-1] << 12, _selector(keys))


def _key(mask: bytes, value: bytes, offset: int) -> bytes:
    return _KEY.pack(mask, value, offset, 0)


def _selector(keys: Sequence[bytes]) -> bytes:
    return _SELECTOR.pack(1, 0, len(keys), 0, 0, 0, 0, 0) + b"".join(keys)


def _table(index: int, family: Family) -> Wanted:
    options = attribute(_DIVISOR, struct.pack("=I", _BUCKETS))
    return _filter(index, family.prio << 20, family.prio, family.protocol, options)


def _addition(index: int, rule: Rule, flow: int) -> Wanted:
    options = attribute(_SEL, rule.selector)
    options += attribute(_LINK, struct.pack("=I", rule.link)) if rule.link else b""
    options += attribute(_HASH, struct.pack("=I", rule.table)) if rule.table else b""
    options += attribute(_CLASSID, struct.pack("=I", flow)) if flow else b""
    return _filter(index, 0, rule.prio, rule.protocol, options)


def _filter(index: int, handle: int, prio: int, protocol: int, options: bytes) -> Wanted:
    wanted = attribute(KIND, b"u32\0") + attribute(OPTIONS, options)
    return Wanted(NEWTFILTER, index, handle, _PARENT, prio, protocol, wanted)


def _removal(one: Seen) -> Wanted:
    return Wanted(
        DELTFILTER, one.device, one.handle, _PARENT, one.prio, one.protocol, attribute(KIND, b"u32\0")
    )


def _rule(one: Seen, options: dict[int, bytes]) -> Rule:
    table = _number(options, _HASH) & 0xFFFFF000
    if table >> 20 not in _TABLES:
        table = _ROOT
    return Rule(one.prio, one.protocol, table, options.get(_SEL, b""), _number(options, _LINK))


def _number(options: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(options.get(kind, b"")[:4], sys.byteorder)
