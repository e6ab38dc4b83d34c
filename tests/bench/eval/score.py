"""Alarms against what was done: hits, misses, false alarms, and who was accused of it.

The unit is the victim-event: one victim under one attack. It is hit when an alarm begins between its first
moment and GRACE_S after its last (the first counts, others are merged). An alarm that begins at any other
time is false, also in a negative. An attack that the victim's clients did not feel (felt.HURT_RATIO) is
neither to be found nor a mistake to report: its alarms are counted apart. So are those in calm of which the
clients felt the cause, which is not in the labels then: the node is a real one (felt.SLOW_RATIO).
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tests.bench.eval import felt
from tests.bench.eval.labels import Labels

GRACE_S = 10.0
ROUNDS, CONFIDENCE = 1000, 0.95


@dataclass(frozen=True)
class Alarm:
    """What a detector said of one victim, from `at` on. `accused` are those it named, in that order;
    `ranking` is its last list of suspects, the likeliest first."""

    victim: str
    at: float
    accused: tuple[str, ...] = ()
    ranking: tuple[str, ...] = ()


@dataclass(frozen=True)
class Event:
    """One victim under one attack; `hurt`: its p95 over that of calm, None where it cannot be told."""

    kind: str
    victim: str
    began: float
    ended: float
    culprit: str
    hurt: float | None


@dataclass(frozen=True)
class Hit:
    """An event and the alarm that found it."""

    event: Event
    alarm: Alarm

    @property
    def delay_s(self) -> float:
        return self.alarm.at - self.event.began


@dataclass(frozen=True)
class Outcome:
    """One run of one detector. `unfelt` are alarms in attacks that the clients did not feel, `unlabelled` in
    calm that they did; `clean_s` is the time of all victims together in which nobody attacked them."""

    hits: tuple[Hit, ...]
    misses: tuple[Event, ...]
    false: tuple[Alarm, ...]
    unfelt: tuple[Hit, ...]
    clean_s: float
    unlabelled: tuple[Alarm, ...] = ()


def events(labels: Labels) -> list[Event]:
    """All victim-events of a run."""
    return [
        Event(w.kind, victim, w.began, w.ended, w.culprit, felt.hurt_ratio(labels, w, victim))
        for w in labels.windows
        if w.culprit
        for victim in w.victims
    ]


def judge(labels: Labels, alarms: Iterable[Alarm]) -> Outcome:
    """Alarms before the measured time are none: what starts up is not in the labels."""
    exposed = events(labels)
    found: dict[Event, Alarm] = {}
    false: list[Alarm] = []
    unlabelled: list[Alarm] = []
    for alarm in sorted(alarms, key=lambda one: one.at):
        if not labels.measured_from <= alarm.at <= labels.ended:
            continue
        event = _met(exposed, alarm)
        if event is None:
            (unlabelled if felt.slow_before(labels, alarm.victim, alarm.at) else false).append(alarm)
        elif event not in found:
            found[event] = alarm
    hits = [Hit(event, alarm) for event, alarm in found.items()]
    return Outcome(
        hits=tuple(hit for hit in hits if _felt(hit.event)),
        misses=tuple(event for event in exposed if _felt(event) and event not in found),
        false=tuple(false),
        unfelt=tuple(hit for hit in hits if not _felt(hit.event)),
        clean_s=sum(_clean_s(labels, exposed, victim.cgroup) for victim in labels.victims),
        unlabelled=tuple(unlabelled),
    )


def precision(runs: Sequence[Outcome]) -> float:
    """Hits / (hits + false alarms)."""
    hits = sum(len(run.hits) for run in runs)
    return _ratio(hits, hits + sum(len(run.false) for run in runs))


def recall(runs: Sequence[Outcome]) -> float:
    """Hits / (hits + misses)."""
    hits = sum(len(run.hits) for run in runs)
    return _ratio(hits, hits + sum(len(run.misses) for run in runs))


def f1(runs: Sequence[Outcome]) -> float:
    """Harmonic mean of precision and recall."""
    found, right = recall(runs), precision(runs)
    return _ratio(2 * found * right, found + right)


def false_per_hour(runs: Sequence[Outcome]) -> float:
    """False alarms per hour of one victim that nobody attacks."""
    return _ratio(sum(len(run.false) for run in runs), sum(run.clean_s for run in runs) / 3600.0)


def delay_s(ratio: float) -> Callable[[Sequence[Outcome]], float]:
    """Quantile of the time from an attack's first moment to its alarm."""

    def of(runs: Sequence[Outcome]) -> float:
        delays = sorted(hit.delay_s for run in runs for hit in run.hits)
        if ratio == 0.5:
            return statistics.median(delays) if delays else math.nan
        return felt.quantile(delays, ratio) if delays else math.nan

    return of


def top1(runs: Sequence[Outcome]) -> float:
    """Share of the hits whose first name is the culprit's; an alarm that names nobody is wrong here."""
    hits = [hit for run in runs for hit in run.hits]
    return _ratio(sum(hit.alarm.accused[:1] == (hit.event.culprit,) for hit in hits), len(hits))


def reciprocal_rank(runs: Sequence[Outcome]) -> float:
    """Mean over the hits of 1 / the culprit's rank among the suspects, named or not; 0: not listed."""
    hits = [hit for run in runs for hit in run.hits]
    return _ratio(sum(_reciprocal(hit) for hit in hits), len(hits))


def false_accusations(runs: Sequence[Outcome]) -> float:
    """Share of all accusations that hit an innocent: any but the culprit, anybody in a false alarm."""
    guilty = innocent = 0
    for run in runs:
        for hit in (*run.hits, *run.unfelt):
            right = hit.alarm.accused.count(hit.event.culprit)
            guilty, innocent = guilty + right, innocent + len(hit.alarm.accused) - right
        innocent += sum(len(alarm.accused) for alarm in run.false)
    return _ratio(innocent, guilty + innocent)


def interval(
    runs: Sequence[Outcome], figure: Callable[[Sequence[Outcome]], float], seed: int = 7
) -> tuple[float, float]:
    """Bootstrap over runs (Efron, 1979): the middle CONFIDENCE of the figure over resampled runs."""
    luck = random.Random(seed)
    drawn = (figure(luck.choices(runs, k=len(runs))) for _ in range(ROUNDS))
    known = sorted(value for value in drawn if not math.isnan(value))
    if not known:
        return math.nan, math.nan
    tail = (1.0 - CONFIDENCE) / 2.0
    return felt.quantile(known, tail), felt.quantile(known, 1.0 - tail)


def most_likely(count: int, confidence: float = CONFIDENCE) -> float:
    """The upper bound of a Poisson mean of which `count` were seen (Garwood, 1936, one-sided)."""
    low, high = float(count), 10.0 * (count + 1)
    while high - low > 1e-6:
        mean = (low + high) / 2
        below = sum(math.exp(-mean) * mean**k / math.factorial(k) for k in range(count + 1))
        low, high = (mean, high) if below > 1.0 - confidence else (low, mean)
    return high


def _met(exposed: Iterable[Event], alarm: Alarm) -> Event | None:
    """The victim's last attack that had begun when the alarm did, if it was not over long."""
    met = [e for e in exposed if e.victim == alarm.victim and e.began <= alarm.at <= e.ended + GRACE_S]
    return max(met, key=lambda e: e.began, default=None)


def _felt(event: Event) -> bool:
    return event.hurt is not None and event.hurt >= felt.HURT_RATIO


def _clean_s(labels: Labels, exposed: Iterable[Event], victim: str) -> float:
    """Time of one victim outside of all its attacks and their grace."""
    spans = sorted((e.began, e.ended + GRACE_S) for e in exposed if e.victim == victim)
    covered, reached = 0.0, labels.measured_from
    for began, ended in spans:
        covered += max(0.0, min(ended, labels.ended) - max(began, reached))
        reached = max(reached, ended)
    return labels.ended - labels.measured_from - covered


def _reciprocal(hit: Hit) -> float:
    ranking = hit.alarm.ranking
    return 1.0 / (ranking.index(hit.event.culprit) + 1) if hit.event.culprit in ranking else 0.0


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
