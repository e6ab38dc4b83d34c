"""Every network interface of this namespace: what it is, what it is made of, and what is at its root.

    RTM_GETLINK   name, state, kind, master, lower, device     RTM_GETADDR    our own addresses
    RTM_GETQDISC  root, leaves, clsact                         RTM_GETROUTE   default routes (main table)
    ethtool       speed                                        /sys/bus       NUMA node, virtual function

Invariant: what the watch told of is read anew at the next reading, at most each `_REST_S`, and all of it
after `_SLOW_S` in any case; between that nothing is.
"""

from __future__ import annotations

import math
import socket
import struct
from collections.abc import Collection, Mapping

from msgspec import Struct
from msgspec.structs import replace

from nodeagent.kernel.nic import hardware
from nodeagent.kernel.nic.link_table import Known, LinkTable
from nodeagent.kernel.nic.link_watch import LinkWatch, News, reachable
from nodeagent.kernel.nic.queues import Queues, queues_of
from nodeagent.kernel.nic.rt_dump import Interrupted, dump
from nodeagent.kernel.nic.rtnetlink import attributes, number
from nodeagent.model.nic import Link

_REST_S = 0.9  # so that early ticks, which pods that come cause, do without
_SLOW_S = 10.0
_GETADDR, _GETROUTE = 22, 26
_MAIN, _UNICAST = 254, 1
_OIF, _MULTIPATH = 4, 9
_OWN_IFB = "na-ifb"
# Made of nothing that has a speed: drivers/net/veth.c and tun.c tell 10 Gbit/s or 10 Mbit/s of any.
_NO_SPEED = frozenset({"veth", "tun", "ifb", "dummy"})


class Peer(Struct, frozen=True, array_like=True, gc=False):
    """A veth of ours whose other end is in another network namespace; `bridge` is its master, or ""."""

    name: str
    bridge: str


class Links:
    """The interfaces of the network namespace that this was made in. `host_root` is where /sys is."""

    def __init__(self, host_root: str = "/") -> None:
        self.watch = LinkWatch()
        self._table = LinkTable(f"{host_root.rstrip('/')}/sys")
        self._links: tuple[Link, ...] = ()
        self._peers: Mapping[int, tuple[Peer, ...]] = {}
        self._addresses: tuple[str, ...] = ()
        self._address_of: dict[bytes, str] = {}  # as told, for most do not change
        self._without: Collection[str] = ()
        self._routed: dict[int, int] = {}  # links with a default route, and their flags
        self._read_at = -math.inf

    def read(self, at: float, without: Collection[str] = ()) -> tuple[Link, ...]:
        """All but loopback, our own IFBs and `without` (the pods' veths), by name; AgentError.

        `at` is the monotonic time in seconds.
        """
        if any(name not in without for name in self._without):
            self.watch.news.everything = True
        self._refresh(at)
        self._without = without
        if not without:
            return self._links
        return tuple(link for link in self._links if link.name not in without)

    def peers(self, at: float) -> Mapping[int, tuple[Peer, ...]]:
        """Our veths into other network namespaces, by the number that the namespace has here; AgentError.

        It is the same object as long as nothing was read anew.
        """
        self._refresh(at)
        return self._peers

    def own_addresses(self, at: float) -> tuple[str, ...]:
        """IPv4 and IPv6 addresses of this namespace that others can send to, sorted; AgentError."""
        self._refresh(at)
        return self._addresses

    def close(self) -> None:
        """Give the sockets back."""
        self.watch.close()
        self._table.close()

    def _refresh(self, at: float) -> None:
        news = self.watch.drain()
        age_s = at - self._read_at
        if not (news and age_s >= _REST_S) and age_s < _SLOW_S:
            return
        news.everything = news.everything or age_s >= _SLOW_S
        try:
            self._read(news)
        except Interrupted:  # what was before is nearer to the truth than links that are missing
            if age_s > 2 * _SLOW_S:
                raise
        else:
            self.watch.take()
            self._read_at = at

    def _read(self, news: News) -> None:
        if news.everything:
            self._table.read()
        else:
            self._table.read_again(news.links, news.gone)
        known = self._table.links
        ends = {
            index: each.link
            for index, each in known.items()
            if not each.loopback and each.link.name not in self._without
        }
        self._peers = _peers(known)
        if news.addresses or news.everything:
            self._addresses = self._addresses_now()
        self._links = _joined(ends, known, queues_of(ends), self._default_routes(news))

    def _default_routes(self, news: News) -> Collection[int]:
        """Indices of the links that have one. Those of a link that goes down go untold (fib_flush)."""
        known = self._table.links
        flags = {index: each.flags for index, each in known.items() if index in self._routed}
        if news.routes or news.everything or flags != self._routed:
            found = _default_routes()
            self._routed = {index: each.flags for index, each in known.items() if index in found}
        return self._routed.keys()

    def _addresses_now(self) -> tuple[str, ...]:
        told = [raw for raw in dump(_GETADDR, bytes(8)) if reachable(raw)]
        self._address_of = {raw: self._address_of.get(raw) or _address(raw) for raw in told}
        return tuple(sorted({address for address in self._address_of.values() if address}))


def _peers(links: Mapping[int, Known]) -> Mapping[int, tuple[Peer, ...]]:
    """Veths by the number of the namespace that their other ends are in."""
    found: dict[int, tuple[Peer, ...]] = {}
    for known in links.values():
        if known.netns_id >= 0:
            master = links.get(known.master)
            bridge = master.link.name if master and master.link.kind == "bridge" else ""
            found[known.netns_id] = (*found.get(known.netns_id, ()), Peer(known.link.name, bridge))
    return found


def _joined(
    ends: Mapping[int, Link],
    known: Mapping[int, Known],
    queues: Mapping[int, Queues],
    routed: Collection[int],
) -> tuple[Link, ...]:
    """The links with what other questions answered, and with names for indices."""
    lowers = {index: _lower(index, known) for index in ends}
    found = []
    for index, link in ends.items():
        if link.name.startswith(_OWN_IFB):
            continue
        root, leaves, clsact = queues.get(index, Queues())
        master = known.get(known[index].master)
        found.append(
            replace(
                link,
                root=root or link.root,
                leaves=leaves,
                clsact=clsact,
                link_bps=None if _without_speed(index, ends, lowers) else hardware.link_bps(link.name),
                master=master.link.name if master else "",
                lower=tuple(sorted(ends[each].name for each in lowers[index])),
                default_route=index in routed,
            )
        )
    return tuple(sorted(found, key=lambda link: link.name))


def _lower(index: int, known: Mapping[int, Known]) -> tuple[int, ...]:
    """Indices of what a link is made of: a VLAN's device, a bond's slaves; not the ports of a bridge."""
    under = known[index].lower
    if under in known:
        return (under,)
    if known[index].link.kind in ("bond", "team"):
        return tuple(each for each, other in known.items() if other.master == index)
    return ()


def _without_speed(index: int, ends: Mapping[int, Link], lowers: Mapping[int, tuple[int, ...]]) -> bool:
    """True where what ethtool answers means nothing.

    Of the others, a VLAN answers for its device, and a bond for those of its slaves that may send
    (bond_ethtool_get_link_ksettings in drivers/net/bonding/bond_main.c).
    """
    if ends[index].kind in _NO_SPEED or ends[index].kind == "bridge":
        return True
    return any(ends[each].kind in _NO_SPEED for each in lowers.get(index, ()) if each in ends)


def _default_routes() -> frozenset[int]:
    """Links that packets to everywhere may leave by, those of all next hops."""
    found: set[int] = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        for raw in dump(_GETROUTE, struct.pack("=BBBBBBBBI", family, 0, 0, 0, _MAIN, 0, 0, 0, 0)):
            if raw[1] == 0 and raw[4] == _MAIN and raw[7] == _UNICAST:  # prefix length, table, type
                told = attributes(raw, 12)
                found.add(number(told.get(_OIF)))
                found.update(_hops(told.get(_MULTIPATH, b"")))
    return frozenset(found)


def _hops(told: bytes) -> list[int]:
    """Links in an RTA_MULTIPATH: a sequence of struct rtnexthop, each with attributes."""
    found = []
    at = 0
    while at + 8 <= len(told):
        length, _, _, index = struct.unpack_from("=HBBi", told, at)
        found.append(index)
        at += max(8, length + 3 & ~3)
    return found


def _address(raw: bytes) -> str:
    """That in an RTM_NEWADDR; "" for what has none."""
    told = attributes(raw, 8)
    value = told.get(2, told.get(1))  # IFA_LOCAL, IFA_ADDRESS: of a point-to-point link, the other end's
    return "" if value is None else socket.inet_ntop(raw[0], value)
