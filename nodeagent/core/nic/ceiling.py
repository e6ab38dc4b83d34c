"""The law of Batch's ceiling on one NIC: down at once when online traffic needs the link, up in steps.

    online < watermark            target = all that Batch may ever have
    else                          target = max(pressed, top - 1.5 * online - 0.2 * top)
    LS had to wait twice          target = at most one step below what is in force

LS's guarantee follows 1.5 times the 95th percentile of what it sent lately, up to 0.8 of the top: a class
with tokens of its own is sent without asking anybody, one that borrows waits for Batch's frames.

Invariant: counters that are missing, old or went backwards never raise the ceiling; a sample that lacks a
class is none.
"""

from __future__ import annotations

import math

from msgspec.structs import replace

from nodeagent.core.nic.tree import guarantees, whole
from nodeagent.model.nic import ClassSeen, NicLaw
from nodeagent.model.nic_policy import NicPolicy, NicRule, RoleBy
from nodeagent.model.pod import Qos
from nodeagent.model.units import format_bps

HEADROOM, SPARE_RATIO = 1.5, 0.2  # of online's rate, and of the top: for what comes before the next sample
DEAD_BAND = 1.05  # smaller changes are not worth a write
GUARANTEE_MOST_RATIO = 0.8
IDLE_RATIO = 0.005
PEAKS = 256  # samples: half a minute at the default pace
_GUARANTEE_UP, _GUARANTEE_DOWN = 1.25, 0.8
_LEAST_S = 0.02  # over less the rate of a few frames is noise: the next sample has them too
_WAIT_S = 0.002  # an LS queue shorter than this at its guaranteed rate is no queue


def idle(law: NicLaw, top_bps: float) -> bool:
    """True while Batch sends next to nothing, so that its ceiling does not matter."""
    return law.batch_bps < IDLE_RATIO * top_bps


def begun(rule: NicRule, top_bps: float, seen: tuple[ClassSeen, ...]) -> NicLaw:
    """What is in force already where a tree of ours is found, else pressed: nothing is known yet."""
    ceiling = next((c.ceil_bps for c in seen if c.qos is Qos.BATCH), pressed(rule, top_bps))
    base = guarantees(rule, top_bps)[0]
    return NicLaw(min(ceiling, _most(rule, top_bps)), base, "nothing is known yet of online traffic")


def pressed(rule: NicRule, top_bps: float) -> float:
    """Batch's ceiling when online traffic needs the link; never below its guarantee."""
    return max(whole(rule.batch_pressed_ratio * top_bps), whole(guarantees(rule, top_bps)[2]))


def blind(law: NicLaw, rule: NicRule, top_bps: float, age_s: float) -> NicLaw:
    """Counters are too old to go by."""
    least = pressed(rule, top_bps)
    if law.ceiling_bps <= least:
        return replace(law, calm=0)
    return replace(law, ceiling_bps=least, calm=0, why=f"no counters for {age_s:.0f} s")


def followed(
    law: NicLaw, at: float, seen: tuple[ClassSeen, ...], rule: NicRule, policy: NicPolicy, top_bps: float
) -> NicLaw:
    """The law after one more sample of the classes, taken at the monotonic time `at`."""
    counters = {c.qos: c for c in seen}
    if len(counters) < len(Qos) or (law.at is not None and 0.0 <= at - law.at < _LEAST_S):
        return law
    sent = tuple(counters[qos].bytes for qos in Qos)
    fresh = replace(law, at=at, bytes=sent, ceiling_bps=min(law.ceiling_bps, _most(rule, top_bps)))
    if law.at is None or at < law.at or any(now < was for now, was in zip(sent, law.bytes, strict=True)):
        return fresh
    ls_bps, mid_bps, batch_bps = ((n - w) * 8 / (at - law.at) for n, w in zip(sent, law.bytes, strict=True))
    online_bps = ls_bps + mid_bps if rule.role is RoleBy.BULK else ls_bps
    waits = counters[Qos.LS].backlog_bytes * 8 > law.guarantee_bps * _WAIT_S
    fresh = replace(
        fresh,
        queued=law.queued + 1 if waits else 0,
        batch_bps=batch_bps,
        peaks_bps=(*law.peaks_bps[1 - PEAKS :], ls_bps),
    )
    fresh = _guaranteed(fresh, rule, top_bps)
    return _moved(fresh, rule, policy, top_bps, online_bps)


def _moved(law: NicLaw, rule: NicRule, policy: NicPolicy, top_bps: float, online_bps: float) -> NicLaw:
    least, most = pressed(rule, top_bps), _most(rule, top_bps)
    target, why = most, "online traffic leaves the link idle"
    if online_bps >= rule.watermark_ratio * top_bps:
        left = top_bps - HEADROOM * online_bps - SPARE_RATIO * top_bps
        target, why = min(max(left, least), most), f"online sends {format_bps(online_bps)}"
    if law.queued >= 2:
        target, why = max(least, min(target, law.ceiling_bps / policy.step_up)), "LS packets had to wait"
    if target * DEAD_BAND < law.ceiling_bps:
        return replace(law, ceiling_bps=whole(target), calm=0, why=why)
    if target <= law.ceiling_bps * DEAD_BAND and target < most:
        return replace(law, calm=0)
    if target <= law.ceiling_bps:
        return law
    law = replace(law, calm=law.calm + 1)
    if law.calm < policy.calm_beats:
        return law
    grown = whole(min(target, law.ceiling_bps * policy.step_up))
    return replace(law, ceiling_bps=grown, why=why if grown >= target else f"goes up: {why}")


def _guaranteed(law: NicLaw, rule: NicRule, top_bps: float) -> NicLaw:
    """LS's guarantee after its own use; on a bulk NIC it is MID's link, and LS has its share."""
    base = guarantees(rule, top_bps)[0]
    if rule.role is RoleBy.BULK:
        return replace(law, guarantee_bps=base)
    use = sorted(law.peaks_bps)[math.ceil(0.95 * len(law.peaks_bps)) - 1]
    wanted = max(base, min(HEADROOM * use, GUARANTEE_MOST_RATIO * top_bps))
    now = law.guarantee_bps
    if wanted > now * DEAD_BAND:
        return replace(law, guarantee_bps=whole(min(wanted, now * _GUARANTEE_UP)))
    falls = wanted < now * _GUARANTEE_DOWN or wanted <= base < now
    return replace(law, guarantee_bps=whole(wanted)) if falls else law


def _most(rule: NicRule, top_bps: float) -> float:
    return max(pressed(rule, top_bps), whole(rule.batch_ceiling_ratio * top_bps))
