"""What each online pod's readings come to in this tick: every sign that can be told, in the sign's unit.

A value is over the time between the two readings of its source. A source that has nothing new (it is read
less often, or its reading was carried over), a counter that fell and a missing reading give no value: then
the sign is unknown in this tick, which is neither good nor bad.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from msgspec import Struct

from nodeagent.core import apps
from nodeagent.core.interference.deltas import rose, share
from nodeagent.core.interference.host_shares import HostShares
from nodeagent.core.interference.symptoms import delay_ratio, slow_signs
from nodeagent.core.rates import PodRates, View
from nodeagent.model.pod import Qos
from nodeagent.model.senses import Senses, Served
from nodeagent.model.snapshot import Pod, Reading, Stall
from nodeagent.model.symptom import Sign

_P99 = 0.99
_NAMES = {
    "cpu_stall": Sign.CPU_STALL,
    "memory_stall": Sign.MEMORY_STALL,
    "io_stall": Sign.IO_STALL,
    "run_delay": Sign.RUN_DELAY,
} | {sign.value: sign for sign in Sign}
_STALLS = (Sign.MEMORY_STALL, Sign.IO_STALL)


class Measures(Struct, frozen=True, gc=False):
    """`values` in the units of `Sign`; a sign in neither `values` nor `unsupported` is unknown in this tick.

    `span_s` is the time that a value is of, where that is not this tick's; `full` the shares of wall time of
    PSI "full" where "some" is not 0. `served` is the request count that came with this tick. `still`: the pod
    did nothing and nothing new is told of it.
    """

    values: dict[Sign, float]
    unsupported: frozenset[Sign]
    span_s: dict[Sign, float] = {}
    full: dict[Sign, float] = {}
    served: Served | None = None
    still: bool = False


def measured(
    view: View, cpus_of: Mapping[str, frozenset[int]], senses: Senses | None = None
) -> dict[str, Measures]:
    """The measures of each online pod, by uid. `cpus_of` are the CPUs of cgroups; without: all CPUs.

    `senses` (of the last tick) hold the request counts that CPU time per request is taken from.
    """
    host = HostShares(view)
    kept = Senses() if senses is None else senses
    return {
        p.pod.spec.uid: _measures(p, view, host, cpus_of, kept)
        for p in view.pods
        if p.pod.spec.qos is not Qos.BATCH
    }


def _measures(
    p: PodRates, view: View, host: HostShares, cpus_of: Mapping[str, frozenset[int]], senses: Senses
) -> Measures:
    pod, before, dt_s = p.pod, p.before, view.dt_s
    unsupported = _unsupported(pod.unsupported, pod.app is None)
    if dt_s is None:
        return Measures({}, unsupported)
    if p.cores == 0.0 and (before is pod or (before is not None and _nothing_new(pod, before))):
        return _still(p, unsupported)
    values = host.shares(cpus_of.get(pod.spec.cgroup))
    span_s: dict[Sign, float] = {}
    full: dict[Sign, float] = {}
    _fast(p, dt_s, values, full)
    if before is None:
        return Measures(values, unsupported, {}, full)
    if pod.reading.slow_at != before.reading.slow_at:
        _slow_stalls(pod.reading, before.reading, values, span_s, full)
    if pod.symptoms is not None and pod.symptoms is not before.symptoms:
        slow_signs(p, view, values, span_s)
    served = _told(p, view.snapshot.at, dt_s, senses, values, span_s) if pod.app is not None else None
    return Measures(values, unsupported, span_s, full, served)


@lru_cache(maxsize=1024)
def _unsupported(names: tuple[str, ...], silent: bool) -> frozenset[Sign]:
    """`silent`: nobody asks the application."""
    found = {_NAMES[name] for name in names if name in _NAMES}
    return frozenset(found | {Sign.LATENCY, Sign.CPU_PER_REQUEST} if silent else found)


def _nothing_new(pod: Pod, before: Pod) -> bool:
    return (
        pod.reading == before.reading
        and (pod.symptoms is before.symptoms or pod.symptoms == before.symptoms)
        and (pod.app is before.app or pod.app == before.app)
    )


_STILL = {Sign.CPU_STALL: 0.0, Sign.THROTTLED: 0.0}
_STILL_DELAY = {Sign.RUN_DELAY: 0.0, Sign.THROTTLED: 0.0}


def _still(p: PodRates, unsupported: frozenset[Sign]) -> Measures:
    """A pod that neither ran nor waited."""
    if p.stall_ratio is not None:
        return _still_of(unsupported, True)
    return _still_of(unsupported, False) if p.run_delay_ratio is not None else Measures({}, unsupported)


@lru_cache(maxsize=64)
def _still_of(unsupported: frozenset[Sign], stall: bool) -> Measures:
    return Measures(_STILL if stall else _STILL_DELAY, unsupported, still=True)


def _fast(p: PodRates, dt_s: float, values: dict[Sign, float], full: dict[Sign, float]) -> None:
    """What is read in each tick."""
    reading, before = p.pod.reading, p.before
    if p.stall_ratio is not None:
        values[Sign.CPU_STALL] = min(1.0, p.stall_ratio)
        if p.stall_ratio > 0.0 and before is not None:
            _note_full(Sign.CPU_STALL, reading.cpu_stall, before.reading.cpu_stall, dt_s, full)
    if p.run_delay_ratio is not None and p.cores is not None:
        waited = max(0.0, p.run_delay_ratio - (p.throttled_ratio or 0.0))
        values[Sign.RUN_DELAY] = delay_ratio(waited, p.cores)
    if before is not None:
        throttled = _throttled(p.pod, before)
        if throttled is not None:
            values[Sign.THROTTLED] = throttled


def _throttled(pod: Pod, before: Pod) -> float | None:
    """Throttled periods / periods: the pod's, or the container's that was throttled most."""
    found = _throttled_periods(before.reading, pod.reading)
    if pod.containers and before.containers:
        was = {(c.cgroup, c.inode): c.reading for c in before.containers}
        for c in pod.containers:
            old = was.get((c.cgroup, c.inode))
            inner = None if old is None else _throttled_periods(old, c.reading)
            if inner is not None and (found is None or inner > found):
                found = inner
    return found


def _throttled_periods(old: Reading, new: Reading) -> float | None:
    if new.throttled_periods == old.throttled_periods and new.throttled_periods is not None:
        return 0.0
    throttled, periods = rose(old.throttled_periods, new.throttled_periods), rose(old.periods, new.periods)
    if throttled is None or periods is None:
        return None
    return min(1.0, throttled / periods) if periods else 0.0


def _slow_stalls(
    reading: Reading,
    old: Reading,
    values: dict[Sign, float],
    span_s: dict[Sign, float],
    full: dict[Sign, float],
) -> None:
    """Memory and IO pressure, over the time between two readings of the slow tier."""
    if reading.slow_at is None or old.slow_at is None or reading.slow_at <= old.slow_at:
        return
    seconds = reading.slow_at - old.slow_at
    new_stalls, old_stalls = (reading.memory_stall, reading.io_stall), (old.memory_stall, old.io_stall)
    for sign, new, was in zip(_STALLS, new_stalls, old_stalls, strict=True):
        ratio = None if new is None or was is None else share(was.some_us, new.some_us, seconds)
        if ratio is not None:
            values[sign], span_s[sign] = min(1.0, ratio), seconds
            if ratio > 0.0:
                _note_full(sign, new, was, seconds, full)


def _note_full(
    sign: Sign, new: Stall | None, old: Stall | None, seconds: float, full: dict[Sign, float]
) -> None:
    if new is not None and old is not None:
        ratio = share(old.full_us, new.full_us, seconds)
        if ratio is not None:
            full[sign] = min(1.0, ratio)


def _told(
    p: PodRates,
    at: float,
    dt_s: float,
    senses: Senses,
    values: dict[Sign, float],
    span_s: dict[Sign, float],
) -> Served | None:
    """What the application tells, when something new came of it."""
    app, before = p.pod.app, p.before
    if app is None or app.at is None or before is None:
        return None
    old = before.app
    if old is None or old.at is None or app.at > old.at:
        quantile = _P99 if app.slo is None else app.slo.quantile
        latency_s = apps.latency_s(app, at, quantile)
        if latency_s is not None:
            values[Sign.LATENCY] = latency_s
            if old is not None and old.at is not None:
                span_s[Sign.LATENCY] = app.at - old.at
    served = apps.served(app, (at - dt_s, before.reading.cpu_us), (at, p.pod.reading.cpu_us))
    sense = senses.pods.get(p.pod.spec.uid)
    if served is not None and sense is not None:
        cost_s = apps.cpu_per_request_s(sense.served, served)
        if cost_s is not None and sense.served is not None:
            values[Sign.CPU_PER_REQUEST] = cost_s
            span_s[Sign.CPU_PER_REQUEST] = served.at - sense.served.at
    return served
