"""A trace: what each online pod used over time, in samples that hold until the next one, but not for ever.

Between samples nothing is invented: a sample holds from its time on until the next, at most `hold_s`; after
that the use is not known. A pod is not there before its first sample, and once its last one has held if
others go on after that.
Invariant: times rise; cores are at least 0, or nan where the trace says that they are not known.
"""

from __future__ import annotations

import math
import statistics
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nodeagent.model.errors import Failed

HOLD_INTERVALS = 3.0  # how many usual intervals a sample holds, unless it is said
MAX_STEPS = 10_000_000
LEAST_S = 1e-9


class Series(NamedTuple):
    """One pod's samples: seconds, and cores from then on (nan: not known)."""

    name: str
    times: array[float]
    cores: array[float]


class Trace(NamedTuple):
    """`notes` are the words that the file began with; it goes from `begin_s` to `end_s`, when the last sample
    has held for a usual interval."""

    pods: tuple[Series, ...]
    hold_s: float
    begin_s: float
    end_s: float
    interval_s: float
    notes: tuple[str, ...] = ()


class Step(NamedTuple):
    """Mean use of each pod from `since` on for `span_s` seconds; None = not known."""

    since: float
    span_s: float
    cores: tuple[float | None, ...]


def traced(name: str, pods: Sequence[Series], hold_s: float | None, notes: Sequence[str] = ()) -> Trace:
    """The trace of these pods; Failed when there is not so much as one interval. `name` is for messages."""
    between = [b - a for s in pods for a, b in zip(s.times, s.times[1:], strict=False)]
    if not between:
        hint = "a sample holds until the next one, so one alone tells nothing"
        raise Failed(f"{name}: fewer than two samples", hint)
    interval_s = statistics.median(between)
    begin_s, end_s = min(s.times[0] for s in pods), max(s.times[-1] for s in pods) + interval_s
    hold_s = HOLD_INTERVALS * interval_s if hold_s is None else hold_s
    return Trace(tuple(pods), hold_s, begin_s, end_s, interval_s, tuple(notes))


def steps(trace: Trace, step_s: float) -> Iterator[Step]:
    """The trace in steps of one length: means of what holds in each, unknown where any part of it is."""
    last_s = trace.end_s - trace.interval_s
    courses = [Course(s, trace.hold_s, ends=s.times[-1] < last_s - LEAST_S) for s in trace.pods]
    for number in range(count(trace, step_s)):
        since = trace.begin_s + number * step_s
        yield Step(since, step_s, tuple([course.mean(since, since + step_s) for course in courses]))


def count(trace: Trace, step_s: float) -> int:
    """How many whole steps there are, at least one; Failed when they are more than anybody can wait for."""
    number = (trace.end_s - trace.begin_s) / step_s
    if number > MAX_STEPS:
        long = f"{trace.end_s - trace.begin_s:.6g} s are more than {MAX_STEPS:,} steps of {step_s:g} s"
        raise Failed(f"the trace is too long: {long}", "take longer steps (--step), or a part of the trace")
    return max(1, math.floor(number + LEAST_S))


class Course:
    """Walks one series, only forwards; `ends`: after its last sample the pod is gone, not unknown."""

    def __init__(self, series: Series, hold_s: float, *, ends: bool) -> None:
        self._times, self._cores, self._hold_s = series.times, series.cores, hold_s
        self._after = 0.0 if ends else math.nan
        self._n = 0

    def mean(self, since: float, until: float) -> float | None:
        """Mean cores in [since, until); None when any part of it is not known."""
        total, at = 0.0, since
        while at < until - LEAST_S:
            cores, end = self._held(at)
            if math.isnan(cores):
                return None
            if at == since and end >= until:
                return cores
            end = min(end, until)
            total += cores * (end - at)
            at = end
        return total / (until - since)

    def _held(self, at: float) -> tuple[float, float]:
        """What holds at `at`, and until when."""
        times, last = self._times, len(self._times) - 1
        while self._n < last and times[self._n + 1] <= at:
            self._n += 1
        n = self._n
        if at < times[n]:
            return 0.0, times[n]
        held_until = times[n] + self._hold_s
        following = times[n + 1] if n < last else math.inf
        if at < held_until:
            return self._cores[n], min(held_until, following)
        return (math.nan if n < last else self._after), following
