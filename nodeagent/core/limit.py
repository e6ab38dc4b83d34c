"""How many cores Batch as a whole may use now: halved while LS work is hurt, creeping back when it is not.

Additive increase, multiplicative decrease (Chiu and Jain, 1989), below the ceiling of the capacity formula
with what online work uses *now*. The offer that is reported uses the online *peak*, so it never exceeds
what is enforced for lack of quota. Blindness is not permission: an unknown ceiling never raises the limit.
"""

from __future__ import annotations

import math
import zlib

from nodeagent.core.rates import View
from nodeagent.model.decision import BatchLimit, Signal
from nodeagent.model.policy import CpuPolicy

LS_PRESSURE = "ls-cpu-pressure"
HALVE_GAP_S = 0.4  # what was cut must show before it is cut again
LONGEST_STEP_S = 10.0  # after a machine has slept, the time that passed is no proof of calm


def next_limit(
    view: View,
    signals: tuple[Signal, ...],
    policy: CpuPolicy,
    last: BatchLimit,
    ceiling_cores: float | None,
    sure: bool,
) -> tuple[BatchLimit, str]:
    """The limit for this tick and why. `last.cores` is what is in force, None when Batch is not limited yet.

    Without `sure` (an input of the ceiling is missing or old) or with an LS pod unseen it does not rise.
    """
    total = float(view.snapshot.topology.cores)
    floor = min(policy.floor_cores, total)
    if last.cores is not None and last.cores < floor:  # the floor was raised, or a tier's own quota is lower
        last = _with(last, floor)
    hurt = next((s for s in signals if s.name == LS_PRESSURE), None)
    if hurt is not None:
        return _halved(view, policy, last, ceiling_cores, floor, hurt)
    if ceiling_cores is None:
        return last, "online use is not known"
    ceiling = max(floor, ceiling_cores)
    if last.cores is None or ceiling <= last.cores:
        return _with(last, ceiling), "ceiling: what online work leaves"
    if view.blind or not sure:
        return last, "an online pod is not seen"
    return _grown(view, policy, last, ceiling)


def grid(cores: float, total: float) -> float:
    """Round down to 1/200 of the node, within 0.01 and 0.1 core, so that noise causes no writes."""
    step = max(0.01, min(total / 200, 0.1))
    return max(step, math.floor(cores / step + 1e-9) * step)


def _with(last: BatchLimit, cores: float) -> BatchLimit:
    return BatchLimit(cores, last.hurt_at, last.calm_after)


def _halved(
    view: View, policy: CpuPolicy, last: BatchLimit, ceiling: float | None, floor: float, hurt: Signal
) -> tuple[BatchLimit, str]:
    """Half of what is in force, or of what Batch really uses if that is less: it must bite at once."""
    now = view.snapshot.at
    if last.hurt_at is not None and last.cores is not None and now - last.hurt_at < HALVE_GAP_S:
        return last, f"just halved: {hurt.evidence}"
    bounds = [float(view.snapshot.topology.cores)]
    bounds += [x for x in (last.cores, ceiling, _batch_cores(view)) if x is not None]
    calm_after = now + policy.recover_after_s + policy.recover_jitter_s * _jitter(view)
    return BatchLimit(max(floor, min(bounds) / 2), now, calm_after), hurt.evidence


def _grown(view: View, policy: CpuPolicy, last: BatchLimit, ceiling: float) -> tuple[BatchLimit, str]:
    now, cores = view.snapshot.at, last.cores or 0.0
    if last.calm_after is not None and now < last.calm_after:
        return last, "LS work was hurt a moment ago"
    recovering = last.hurt_at is not None
    if not recovering and ceiling < cores * (1 + policy.dead_band_ratio):
        return last, "within the dead band"
    step = policy.recover_ratio_per_s * view.snapshot.topology.cores * min(view.dt_s or 0.0, LONGEST_STEP_S)
    grown = min(ceiling, cores + step)
    hurt_at = None if grown == ceiling else last.hurt_at
    why = "recovers: no LS pressure" if recovering else "grows: online work leaves more"
    return BatchLimit(grown, hurt_at, last.calm_after), why


def _batch_cores(view: View) -> float | None:
    """Cores that Batch used in this tick; None when nothing is known or nothing was used."""
    used = [p.cores for p in view.pods if not p.pod.spec.online and p.cores is not None]
    return sum(used) if used and sum(used) > 0.0 else None


def _jitter(view: View) -> float:
    """In [0, 1), different on every node and at every halving, yet the same in a replay."""
    return zlib.crc32(f"{view.snapshot.boot_id}/{view.snapshot.seq}".encode()) / 2**32
