"""HTB as rtnetlink says it: classes and leaf queues to bytes and back, in the kernel's units.

Rates are bytes per second, bursts are ticks of 64 ns at that rate. Invariant: `parms` of what is wanted is
equal to what the kernel tells of it once it is set.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from nodeagent.kernel.nic.rtnetlink import TCMSG, attribute, attributes, fields
from nodeagent.model.nic import HtbClass, Tree

# linux/rtnetlink.h, linux/gen_stats.h, linux/pkt_sched.h
_TCA_KIND, _TCA_OPTIONS, _TCA_STATS2 = 1, 2, 7
_TCA_STATS_BASIC, _TCA_STATS_QUEUE, _TCA_STATS_PKT64 = 1, 3, 8
_TCA_HTB_PARMS, _TCA_HTB_INIT, _TCA_HTB_RATE64, _TCA_HTB_CEIL64 = 1, 2, 6, 7
_TC_LINKLAYER_ETHERNET = 1
_HTB_VERSION, _RATE_TO_QUANTUM, _MAX_PRIO = 3, 10, 7
_U32 = MAX_LIMIT = 0xFFFFFFFF

_FIFOS = frozenset({"bfifo", "pfifo"})

_RATESPEC = "BBHhHI"  # cell_log, linklayer, overhead, cell_align, mpu, rate
_PARMS = Struct(f"={_RATESPEC}{_RATESPEC}5I")  # ... buffer, cbuffer, quantum, level, prio
_GLOB = Struct("=5I")  # version, rate2quantum, defcls, debug, direct_pkts
_BASIC = Struct("=QI")  # bytes, packets
_QUEUE = Struct("=5I")  # qlen, backlog, drops, requeues, overlimits
_LIMIT, _U64 = Struct("=I"), Struct("=Q")

# PSCHED_SHIFT 6 (net/pkt_sched.h): sch_htb.c keeps nanoseconds, made of these by a shift, so none is lost.
TICK_NS = 64


class Parms(NamedTuple):
    """What a class may use: bytes per second, ticks, bytes."""

    rate: int
    ceil: int
    buffer: int
    cbuffer: int
    quantum: int
    prio: int


class Counts(NamedTuple):
    """What went through a class, and what waits in it."""

    bytes: int
    packets: int
    drops: int
    overlimits: int
    backlog_bytes: int


class Held(NamedTuple):
    """A class as the kernel has it."""

    handle: int
    parent: int
    parms: Parms
    counts: Counts


class Queue(NamedTuple):
    """A qdisc; `limit` (bytes or packets) where it is a fifo, `default` (a minor) where it is an HTB."""

    device: int
    handle: int
    parent: int
    kind: str
    limit: int | None = None
    default: int | None = None


def top_parms(tree: Tree) -> Parms:
    """Of the class that all share."""
    return _parms(tree.top_bps, tree.top_bps, tree.burst_bytes, tree.burst_bytes)


def class_parms(wanted: HtbClass) -> Parms:
    """Of one of the classes below it."""
    bounds = wanted.rate_bps, wanted.ceil_bps, wanted.burst_bytes, wanted.cburst_bytes
    return _parms(*bounds, quantum=wanted.quantum_bytes, prio=wanted.prio)


def root_attributes(default: int) -> bytes:
    """Of a new HTB root. The kernel cannot change `default` later (htb has no change)."""
    glob = _GLOB.pack(_HTB_VERSION, _RATE_TO_QUANTUM, default, 0, 0)
    return _kind("htb") + attribute(_TCA_OPTIONS, attribute(_TCA_HTB_INIT, glob))


def class_attributes(parms: Parms) -> bytes:
    """Of a class, new or changed: the kernel keeps nothing of what it had.

    No rate tables: they only told the link layer (Linux kernel commit 8a8e3d84b171 ("net_sched: restore
    "linklayer atm" handling") in v3.11), which is named instead.
    """
    rate, ceil, buffer, cbuffer, quantum, prio = parms
    specs = [(0, _TC_LINKLAYER_ETHERNET, 0, 0, 0, min(bps, _U32)) for bps in (rate, ceil)]
    options = attribute(_TCA_HTB_PARMS, _PARMS.pack(*specs[0], *specs[1], buffer, cbuffer, quantum, 0, prio))
    if rate > _U32:
        options += attribute(_TCA_HTB_RATE64, _U64.pack(rate))
    if ceil > _U32:
        options += attribute(_TCA_HTB_CEIL64, _U64.pack(ceil))
    return _kind("htb") + attribute(_TCA_OPTIONS, options)


def queue_attributes(kind: str, limit: int | None = None) -> bytes:
    """Of a leaf qdisc; `limit` in bytes for bfifo, in packets for pfifo."""
    return _kind(kind) + (b"" if limit is None else attribute(_TCA_OPTIONS, _LIMIT.pack(limit)))


def held_class(message: bytes) -> Held | None:
    """Of an answer to RTM_GETTCLASS; None for a class of another kind of qdisc; Garbled."""
    _, _, _, handle, parent, _ = fields(TCMSG, message, "tcmsg")
    found = attributes(message, TCMSG.size)
    if found.get(_TCA_KIND) != b"htb\0":
        return None
    options = attributes(found.get(_TCA_OPTIONS, b""))
    parms = fields(_PARMS, options.get(_TCA_HTB_PARMS), "HTB parameters")
    buffer, cbuffer, quantum, _, prio = parms[12:]
    rate = _wide(options.get(_TCA_HTB_RATE64), parms[5])
    ceil = _wide(options.get(_TCA_HTB_CEIL64), parms[11])
    held = Parms(rate, ceil, buffer, cbuffer, quantum, prio)
    return Held(handle, parent, held, _counts(attributes(found.get(_TCA_STATS2, b""))))


def held_queue(message: bytes) -> Queue:
    """Of an answer to RTM_GETQDISC; Garbled."""
    _, _, device, handle, parent, _ = fields(TCMSG, message, "tcmsg")
    found = attributes(message, TCMSG.size)
    kind = found.get(_TCA_KIND, b"").rstrip(b"\0").decode(errors="replace")
    options = found.get(_TCA_OPTIONS, b"")
    queue = Queue(device, handle, parent, kind)
    if kind == "htb":
        glob = fields(_GLOB, attributes(options).get(_TCA_HTB_INIT), "HTB root")
        return queue._replace(default=glob[2])
    return queue._replace(limit=fields(_LIMIT, options, "fifo")[0]) if kind in _FIFOS else queue


def device_of(message: bytes) -> int:
    """The device that a qdisc or class is on; Garbled."""
    return fields(TCMSG, message, "tcmsg")[2]


def shown(handle: int) -> str:
    """A handle as tc prints it."""
    return f"{handle >> 16:x}:{handle & 0xFFFF:x}" if handle & 0xFFFF else f"{handle >> 16:x}:"


def _parms(
    rate_bps: float, ceil_bps: float, burst_bytes: int, cburst_bytes: int, quantum: int = 0, prio: int = 0
) -> Parms:
    rate, ceil = max(1, round(rate_bps / 8)), max(1, round(ceil_bps / 8))
    # as htb_change_class() does by itself, but with a line in the kernel log
    quantum = quantum or min(max(rate // _RATE_TO_QUANTUM, 1000), 200_000)
    return Parms(
        rate, ceil, _ticks(burst_bytes, rate), _ticks(cburst_bytes, ceil), quantum, min(prio, _MAX_PRIO)
    )


def _ticks(burst_bytes: int, rate: int) -> int:
    """Rounded up: a burst of 0 would stop the class."""
    return max(1, min(-(-burst_bytes * 1_000_000_000 // (rate * TICK_NS)), _U32))


def _counts(stats: dict[int, bytes]) -> Counts:
    size, packets = fields(_BASIC, stats.get(_TCA_STATS_BASIC), "basic counters")
    _, backlog, drops, _, overlimits = fields(_QUEUE, stats.get(_TCA_STATS_QUEUE), "queue counters")
    return Counts(size, _wide(stats.get(_TCA_STATS_PKT64), packets), drops, overlimits, backlog)


def _wide(value: bytes | None, narrow: int) -> int:
    """The kernel tells 64 bits only where 32 are too few."""
    return narrow if value is None else fields(_U64, value, "64-bit value")[0]


def _kind(name: str) -> bytes:
    return attribute(_TCA_KIND, name.encode() + b"\0")
