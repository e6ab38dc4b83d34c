"""The window of one victim, ready to be scored: what it felt, sample by sample, beside what others used.

A sample is the time between two moments at which the victim's sign was told, at least `LEAST_S` long: what
is read each tick is averaged over it, what is read less often is as last told. Samples are of one length,
nearly; a moment that is missing makes none.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from math import ceil, isnan

from msgspec import Struct
from msgspec.structs import replace

from nodeagent.core.interference.algebra import spread
from nodeagent.core.interference.history import CORES
from nodeagent.model.history import Column, History, Moment
from nodeagent.model.symptom import Channel

LEAST_S = 0.75
MOST_SAMPLES = 240
MOST_GAP_S = 30.0  # a longer time without the sign begins the window anew
LATELY = 60  # samples in which the victim is at its worst
BAD_PART = 1 / 3  # of the way from usual to worst: from there on a sample is bad
MOST_LAG_S = 2.0
CALM_S = 5.0  # as long without a bad sample: what was bad before is another trouble
LEAST_BAD = 2  # samples of a trouble


class Frame(Struct, frozen=True, gc=False):
    """`felt` is the victim's sign per sample, `usual` its median while well, `bad_from` where bad begins. The
    trouble at hand began with sample `since`: what was bad before tells who can do harm, not who does it now.

    `uses` are what neighbours used per sample, one row per neighbour and quantity, as long as `felt`, each as
    a share of the most that anybody used of its kind: `units` are that much, `kinds` the quantities,
    `spreads` the rows' standard deviations, and `owners` number the neighbours. Harm may come up to
    `most_lag` samples after the use.
    """

    felt: tuple[float, ...]
    usual: float
    bad_from: float
    worst: float
    uses: tuple[tuple[float, ...], ...] = ()
    kinds: tuple[str, ...] = ()
    owners: tuple[int, ...] = ()
    units: tuple[float, ...] = ()
    spreads: tuple[float, ...] = ()
    most_lag: int = 0
    since: int = 0

    @property
    def good(self) -> tuple[int, ...]:
        """Samples in which the victim was well."""
        return tuple([n for n, x in enumerate(self.felt) if x <= self.bad_from])

    @property
    def bad(self) -> tuple[int, ...]:
        """Samples of the trouble at hand in which it was not."""
        return tuple([n for n, x in enumerate(self.felt) if n >= self.since and x > self.bad_from])

    @property
    def badness(self) -> tuple[float, ...]:
        """How bad each sample is: 0 at usual and below, 1 at the worst of lately."""
        scale = 1.0 / (self.worst - self.usual)
        return tuple([min(1.0, max(0.0, (x - self.usual) * scale)) for x in self.felt])


class Samples(Struct, frozen=True, gc=False):
    """Which moments make up each sample, (first, end), and what the victim felt in it."""

    spans: tuple[tuple[int, int], ...]
    felt: tuple[float, ...]
    length_s: float


def sampled(history: History, sign: str, slot: int) -> Samples:
    """The samples of one pod's sign; the newest `MOST_SAMPLES`."""
    spans: list[tuple[int, int]] = []
    felt: list[float] = []
    least_s = max(LEAST_S, _window_s(history) / MOST_SAMPLES)
    places = Places()
    first, known_s, total, since_s = 0, 0.0, 0.0, 0.0
    for n, moment in enumerate(history.moments):
        value = places.value(moment.signs.get(sign), slot)
        since_s += moment.span_s
        if value is not None and not isnan(value):
            total += value * moment.span_s
            known_s += moment.span_s
            if since_s > MOST_GAP_S:
                spans, felt = [], []
            elif since_s >= least_s:
                spans.append((first, n + 1))
                felt.append(total / known_s)
            if since_s >= least_s:
                first, known_s, total, since_s = n + 1, 0.0, 0.0, 0.0
    spans, felt = spans[-MOST_SAMPLES:], felt[-MOST_SAMPLES:]
    whole_s = history.moments[spans[-1][1] - 1].at - history.moments[spans[0][0]].at if spans else 0.0
    return Samples(tuple(spans), tuple(felt), whole_s / max(1, len(spans) - 1))


def framed(samples: Samples, baseline: float | None, spread: float, channel: Channel) -> Frame | None:
    """A frame without neighbours; None when the victim is not worse than usual.

    `baseline` None: the lower quartile of what is felt. `spread` of the baseline, 0.0 where not known.
    """
    felt = samples.felt
    if len(felt) < 2:
        return None
    usual = sorted(felt)[len(felt) // 4] if baseline is None else baseline
    lately = sorted(felt[-LATELY:])[-2:]
    worst = sum(lately) / len(lately)
    bad_from = max(usual + (worst - usual) * BAD_PART, usual + spread)
    if worst <= usual or worst <= bad_from:
        return None
    length_s = max(samples.length_s, LEAST_S)
    late = 0 if channel is Channel.CPU else int(MOST_LAG_S / length_s)
    since = _since(felt, bad_from, ceil(CALM_S / length_s))
    return Frame(felt, usual, bad_from, worst, most_lag=late, since=since)


def first_sample(history: History, samples: Samples, at: float) -> int:
    """The first sample that ends at this monotonic time or later; as many as there are if none does."""
    return bisect_left(samples.spans, at, key=lambda span: history.moments[span[1] - 1].at)


def _since(felt: Sequence[float], bad_from: float, calm: int) -> int:
    """The first bad sample of the last trouble: before it were `calm` samples that were not bad.

    Fewer than LEAST_BAD are noise, and there is no trouble at hand: then all that was bad counts.
    """
    bad = [n for n, x in enumerate(felt) if x > bad_from]
    last = next((n for m, n in zip(bad[-2::-1], bad[:0:-1], strict=True) if n - m > calm), bad[0])
    return last if len(bad) - bisect_left(bad, last) >= LEAST_BAD else bad[0]


def beside(
    frame: Frame, rows: Sequence[Sequence[float]], kinds: Sequence[str], owners: Sequence[int]
) -> Frame:
    """The frame with what neighbours used, in the units of the kinds."""
    most: dict[str, float] = {}
    for kind, row in zip(kinds, rows, strict=True):
        most[kind] = max(most.get(kind, 0.0), max(row, default=0.0))
    units = tuple(most[kind] or 1.0 for kind in kinds)
    uses = tuple(tuple([u / unit for u in row]) for row, unit in zip(rows, units, strict=True))
    spreads = tuple(map(spread, uses))
    return replace(frame, uses=uses, kinds=tuple(kinds), owners=tuple(owners), units=units, spreads=spreads)


def used_fast(
    history: History, samples: Samples, name: str, slots: Sequence[int]
) -> tuple[tuple[float, ...], ...]:
    """What each slot used per sample, averaged over time; absent is 0, not known is as before."""
    rows = _rows(history.moments, name, slots)
    spans = [moment.span_s for moment in history.moments]
    return tuple(_averaged(_filled(row), spans, samples.spans) for row in rows)


def used_slow(
    history: History, samples: Samples, name: str, slots: Sequence[int]
) -> tuple[tuple[float, ...], ...]:
    """What each slot was last told to use at the end of each sample; 0 before anything was told."""
    places, wanted = Places(), list(slots)
    held = [[0.0] * len(samples.spans) for _ in wanted]
    last = [0.0] * len(wanted)
    done = 0
    for n, (_, end) in enumerate(samples.spans):
        for moment in history.moments[done:end]:
            column = moment.uses.get(name)
            if column is not None:
                for k, slot in enumerate(wanted):
                    value = places.value(column, slot)
                    if value is not None and not isnan(value):
                        last[k] = value
        done = end
        for k, value in enumerate(last):
            held[k][n] = value
    return tuple(map(tuple, held))


def used(
    history: History, samples: Samples, name: str, slots: Sequence[int]
) -> tuple[tuple[float, ...], ...]:
    """One row per slot, in units per second (`resident`: bytes)."""
    return (used_fast if name == CORES else used_slow)(history, samples, name, slots)


class Places:
    """Where in a column a slot is; the same pods in many columns are looked up once."""

    __slots__ = ("_at",)

    def __init__(self) -> None:
        self._at: dict[bytes, dict[int, int]] = {}

    def of(self, column: Column) -> Mapping[int, int]:
        found = self._at.get(column.slots)
        if found is None:
            numbers = array("I", column.slots)
            found = self._at[column.slots] = {slot: n for n, slot in enumerate(numbers)}
        return found

    def value(self, column: Column | None, slot: int) -> float | None:
        """None when it is not there."""
        if column is None:
            return None
        place = self.of(column).get(slot)
        if place is None:
            return None
        values = memoryview(column.values).cast("f")
        return values[place] if place < len(values) else 0.0


def _rows(moments: Sequence[Moment], name: str, slots: Sequence[int]) -> list[list[float]]:
    """One list per slot with its value at each moment."""
    places = Places()
    table = []
    for moment in moments:
        column = moment.uses.get(name)
        if column is None:
            table.append([float("nan")] * len(slots))
            continue
        at = places.of(column)
        values = array("f", column.values)
        known = len(values)
        table.append(
            [values[n] if (n := at.get(slot, known)) < known else 0.0 for slot in slots],
        )
    return [list(row) for row in zip(*table, strict=True)]


def _filled(row: list[float]) -> list[float]:
    """What is not known is as it was before."""
    if not any(map(isnan, row)):
        return row
    last, filled = 0.0, []
    for value in row:
        last = last if isnan(value) else value
        filled.append(last)
    return filled


def _averaged(
    row: list[float], spans_s: Sequence[float], samples: Sequence[tuple[int, int]]
) -> tuple[float, ...]:
    return tuple(
        [
            row[first]
            if end - first == 1
            else sum([row[n] * spans_s[n] for n in range(first, end)])
            / sum([spans_s[n] for n in range(first, end)])
            for first, end in samples
        ]
    )


def _window_s(history: History) -> float:
    return history.moments[-1].at - history.moments[0].at if history.moments else 0.0
