"""The program that sets departure times, as text; the NIC's fq (at its root or below mq) keeps them.

For each of our classes, told by skb->priority (set by nftables or by `classify` before it):

    na_limits   bytes/s (0 = not limited), horizon in ns    written by the agent only: one update, a new rate
    na_departs  when the next packet may leave, ns          written by this program only
    na_counts   bytes, packets, drops, delayed; per CPU     written by this program only

Departures are given out by atomic instructions, so CPUs that send at once (mq) do not exceed the rate
together. An idle class begins anew: it saves nothing up. What would wait longer than the horizon is dropped,
or a lowered rate would be felt only after all that waits has left.
Rates count what is sent on the wire (wire_len: a GSO packet with the headers of its segments), as HTB does.
Invariant: a class without a limit is counted and otherwise let be.
"""

from __future__ import annotations

from nodeagent.kernel.nic.bpf.assemble import (
    FRAME,
    R0,
    R1,
    R2,
    R3,
    R4,
    R6,
    R7,
    R8,
    R9,
    Line,
    Reg,
    call,
    compare_exchange,
    compute,
    fetch_add,
    jump,
    jump_if,
    label,
    leave,
    load,
    move,
    store,
)
from nodeagent.kernel.nic.bpf.classify import PRIORITY, UNSPEC, lookup
from nodeagent.model.nic import classid
from nodeagent.model.pod import Qos

# Linux include/uapi/linux/bpf.h: offsets in struct __sk_buff, a helper; pkt_cls.h: TC_ACT_SHOT
TIMESTAMP, WIRE_LENGTH, SEGMENTS = 152, 160, 164
KTIME_GET_NS = 5
SHOT = 2
CLASSES = (Qos.LS, Qos.MID, Qos.BATCH)  # by their key in the maps
BYTES, PACKETS, DROPS, DELAYED = 0, 8, 16, 24  # offsets in a value of na_counts
_KEY, _COST_NS = -4, -16  # on the stack


def _count(offset: int, amount: int | Reg) -> tuple[Line, ...]:
    return (load(R3, R7, offset, 8), compute(R3, "+", amount), store(R7, offset, Reg(R3), 8))


_CLASS: tuple[Line, ...] = (
    store(FRAME, _KEY, CLASSES.index(Qos.BATCH), 4),
    load(R1, R6, PRIORITY, 4),
    jump_if(R1, "==", classid(Qos.BATCH), "class"),
    store(FRAME, _KEY, CLASSES.index(Qos.MID), 4),
    jump_if(R1, "==", classid(Qos.MID), "class"),
    store(FRAME, _KEY, CLASSES.index(Qos.LS), 4),
    label("class"),
)
# R8 = horizon, R3 = where the time of departure is, R2 = what this packet takes
_COST: tuple[Line, ...] = (
    load(R1, R0, 0, 8),
    load(R8, R0, 8, 8),
    jump_if(R1, "==", 0, "sent"),
    load(R2, R6, WIRE_LENGTH, 4),
    compute(R2, "*", 1_000_000_000),
    compute(R2, "/", Reg(R1)),
    store(FRAME, _COST_NS, Reg(R2), 8),
    *lookup("na_departs", _KEY),
    jump_if(R0, "==", 0, "out"),
    move(R3, Reg(R0)),
    load(R2, FRAME, _COST_NS, 8),
)
# R2 = when this packet departs
_DEPARTURE: tuple[Line, ...] = (
    load(R0, R3, 0, 8),
    jump_if(R0, ">", Reg(R9), "queued"),
    move(R1, Reg(R0)),
    move(R4, Reg(R9)),
    compute(R4, "+", Reg(R2)),
    compare_exchange(R3, 0, R4),
    jump_if(R0, "==", Reg(R1), "sent"),  # idle until now; else another CPU was faster
    label("queued"),
    move(R1, Reg(R0)),
    compute(R1, "-", Reg(R9)),
    jump_if(R1, "s>", Reg(R8), "dropped"),
    fetch_add(R3, 0, R2),
)
# A time that the socket's own pacing has set is respected, if it is one: not what a clock of arrival left.
_TIMESTAMP: tuple[Line, ...] = (
    jump_if(R2, "<=", Reg(R9), "sent"),
    load(R1, R6, TIMESTAMP, 8),
    jump_if(R1, "<=", Reg(R2), "stamp"),
    move(R4, Reg(R1)),
    compute(R4, "-", Reg(R9)),
    jump_if(R4, "<=", Reg(R8), "delayed"),
    label("stamp"),
    store(R6, TIMESTAMP, Reg(R2), 8),
    label("delayed"),
    *_count(DELAYED, 1),
)
PROGRAM: tuple[Line, ...] = (
    move(R6, Reg(R1)),
    call(KTIME_GET_NS),
    move(R9, Reg(R0)),
    *_CLASS,
    *lookup("na_counts", _KEY),
    jump_if(R0, "==", 0, "out"),
    move(R7, Reg(R0)),
    *lookup("na_limits", _KEY),
    jump_if(R0, "==", 0, "out"),
    *_COST,
    *_DEPARTURE,
    *_TIMESTAMP,
    label("sent"),
    load(R1, R6, WIRE_LENGTH, 4),
    *_count(BYTES, Reg(R1)),
    load(R1, R6, SEGMENTS, 4),
    jump_if(R1, "!=", 0, "packets"),
    move(R1, 1),
    label("packets"),
    *_count(PACKETS, Reg(R1)),
    jump("out"),
    label("dropped"),
    *_count(DROPS, 1),
    move(R0, SHOT),
    leave(),
    label("out"),
    move(R0, UNSPEC),
    leave(),
)
