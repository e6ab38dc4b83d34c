"""What one application has pushed over time, and the reading that comes of it. Pure.

Invariant: requests of windows that overlap are counted once.
"""

from __future__ import annotations

from nodeagent.apps.window import PERIODS, Slice, Window, reading
from nodeagent.model.app import Push, requests_needed
from nodeagent.model.symptom import AppReading, Slo

GRPC = "grpc"
LEAST_PERIOD_S, MOST_PERIOD_S = 1.0, 15.0


class Pushed:
    """Of one pod."""

    def __init__(self) -> None:
        self._window = Window()
        self._at: float | None = None
        self._requests = 0.0

    def take(self, push: Push, slo: Slo | None, at: float) -> AppReading:
        """A push came at `at`; `slo` is what was promised by others, which goes before its own."""
        slo = slo or push.slo
        elapsed_s = push.window_s if self._at is None else min(push.window_s, at - self._at)
        if push.window_s > 0.0:
            self._requests += push.requests * elapsed_s / push.window_s
        period_s = min(MOST_PERIOD_S, max(LEAST_PERIOD_S, elapsed_s))
        self._at = at
        if push.bounds_s:
            since = at - push.window_s
            seen = sum(push.counts)
            self._window.add(Slice(since, at, push.requests, seen, push.bounds_s, push.counts))
            return reading(GRPC, self._window, requests=self._requests, slo=slo, period_s=period_s, at=at)
        self._window.clear()
        return AppReading(
            source=GRPC,
            at=at,
            stale_after_s=PERIODS * period_s,
            requests=int(self._requests),
            window_s=push.window_s,
            window_requests=push.requests,
            latency_s=tuple(each for each in push.latency_s if push.requests >= requests_needed(each[0])),
            slo=slo,
        )
