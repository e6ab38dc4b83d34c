"""How many cores Batch as a whole may use now: halved while LS work is hurt, creeping back when it is not.

Additive increase, multiplicative decrease (Chiu and Jain, 1989), below the ceiling of the capacity formula
with what online work uses *now*. The offer that is reported uses the online *peak*, so it never exceeds
what is enforced for lack of quota. Blindness is not permission: an unknown ceiling never raises the limit.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection

from nodeagent.core.rates import View
from nodeagent.model.decision import BatchLimit, Signal
from nodeagent.model.policy import CpuPolicy

LS_PRESSURE = "ls-cpu-pressure"
HALVE_GAP_S = 0.4  # what was cut must show before it is cut again
LONGEST_STEP_S = 10.0  # after a machine has slept, the time that passed is no proof of calm
CEILING = "ceiling: what online work leaves"
UNKNOWN = "online use is not known"
UNSEEN = "an online pod is not seen"
JUST_HALVED = "just halved: "
HURT_LATELY = "LS work was hurt a moment ago"
DEAD_BAND = "within the dead band"
RECOVERS = "recovers: no LS pressure"
GROWS = "grows: online work leaves more"


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
        return last, UNKNOWN
    ceiling = max(floor, ceiling_cores)
    if last.cores is None or ceiling <= last.cores:
        return _with(last, ceiling), CEILING
    if view.blind or not sure:
        return last, UNSEEN
    return _grown(view, policy, last, ceiling)


def undirected(signals: tuple[Signal, ...], directed: Collection[str]) -> tuple[Signal, ...]:
    """Without the pressure on victims for whose sake one antagonist is held: the rest need not pay for it."""
    return tuple(s for s in signals if s.name != LS_PRESSURE or s.subject not in directed)


def grid(cores: float, total: float) -> float:
    """Round down to 1/200 of the node, within 0.01 and 0.1 core, so that noise causes no writes."""
    step = grid_step(total)
    return max(step, math.floor(cores / step + 1e-9) * step)


def grid_step(total: float) -> float:
    """Cores between two limits that are told apart on a node of `total` cores."""
    return max(0.01, min(total / 200, 0.1))


def step_s(view: View) -> float:
    """The time of calm that this tick proves, in seconds."""
    return min(view.dt_s or 0.0, LONGEST_STEP_S)


def _with(last: BatchLimit, cores: float) -> BatchLimit:
    return BatchLimit(cores, last.hurt_at, last.calm_after)


def _halved(
    view: View, policy: CpuPolicy, last: BatchLimit, ceiling: float | None, floor: float, hurt: Signal
) -> tuple[BatchLimit, str]:
    """Half of what is in force, or of what Batch really uses if that is less: it must bite at once."""
    now = view.snapshot.at
    if last.hurt_at is not None and last.cores is not None and now - last.hurt_at < HALVE_GAP_S:
        return last, f"{JUST_HALVED}{hurt.evidence}"
    bounds = [float(view.snapshot.topology.cores)]
    bounds += [x for x in (last.cores, ceiling, batch_cores(view)) if x is not None]
    calm_after = now + policy.recover_after_s + policy.recover_jitter_s * _jitter(view)
    return BatchLimit(max(floor, min(bounds) / 2), now, calm_after), hurt.evidence


def _grown(view: View, policy: CpuPolicy, last: BatchLimit, ceiling: float) -> tuple[BatchLimit, str]:
    now, cores = view.snapshot.at, last.cores or 0.0
    if last.calm_after is not None and now < last.calm_after:
        return last, HURT_LATELY
    recovering = last.hurt_at is not None
    if not recovering and ceiling < cores * (1 + policy.dead_band_ratio):
        return last, DEAD_BAND
    step = policy.recover_ratio_per_s * view.snapshot.topology.cores * step_s(view)
    grown = min(ceiling, cores + step)
    hurt_at = None if grown == ceiling else last.hurt_at
    return BatchLimit(grown, hurt_at, last.calm_after), RECOVERS if recovering else GROWS


def batch_cores(view: View) -> float | None:
    """Cores that Batch used in this tick; None when nothing is known or nothing was used."""
    used = [p.cores for p in view.pods if not p.pod.spec.online and p.cores is not None]
    return sum(used) if used and sum(used) > 0.0 else None


def _jitter(view: View) -> float:
    """In [0, 1), different on every node and at every halving, yet the same in a replay."""
    return zlib.crc32(f"{view.snapshot.boot_id}/{view.snapshot.seq}".encode()) / 2**32
