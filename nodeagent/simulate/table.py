"""The agent's own trace format: CSV of seconds and the cores that each online pod uses from then on.

    # SYNTHETIC: words about the trace          comments; those above the first row are told with the answer
    seconds,web,search                          optional: names of the pods; without it they are numbered
    0,3.2,1.5
    10,3.4,                                     an empty cell: not known

Invariant: a row is taken whole or the file is refused, with the line's number.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

from nodeagent.model.errors import Failed
from nodeagent.simulate.source import Source
from nodeagent.simulate.trace import Series, Trace, traced
from nodeagent.words import MAX_CORES

MAX_VALUES = 20_000_000
MAX_PODS = 2000
MAX_NOTES = 20
FORMAT = 'a row is "seconds,cores" or "seconds,cores of pod 1,cores of pod 2,..."; see simulate --help'


def read(path: str, hold_s: float | None = None) -> Trace:
    """The trace in the file at `path` ("-": standard input); OSError or Failed when it cannot be read."""
    notes: list[str] = []
    names: list[str] = []
    times: array[float] = array("d")
    columns: list[array[float]] = []
    with Source(path) as source:
        for line in source:
            if line.startswith("#") and not times and len(notes) < MAX_NOTES:
                notes.append(line.lstrip("# ")[:200])
            if not line or line.startswith("#"):
                continue
            cells = [cell.strip().strip('"') for cell in line.split(",")]
            if not names:
                names = _names(source, cells)
                columns = [array("d") for _ in names]
                if not _is_number(cells[0]):
                    continue
            _take(source, cells, times, columns)
    if not columns:
        raise Failed(f"{source.name}: no samples in it", FORMAT)
    pods = [Series(name, times, cores) for name, cores in zip(names, columns, strict=True)]
    return traced(source.name, pods[:1], hold_s, notes)._replace(pods=tuple(pods))


def number(source: Source, text: str, what: str, bounds: tuple[float, float], hint: str = FORMAT) -> float:
    """A plain decimal number within bounds; Failed with the line for anything else, nan and inf included."""
    if _is_number(text):
        value = float(text)
        if bounds[0] <= value <= bounds[1]:
            return value
        raise source.wrong(f"{text[:40]} is not within {bounds[0]:g} and {bounds[1]:g} {what}", hint)
    raise source.wrong(f"{text[:40]!r} is not a number of {what}", hint)


def _names(source: Source, cells: Sequence[str]) -> list[str]:
    """Of the pods, from the first row that is not a comment."""
    if len(cells) < 2 or len(cells) > MAX_PODS + 1:
        raise source.wrong(f"{len(cells)} columns; there must be 2 to {MAX_PODS + 1}", FORMAT)
    if _is_number(cells[0]):
        return ["online"] if len(cells) == 2 else [f"pod{n}" for n in range(1, len(cells))]
    if cells[0].lower() != "seconds":
        raise source.wrong(f"{cells[0][:40]!r} is not a number of seconds", FORMAT)
    names = [cell[:128] for cell in cells[1:]]
    if not all(name.isprintable() and name for name in names) or len(set(names)) < len(names):
        raise source.wrong("each column needs a name of its own", "or leave the header out")
    return names


def _take(source: Source, cells: Sequence[str], times: array[float], columns: Sequence[array[float]]) -> None:
    if len(cells) != len(columns) + 1:
        raise source.wrong(f"{len(cells)} columns where the first row has {len(columns) + 1}", FORMAT)
    seconds = number(source, cells[0], "seconds", (-1e12, 1e12))
    if times and seconds <= times[-1]:
        how = "stands still" if seconds == times[-1] else "goes back"
        raise source.wrong(f"time {how}: {seconds:g} s after {times[-1]:g} s", "sort the rows by time")
    if (len(times) + 1) * len(columns) > MAX_VALUES:
        raise source.wrong(f"more than {MAX_VALUES:,} values", "give a part of the trace, or fewer pods")
    times.append(seconds)
    for cell, column in zip(cells[1:], columns, strict=True):
        column.append(number(source, cell, "cores", (0.0, MAX_CORES)) if cell else math.nan)


def _is_number(text: str) -> bool:
    """True for what is written in digits: Python would also take "nan", "1_0" and other scripts' digits."""
    if not text.isascii() or "_" in text:
        return False
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
