"""StatsD lines, and per pod what they come to: a histogram of logarithmic buckets, never the values.

    search.latency:12.3|ms      search.requests:1|c|@0.1      (docs/metric_types.md of statsd/statsd)

Timers are in milliseconds; tags (|#...) are let be. With `latency_histogram` and `requests_counter` only the
names PREFIX.NAME count, else each timer and each counter under the prefix; without counters each timer is a
request.

Invariant: a pod's memory does not grow with its lines; no line has an effect on another pod's.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import NamedTuple

from nodeagent.apps.targets import Target
from nodeagent.apps.window import Slice, Window, reading
from nodeagent.model.symptom import AppReading

STATSD = "statsd"
RATIO, SHORTEST_S, BUCKETS = 1.05, 1e-5, 380  # 10 us to 1000 s, each within 5 %
BOUNDS = (*(SHORTEST_S * RATIO**n for n in range(BUCKETS)), math.inf)
MAX_NAME = 256
LEAST_RATE = 1e-4
MAX_COUNT = 1e9  # of one line
TIMER, COUNTER = b"ms", b"c"


class Sample(NamedTuple):
    """One line. `value`: seconds of a timer, or a count; `weight`: for so many that were not sent."""

    name: str
    timer: bool
    value: float
    weight: float


def parsed(line: bytes) -> Sample | None:
    """A timer or counter; None for all else."""
    name, colon, rest = line.partition(b":")
    fields = rest.split(b"|")
    if not colon or not 0 < len(name) <= MAX_NAME or len(fields) < 2 or fields[1] not in (TIMER, COUNTER):
        return None
    rates = [field[1:] for field in fields[2:] if field.startswith(b"@")]
    try:
        value, rate = float(fields[0]), float(rates[0]) if rates else 1.0
        text = name.decode("ascii")
    except ValueError:
        return None
    if not (0.0 <= value <= MAX_COUNT and LEAST_RATE <= rate <= 1.0):
        return None
    timer = fields[1] == TIMER
    return Sample(text, timer, value / 1e3 if timer else value, 1.0 / rate)


class Heard:
    """What was heard of one pod."""

    def __init__(self, target: Target, at: float) -> None:
        self.target = target
        self._window = Window()
        self._requests = 0.0
        self._counters = False  # some were heard, so that timers are no requests
        self._timer = f"{target.statsd}.{target.histogram.name}" if target.histogram else ""
        self._counter = f"{target.statsd}.{target.counter.name}" if target.counter else ""
        self._begin(at)

    def take(self, sample: Sample) -> None:
        """One line that is of this pod."""
        if sample.timer and self._timer in ("", sample.name):
            self._counts[bisect_left(BOUNDS, sample.value)] += sample.weight
            self._timed += sample.weight
            self._seen += 1
        elif not sample.timer and self._counter in ("", sample.name):
            self._counted += sample.value * sample.weight
            self._counters = self._heard = True

    def due(self, at: float) -> bool:
        """Whether a period is over."""
        return at - self._since >= self.target.period_s

    def told(self, at: float) -> AppReading | None:
        """What the last periods come to; a new one begins. None when nothing was heard in this one."""
        if not (self._seen or self._heard):
            self._begin(at)
            return None
        requests = self._counted if self._counters else self._timed
        self._requests += requests
        self._window.add(Slice(self._since, at, requests, self._seen, BOUNDS, tuple(self._counts)))
        self._begin(at)
        slo, period_s = self.target.slo, self.target.period_s
        return reading(STATSD, self._window, requests=self._requests, slo=slo, period_s=period_s, at=at)

    def _begin(self, at: float) -> None:
        self._since = at
        self._counts = [0.0] * len(BOUNDS)
        self._timed = self._counted = 0.0
        self._seen, self._heard = 0, False
