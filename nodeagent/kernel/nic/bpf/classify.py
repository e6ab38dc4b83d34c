"""The program that tells whose a packet is, as text: skb->priority by the socket's cgroup, else by address.

It alone is the step `bpf`; no cgroup_skb program goes with it. At clsact egress a packet of a host process
still has its socket, whose cgroup and that one's ancestors are what cgroup_skb would have matched; it runs
after cgroup_skb and netfilter, so nothing that the application set (SO_PRIORITY) or a rule of somebody else
outlasts it; and it leaves nothing in cgroup directories that belong to kubelet or systemd. Both see the
cgroup that the socket was made in, wherever its process went since.

A packet that was forwarded has lost its socket (skb_orphan in ip_rcv), so routed pods go by address; bridged
and macvlan ones by either. The deepest cgroup wins, as in the nftables classifier. No match leaves
skb->priority alone, so what went into a tunnel (VXLAN, IPIP) is told by attaching the program at the tunnel's
device as well. What it cannot tell and nftables can: packets of a pod whose address was masqueraded.
Invariant: it answers TC_ACT_UNSPEC, whatever happens: filters behind it run as if it were not there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from nodeagent.kernel.nic.bpf.assemble import (
    FRAME,
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    Line,
    Reg,
    call,
    compute,
    jump,
    jump_if,
    label,
    leave,
    load,
    load_map,
    move,
    store,
)

# Linux include/uapi/linux/bpf.h: offsets in struct __sk_buff, and helpers by number
PROTOCOL, PRIORITY = 16, 32
MAP_LOOKUP, LOAD_BYTES_RELATIVE, ANCESTOR_CGROUP_ID = 1, 68, 83
UNSPEC = -1  # TC_ACT_UNSPEC
LEVELS = range(1, 17)  # of cgroup directories; the root has 0
_FROM_MAC, _FROM_NETWORK = 0, 1  # enum bpf_hdr_start_off
_KEY = -48  # where keys are built on the stack


def _ethertype(number: int) -> int:
    """As the field of the packet reads on this machine."""
    return int.from_bytes(number.to_bytes(2, "big"), sys.byteorder)


IPV4, IPV6, VLAN, STACKED_VLAN = (_ethertype(each) for each in (0x0800, 0x86DD, 0x8100, 0x88A8))


def lookup(name: str, key: int) -> tuple[Line, ...]:
    """R0 = the address of the map's value for the key at FRAME + key, 0 if there is none."""
    return (load_map(R1, name), move(R2, Reg(FRAME)), compute(R2, "+", key), call(MAP_LOOKUP))


def _by_cgroup() -> Iterator[Line]:
    """R6 = packet, R7 = bits of the levels in use; deepest first, a hit goes to `hit`."""
    for level in reversed(LEVELS):
        yield from (
            jump_if(R7, "&", 1 << level, f"level {level}"),
            jump(f"above {level}"),
            label(f"level {level}"),
            move(R1, Reg(R6)),
            move(R2, level),
            call(ANCESTOR_CGROUP_ID),  # 0: no socket, or not so deep
            jump_if(R0, "==", 0, f"above {level}"),
            store(FRAME, _KEY, Reg(R0), 8),
            *lookup("na_cgroups", _KEY),
            jump_if(R0, "!=", 0, "hit"),
            label(f"above {level}"),
        )


def _copied(offset: int, width_bytes: int) -> tuple[Line, ...]:
    """Bytes of the packet at R8 + offset, from the header that R9 tells, become the key; else to `out`."""
    return (
        move(R1, Reg(R6)),
        move(R2, Reg(R8)),
        compute(R2, "+", offset),
        move(R3, Reg(FRAME)),
        compute(R3, "+", _KEY),
        move(R4, width_bytes),
        move(R5, Reg(R9)),
        call(LOAD_BYTES_RELATIVE),
        jump_if(R0, "!=", 0, "out"),
    )


PROGRAM: tuple[Line, ...] = (
    move(R6, Reg(R1)),
    store(FRAME, _KEY, 0, 4),
    *lookup("na_levels", _KEY),
    jump_if(R0, "==", 0, "out"),
    load(R7, R0, 0, 4),
    *_by_cgroup(),
    # A VLAN tag is beside the packet as a rule. Where it is within, the address is behind it.
    load(R7, R6, PROTOCOL, 4),
    move(R8, 0),
    move(R9, _FROM_NETWORK),
    jump_if(R7, "==", VLAN, "tagged"),
    jump_if(R7, "!=", STACKED_VLAN, "protocol"),
    label("tagged"),
    move(R9, _FROM_MAC),
    *_copied(16, 2),
    load(R7, FRAME, _KEY, 2),
    move(R8, 18),
    label("protocol"),
    jump_if(R7, "==", IPV4, "ipv4"),
    jump_if(R7, "!=", IPV6, "out"),
    *_copied(8, 16),
    *lookup("na_ipv6", _KEY),
    jump("found"),
    label("ipv4"),
    *_copied(12, 4),
    *lookup("na_ipv4", _KEY),
    label("found"),
    jump_if(R0, "==", 0, "out"),
    label("hit"),
    load(R1, R0, 0, 4),
    store(R6, PRIORITY, Reg(R1), 4),
    label("out"),
    move(R0, UNSPEC),
    leave(),
)
