"""Somebody else's writes to our knobs: count them, and write again with back-off, or yield.

The first foreign write is answered at once (systemd's daemon-reload and kubelet rewrite values without
meaning it); every further one doubles the wait, so that two writers never fight at full speed.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from nodeagent.model.decision import Drift
from nodeagent.model.plan import Knob, KnobReading
from nodeagent.model.policy import DriftPolicy, OnDrift

FORGET_FACTOR = 10  # a knob left alone for this many longest waits starts afresh


def watch(
    now: float, readings: Iterable[KnobReading], drifts: tuple[Drift, ...], policy: DriftPolicy
) -> tuple[Drift, ...]:
    """The drifts after this tick; `count` grows by one for every new foreign write."""
    known = {d.knob: d for d in drifts}
    after = (_next(now, r, known.get(r.knob), policy) for r in readings if r.held)
    return tuple(d for d in after if d is not None)


def yielded(now: float, drifts: Iterable[Drift], policy: DriftPolicy) -> tuple[Knob, ...]:
    """Knobs not to be written in this tick: all drifted ones (yield), or those that wait (reassert)."""
    for_good = policy.on_drift is OnDrift.YIELD
    return tuple(sorted(d.knob for d in drifts if for_good or now < d.quiet_until))


def _next(now: float, reading: KnobReading, last: Drift | None, policy: DriftPolicy) -> Drift | None:
    if not reading.drifted:
        forget_s = FORGET_FACTOR * max(policy.backoff_max_s, 1.0)
        expired = last is None or (policy.on_drift is OnDrift.REASSERT and now - last.last > forget_s)
        return None if expired else last
    if last is None:
        return Drift(reading.knob, 1, now, now, reading.actual)
    waiting = now < last.quiet_until or (policy.on_drift is OnDrift.YIELD and last.found == reading.actual)
    if waiting:
        return last
    if last.quiet_until > last.last and last.found == reading.actual:
        return replace(last, quiet_until=last.last)  # the wait is over: what it was for is written now
    wait_s = min(policy.backoff_max_s, policy.backoff_s * 2.0 ** min(last.count - 1, 30))
    return Drift(reading.knob, last.count + 1, now, now + wait_s, reading.actual)
