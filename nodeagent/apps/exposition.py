"""Prometheus' text format 0.0.4, as far as it tells of one histogram and one counter. Pure.

OpenMetrics' lines are read too: timestamps and exemplars are let be. All other lines cost only to be skipped:
prometheus_client's parser takes 60 times as long.
(https://prometheus.io/docs/instrumenting/exposition_formats/)

Invariant: what is kept is bounded, whatever comes; a line of what was asked for that
is no sample is an error.
"""

from __future__ import annotations

import re

from nodeagent.model.app import Selector, parse_labels
from nodeagent.model.errors import Garbled

MAX_LINE_BYTES = 64 << 10
MAX_LINES = 20_000  # that tell of what was asked for
_SAMPLE = re.compile(
    rb'[ \t]*(?:\{((?:[^"}\n]|"(?:[^"\\\n]|\\.)*+")*+)\})?[ \t]+([^\s]+)'  # labels, value
    rb"(?:[ \t]+-?\d[^\s#]*)?[ \t]*(?:#.*)?\r?"  # timestamp, exemplar
)

Series = tuple[tuple[str, str], ...]  # its labels, sorted


class Exposed:
    """`buckets` (cumulative, by upper bound) of each series of the histogram; `counts` of the counter's."""

    def __init__(self) -> None:
        self.buckets: dict[Series, dict[float, float]] = {}
        self.counts: dict[Series, float] = {}


class Labels:
    """What labels come to: they are the same in each answer, so those of the last are not parsed again."""

    def __init__(self) -> None:
        self._old: dict[bytes, tuple[dict[str, str], float | None, Series]] = {}
        self._new: dict[bytes, tuple[dict[str, str], float | None, Series]] = {}

    def begin(self) -> None:
        """Another answer."""
        self._old, self._new = self._new, {}

    def of(self, text: bytes) -> tuple[dict[str, str], float | None, Series]:
        """The labels, the bound of a bucket (None without `le`), and the series; ValueError."""
        found = self._new.get(text) or self._old.get(text)
        if found is None:
            labels = parse_labels(text.decode())
            bound = float(labels.pop("le")) if "le" in labels else None
            found = labels, bound, tuple(sorted(labels.items()))
        self._new[text] = found
        return found


class Exposition:
    """Takes the text in pieces; for one answer. `labels` are those of the same place's answers before."""

    def __init__(
        self, histogram: Selector | None, counter: Selector | None, labels: Labels | None = None
    ) -> None:
        self.exposed = Exposed()
        self._histogram, self._counter = histogram, counter
        self._bucket = "" if histogram is None else _base(histogram.name) + "_bucket"
        self._labels = labels or Labels()
        self._labels.begin()
        names = [self._bucket] if self._bucket else []
        if counter is not None:
            names += [counter.name, counter.name + "_total"]
        each = b"|".join(re.escape(name.encode()) for name in names)
        self._wanted = re.compile(rb"^(%s)(?=[ \t{])(.*)$" % each, re.MULTILINE)
        self._rest = b""
        self._lines = 0

    def feed(self, piece: bytes) -> None:
        """The next piece; Garbled."""
        whole, newline, rest = piece.rpartition(b"\n")
        if not newline:
            self._rest += rest
        else:
            self._take(self._rest + whole)
            self._rest = rest
        if len(self._rest) > MAX_LINE_BYTES:
            raise Garbled(f"has a line of more than {MAX_LINE_BYTES} bytes")

    def end(self) -> Exposed:
        """All was fed. Garbled where nothing of what was asked for is there, or a histogram lacks +Inf."""
        self._take(self._rest)
        self._rest = b""
        found = self.exposed
        if self._histogram is not None and not found.buckets:
            raise Garbled(f"has no series of {_base(self._histogram.name)}_bucket{_with(self._histogram)}")
        if self._counter is not None and not found.counts:
            raise Garbled(f"has no series of {self._counter.name}{_with(self._counter)}")
        if any(float("inf") not in buckets for buckets in found.buckets.values()):
            raise Garbled('has buckets without the one that all have: le="+Inf"')
        return found

    def _take(self, lines: bytes) -> None:
        for match in self._wanted.finditer(lines):
            self._lines += 1
            if self._lines > MAX_LINES:
                raise Garbled(f"has more than {MAX_LINES} lines of what was asked for: name labels, too")
            name, sample = match[1].decode(), _SAMPLE.fullmatch(match[2])
            try:
                if sample is None:
                    raise ValueError("no sample")
                self._sample(name, sample[1] or b"", float(sample[2]))
            except ValueError:
                line = match[0][:80].decode("utf-8", "replace")
                raise Garbled(f"has a line that is no sample of a histogram or counter: {line!a}") from None

    def _sample(self, name: str, text: bytes, value: float) -> None:
        labels, bound, series = self._labels.of(text)
        if not 0.0 <= value < float("inf"):
            raise ValueError("a count is a number that is not below 0")
        if name == self._bucket and self._histogram is not None:
            if bound is None or not bound > float("-inf"):
                raise ValueError("a bound is a number")
            if _fits(self._histogram, labels):
                self.exposed.buckets.setdefault(series, {})[bound] = value
        elif self._counter is not None and _fits(self._counter, labels):
            self.exposed.counts[series] = value


def _base(name: str) -> str:
    """A histogram is one by each of its three names."""
    return name.removesuffix("_bucket")


def _fits(selector: Selector, labels: dict[str, str]) -> bool:
    return not selector.labels or all(labels.get(name) == value for name, value in selector.labels)


def _with(selector: Selector) -> str:
    return " with those labels" if selector.labels else ""
