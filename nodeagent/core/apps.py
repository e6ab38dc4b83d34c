"""What an application's words are worth at a moment: pure.

Invariant: what is stale, of too few requests or not told is None, never a good value.
"""

from __future__ import annotations

import math

from nodeagent.model.app import LEAST_REQUESTS, requests_needed
from nodeagent.model.senses import Served
from nodeagent.model.symptom import AppReading

_SAME = 1e-9  # quantiles that differ by less are one


def fresh(app: AppReading | None, at: float) -> bool:
    """Whether it came at most `stale_after_s` before `at` (monotonic seconds)."""
    return app is not None and app.at is not None and at - app.at <= app.stale_after_s


def latency_s(app: AppReading | None, at: float, quantile: float) -> float | None:
    """Seconds at `quantile` in (0, 1); None unless it is told, fresh, and of enough requests (p99: 300)."""
    if app is None or not fresh(app, at) or app.window_requests < requests_needed(quantile):
        return None
    told = (value for of, value in app.latency_s if abs(of - quantile) < _SAME)
    found = next(told, None)
    return found if found is not None and math.isfinite(found) and found >= 0.0 else None


def slack(app: AppReading | None, at: float) -> float | None:
    """(SLO - latency) / SLO: 1 = instant, 0 = at the bound, below 0 = broken; None without SLO or latency.

    Heracles (ISCA'15) steers by it.
    """
    if app is None or app.slo is None or app.slo.bound_s <= 0.0:
        return None
    found = latency_s(app, at, app.slo.quantile)
    return None if found is None else (app.slo.bound_s - found) / app.slo.bound_s


def requests_per_s(before: AppReading | None, app: AppReading | None, at: float) -> float | None:
    """Requests a second between two readings; None where nothing new came, or another count began."""
    if app is None or before is None or not fresh(app, at) or before.source != app.source:
        return None
    if before.at is None or app.at is None or before.requests is None or app.requests is None:
        return None
    if app.at <= before.at or app.requests < before.requests:
        return None
    return (app.requests - before.requests) / (app.at - before.at)


def served(
    app: AppReading | None, before: tuple[float, int | None], now: tuple[float, int | None]
) -> Served | None:
    """The count of `app` with the CPU time of its moment, from (monotonic seconds, cpu_us) of two ticks.

    The CPU time is taken to have risen evenly between them. None when the count came outside of them (so a
    count is taken once: in the tick after it came), or anything is not known.
    """
    if app is None or app.at is None or app.requests is None:
        return None
    (from_at, from_us), (to_at, to_us) = before, now
    if from_us is None or to_us is None or to_us < from_us or not from_at < app.at <= to_at:
        return None
    cpu_us = from_us + (to_us - from_us) * (app.at - from_at) / (to_at - from_at)
    return Served(app.source, app.at, app.requests, cpu_us)


def cpu_per_request_s(before: Served | None, after: Served | None) -> float | None:
    """CPU seconds per request between two counts; None for fewer than 30 requests, and where a count fell.

    Where no PMU tells cycles per instruction: shared caches, memory bandwidth and hyperthreads inflate it,
    waiting for a CPU does not.
    """
    if before is None or after is None or before.source != after.source or after.at <= before.at:
        return None
    requests, cpu_us = after.requests - before.requests, after.cpu_us - before.cpu_us
    if requests < LEAST_REQUESTS or cpu_us < 0.0:
        return None
    return cpu_us / 1e6 / requests
