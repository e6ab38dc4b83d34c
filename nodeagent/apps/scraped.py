"""One endpoint over time: what two answers differ by, and the reading that comes of it. Pure.

Invariant: a counter that fell began anew, and its new count is all that is known to have happened since; a
series that is seen for the first time, or after a long silence, tells nothing yet. So no delta is negative.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from nodeagent.apps.exposition import Exposed, Labels, Series
from nodeagent.apps.window import WINDOW_S, Slice, Window, counts_of, reading
from nodeagent.model.symptom import AppReading, Slo

PROMETHEUS = "prometheus"
_UNITS = {  # of a histogram, by the end of its name; seconds where it tells none
    "_milliseconds": 1e-3,
    "_millis": 1e-3,
    "_ms": 1e-3,
    "_microseconds": 1e-6,
    "_us": 1e-6,
    "_nanoseconds": 1e-9,
    "_ns": 1e-9,
}


class Scraped:
    """What was scraped of one pod. `histogram` is the histogram's name, "" for none."""

    def __init__(self, histogram: str, period_s: float, slo: Slo | None) -> None:
        self.reading = AppReading(source=PROMETHEUS, stale_after_s=3.0 * period_s, slo=slo)
        self.labels = Labels()
        self._unit_s = unit_s(histogram)
        self._period_s, self._slo = period_s, slo
        self._window = Window()
        self._before: Exposed | None = None
        self._at = 0.0
        self._requests = 0.0

    def take(self, found: Exposed, at: float) -> AppReading:
        """An answer came at `at`. The first one only begins the count."""
        before, since = self._before, self._at
        self._before, self._at = found, at
        if before is None or at - since > WINDOW_S:
            self._window.clear()
            self.reading = replace(self.reading, error="")
            return self.reading
        bounds, counts = increase(before.buckets, found.buckets)
        answered = sum(risen(before.counts, found.counts)) if found.counts else sum(counts)
        self._requests += answered
        seconds = tuple(bound * self._unit_s for bound in bounds)
        self._window.add(Slice(since, at, answered, sum(counts), seconds, counts))
        self.reading = reading(
            PROMETHEUS, self._window, requests=self._requests, slo=self._slo, period_s=self._period_s, at=at
        )
        return self.reading

    def failed(self, why: str) -> AppReading:
        """No answer came, or none that tells anything: what was known gets old."""
        if why != self.reading.error:
            self.reading = replace(self.reading, error=why)
        return self.reading


def increase(
    before: Mapping[Series, Mapping[float, float]], now: Mapping[Series, Mapping[float, float]]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Bounds that all series have, and how much their buckets (not cumulative) have risen, all together."""
    known = [(before[series], buckets) for series, buckets in now.items() if series in before]
    if not known:
        return (), ()
    common = set(known[0][1])
    for old, new in known:
        common &= old.keys() & new.keys()
    bounds = tuple(sorted(common))
    total = [0.0] * len(bounds)
    for old, new in known:
        restarted = any(new[bound] < old[bound] for bound in bounds)
        counts = (new[bound] - (0.0 if restarted else old[bound]) for bound in bounds)
        total = [a + b for a, b in zip(total, counts_of(counts), strict=True)]
    return bounds, tuple(total)


def risen(before: Mapping[Series, float], now: Mapping[Series, float]) -> Iterable[float]:
    """By how much each series has risen that was there before."""
    for series, value in now.items():
        old = before.get(series)
        if old is not None:
            yield value - old if value >= old else value


def unit_s(name: str) -> float:
    """The unit of a histogram in seconds, by the end of its name."""
    base = name.partition("{")[0].removesuffix("_bucket")
    return next((unit for end, unit in _UNITS.items() if base.endswith(end)), 1.0)
