"""What our nftables table holds: Marks as maps and chains, in the kernel's numbers.

    table inet nodeagent {
      map cgroups    { type cgroupsv2 : classid }
      map addresses4 { type ipv4_addr : classid }
      map addresses6 { type ipv6_addr : classid }
      chain output      { type filter hook output priority mangle
                          meta priority set socket cgroupv2 level 2 map @cgroups   # one for each level in use
                        }
      chain postrouting { type filter hook postrouting priority mangle
                          meta priority set ip saddr map @addresses4
                          meta priority set ip6 saddr map @addresses6 }
    }

One map serves all levels: an id is that of one directory, which has one level. Rules ascend: the deepest
entry wins. A map without the key leaves the priority as it is: the default class.
Late, because routing sets the priority from the TOS (ip_forward) and veth clears it; before srcnat, so that a
pod's own address is seen. The bridge family's twin does the same for what is bridged, not routed.
"""

from __future__ import annotations

import socket
import sys

from msgspec import Struct

from nodeagent.kernel.nic.nf_tables import (
    DATA_TYPE_CGROUPV2,
    DATA_TYPE_IP6ADDR,
    DATA_TYPE_IPADDR,
    NFPROTO_BRIDGE,
    NFPROTO_INET,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    NFT_META_CGROUP,
    NFT_META_NFPROTO,
    NFT_META_PRIORITY,
    NFT_META_PROTOCOL,
)
from nodeagent.kernel.nic.nft_wire import Attributes
from nodeagent.model.nic import Marks, classid
from nodeagent.model.pod import Qos

Rule = tuple[Attributes, ...]

_FORWARD, _OUTPUT, _POSTROUTING = 2, 3, 4  # NF_INET_FORWARD.., the same in a bridge
_MANGLE = -150  # NF_IP_PRI_MANGLE
_BRIDGE_FILTER = -200  # NF_BR_PRI_FILTER_BRIDGED
HOST_ORDER, _NETWORK_ORDER = 1, 2  # libnftables' enum byteorder
_REGISTER = 1  # NFT_REG_1
_ETH_P = {NFPROTO_IPV4: 0x0800, NFPROTO_IPV6: 0x86DD}
_SADDR = {NFPROTO_IPV4: (12, 4), NFPROTO_IPV6: (8, 16)}  # offset and length in the network header
_NETWORK_HEADER = 1  # NFT_PAYLOAD_NETWORK_HEADER
_CGROUPV2 = 3  # NFT_SOCKET_CGROUPV2


class Map(Struct, frozen=True):
    """A map from keys of one type to classes."""

    name: str
    key_type: int
    key_bytes: int
    key_order: int


class Chain(Struct, frozen=True):
    """A base chain."""

    name: str
    hook: int
    priority: int


class Contents(Struct, frozen=True):
    """The table of one family: its form, each chain's rules, and each map's elements.

    A rule is a row of expressions; an element is key and data as the kernel has them.
    """

    family: int
    maps: tuple[Map, ...]
    chains: tuple[Chain, ...]
    rules: dict[str, tuple[Rule, ...]]
    elements: dict[str, dict[bytes, bytes]]

    def formed_as(self, other: Contents) -> bool:
        """Do they differ in rules and elements at most?"""
        return (self.family, self.maps, self.chains) == (other.family, other.maps, other.chains)


_CGROUPS = Map("cgroups", DATA_TYPE_CGROUPV2, 8, HOST_ORDER)
_ADDRESSES = {
    NFPROTO_IPV4: Map("addresses4", DATA_TYPE_IPADDR, 4, _NETWORK_ORDER),
    NFPROTO_IPV6: Map("addresses6", DATA_TYPE_IP6ADDR, 16, _NETWORK_ORDER),
}


def contents(marks: Marks, *, bridge: bool = False, net_cls: bool = False) -> tuple[Contents, ...]:
    """What there shall be: the inet family's table and, with `bridge`, that of the bridge family.

    With `net_cls`, the cgroup v1 class of a socket is taken where it is one of ours.
    """
    addresses = _addresses(marks)
    cgroups = {_CGROUPS.name: {_host(number, 8): _class(qos) for _, number, qos in marks.cgroups}}
    levels = sorted({level for level, _, _ in marks.cgroups})
    output = tuple(map(_by_net_cls, Qos)) if net_cls else ()
    output += tuple(map(_by_cgroup, levels))
    pods = tuple(_ADDRESSES.values())
    routed = Contents(
        NFPROTO_INET,
        (_CGROUPS, *pods),
        (Chain("output", _OUTPUT, _MANGLE), Chain("postrouting", _POSTROUTING, _MANGLE)),
        {"output": output, "postrouting": tuple(map(_if_routed, _SADDR))},
        cgroups | addresses,
    )
    if not bridge:
        return (routed,)
    forward = (Chain("forward", _FORWARD, _BRIDGE_FILTER),)
    rules = {"forward": tuple(map(_if_bridged, _SADDR))}
    return (routed, Contents(NFPROTO_BRIDGE, pods, forward, rules, addresses))


def _addresses(marks: Marks) -> dict[str, dict[bytes, bytes]]:
    elements: dict[str, dict[bytes, bytes]] = {pods.name: {} for pods in _ADDRESSES.values()}
    for address, qos in marks.addresses:
        if ":" in address:
            protocol, family = NFPROTO_IPV6, socket.AF_INET6
        else:
            protocol, family = NFPROTO_IPV4, socket.AF_INET
        elements[_ADDRESSES[protocol].name][socket.inet_pton(family, address)] = _class(qos)
    return elements


def _host(number: int, length: int) -> bytes:
    return number.to_bytes(length, sys.byteorder)


def _class(qos: Qos) -> bytes:
    return _host(classid(qos), 4)


def _by_net_cls(qos: Qos) -> Rule:
    return (
        _loaded(NFT_META_CGROUP),
        _equal(_class(qos)),
        _expression("immediate", {1: _REGISTER, 2: {1: _class(qos)}}),  # NFTA_IMMEDIATE_DREG, _DATA
        _SET_PRIORITY,
    )


def _by_cgroup(level: int) -> Rule:
    found = _expression("socket", {1: _CGROUPV2, 2: _REGISTER, 3: level})  # NFTA_SOCKET_KEY, _DREG, _LEVEL
    return (found, _looked_up(_CGROUPS), _SET_PRIORITY)


def _if_routed(protocol: int) -> Rule:
    return (_loaded(NFT_META_NFPROTO), _equal(bytes([protocol])), *_by_saddr(protocol))


def _if_bridged(protocol: int) -> Rule:
    ethertype = _ETH_P[protocol].to_bytes(2, "big")
    return (_loaded(NFT_META_PROTOCOL), _equal(ethertype), *_by_saddr(protocol))


def _by_saddr(protocol: int) -> Rule:
    offset, length = _SADDR[protocol]
    # NFTA_PAYLOAD_DREG, _BASE, _OFFSET, _LEN
    loaded = _expression("payload", {1: _REGISTER, 2: _NETWORK_HEADER, 3: offset, 4: length})
    return (loaded, _looked_up(_ADDRESSES[protocol]), _SET_PRIORITY)


def _expression(name: str, data: Attributes) -> Attributes:
    return {1: name, 2: data}  # NFTA_EXPR_NAME, _DATA


def _loaded(key: int) -> Attributes:
    return _expression("meta", {1: _REGISTER, 2: int(key)})  # NFTA_META_DREG, _KEY


def _equal(value: bytes) -> Attributes:
    return _expression("cmp", {1: _REGISTER, 2: 0, 3: {1: value}})  # NFTA_CMP_SREG, _OP (EQ), _DATA


def _looked_up(found: Map) -> Attributes:
    # NFTA_LOOKUP_SET, _SREG, _DREG
    return _expression("lookup", {1: found.name, 2: _REGISTER, 3: _REGISTER})


# NFTA_META_KEY, _SREG
_SET_PRIORITY = _expression("meta", {2: NFT_META_PRIORITY, 3: _REGISTER})
