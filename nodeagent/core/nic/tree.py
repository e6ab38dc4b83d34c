"""All parameters of the HTB tree of one NIC, from what its classes are guaranteed and may reach.

    4e51:1      rate = ceil = top: the usable share of the link, so that the queue is here and not at the wire
      :10 LS    borrows first, and has every packet that nobody has classified
      :20 MID
      :30 BATCH borrows last, with a queue of its own length

(tc-htb(8), Linux net/sched/sch_htb.c.)
"""

from __future__ import annotations

from nodeagent.model.nic import HtbClass, Tree
from nodeagent.model.nic_policy import NicRule, RoleBy
from nodeagent.model.pod import Qos

# (LS, MID, BATCH) guaranteed, as shares of the top.
SHARES = {
    RoleBy.AUTO: (0.60, 0.30, 0.05),
    RoleBy.SHARED: (0.60, 0.30, 0.05),
    RoleBy.ONLINE: (0.70, 0.20, 0.05),
    RoleBy.BULK: (0.10, 0.80, 0.05),
}
PRIOS = {Qos.LS: 0, Qos.MID: 1, Qos.BATCH: 2}
_BURST_S = 0.0005  # a longer one delays LS: measured 28 times at 20 ms
_FAST_BURST_S, _FAST_BPS = 0.001, 10e9
_LEAST_BURST_BYTES = 16384
_QUANTUM_S, _LEAST_QUANTUM_BYTES, _MOST_QUANTUM_BYTES = 0.001, 1514, 200_000
_QUEUE_S, _LEAST_QUEUE_BYTES = 0.015, 256 << 10


def guarantees(rule: NicRule, top_bps: float, ls_bps: float = 0.0) -> tuple[float, float, float]:
    """(LS, MID, BATCH) in bits/s, together at most `top_bps`; LS at least `ls_bps`, at MID's cost.

    What the rule gives is given, the usual shares of the others are cut to the rest. Batch is guaranteed no
    more than it may have.
    """
    asked = (rule.ls_ratio, rule.mid_ratio, rule.batch_ratio)
    given = sum(share for share in asked if share is not None)
    others = sum(usual for own, usual in zip(asked, SHARES[rule.role], strict=True) if own is None)
    rest = min(1.0, max(0.0, 1.0 - given) / others) if others else 0.0
    scale = min(1.0, 1.0 / given) if given else 1.0
    ls, mid, batch = (
        top_bps * (usual * rest if own is None else own * scale)
        for own, usual in zip(asked, SHARES[rule.role], strict=True)
    )
    batch = min(batch, rule.batch_ceiling_ratio * top_bps)
    ls = min(max(ls, ls_bps), top_bps - batch)
    return ls, min(mid, top_bps - batch - ls), batch


def tree(
    rule: NicRule, top_bps: float, ceiling_bps: float, ls_bps: float = 0.0, *, own_queue: bool = False
) -> Tree:
    """The tree below `top_bps` with Batch's ceiling as it is now. `own_queue`: the kernel has fq_codel."""
    top = whole(top_bps)
    rates = dict(zip(Qos, guarantees(rule, top, ls_bps), strict=True))
    ceils = {Qos.LS: top, Qos.MID: top, Qos.BATCH: whole(min(top, max(ceiling_bps, rates[Qos.BATCH])))}
    queue = 0 if own_queue else max(_LEAST_QUEUE_BYTES, round(_QUEUE_S * top / 8))
    classes = tuple(
        HtbClass(
            qos=qos,
            rate_bps=whole(rates[qos]),
            ceil_bps=ceils[qos],
            prio=PRIOS[qos],
            burst_bytes=burst_bytes(rates[qos]),
            cburst_bytes=burst_bytes(ceils[qos]),
            quantum_bytes=_quantum(rates[qos]),
            queue_bytes=queue if qos is Qos.BATCH else 0,
        )
        for qos in Qos
    )
    return Tree(top, burst_bytes(top), classes)


def whole(bps: float) -> float:
    """In whole bytes per second, as the kernel keeps it; never 0, which it refuses."""
    return max(1000.0, float(int(bps / 8) * 8))


def burst_bytes(rate_bps: float) -> int:
    """0.5 ms of the rate, 1 ms from 10 Gbit/s on; below 262 Mbit/s 16 KiB, which GSO frames need."""
    seconds = _FAST_BURST_S if rate_bps >= _FAST_BPS else _BURST_S
    return max(_LEAST_BURST_BYTES, int(rate_bps / 8 * seconds))


def _quantum(rate_bps: float) -> int:
    return min(max(int(rate_bps / 8 * _QUANTUM_S), _LEAST_QUANTUM_BYTES), _MOST_QUANTUM_BYTES)
