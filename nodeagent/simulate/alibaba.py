"""Import of one machine from Alibaba's cluster-trace-v2018 (github.com/alibaba/clusterdata, schema.md).

    machine_usage.csv    machine_id, time_stamp, cpu_util_percent, and six more; no header, any order of rows
    container_usage.csv  container_id, machine_id, time_stamp, cpu_util_percent, and seven more
    container_meta.csv   container_id, machine_id, time_stamp, app_du, status, cpu_request, and two more

machine_usage counts all that runs on the machine, Batch included; container_usage counts online containers
only, in percent of the container's cpu_request (of which 100 is one core; clusterdata issue 62). A percentage
that is empty or that the trace marks as invalid (-1 or 101) is not known. The same moment told twice counts
with the larger value, so that doubt never lends more.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping

from nodeagent.model.errors import Failed
from nodeagent.simulate.source import Source
from nodeagent.simulate.table import number
from nodeagent.simulate.trace import Series, Trace, traced

MACHINE_COLUMNS, USAGE_COLUMNS, META_COLUMNS = 9, 11, 8
INVALID = frozenset({-1.0, 101.0})
MAX_SAMPLES = 10_000_000
NAMED = 5  # machines in a message
SCHEMA = "see cluster-trace-v2018/schema.md in github.com/alibaba/clusterdata"
ALL_WORK = "all work on the machine: machine_usage does not tell online work and Batch apart"

Samples = dict[float, float]


def machine_usage(path: str, machine: str, cores: int, hold_s: float | None = None) -> Trace:
    """All use of `machine`, which has so many `cores`; OSError or Failed when it cannot be read."""
    samples: Samples = {}
    with Source(path) as source:
        for cells in _rows(source, machine, at=0, columns=MACHINE_COLUMNS):
            _keep(source, samples, cells[1], _percent(source, cells[2]) * cores / 100)
    return traced(source.name, [_series(machine, samples)], hold_s, [f"{machine}: {ALL_WORK}"])


def container_usage(path: str, meta: str, machine: str, hold_s: float | None = None) -> Trace:
    """The online containers of `machine`, each a pod; their requests are from the file `meta`."""
    requests = _requests(meta, machine)
    pods: dict[str, Samples] = {}
    kept = 0
    with Source(path) as source:
        for cells in _rows(source, machine, at=1, columns=USAGE_COLUMNS):
            if cells[0] not in requests:
                raise source.wrong(f"{cells[0][:40]} of {machine} is not in {meta}", SCHEMA)
            samples = pods.setdefault(cells[0], {})
            kept += 1
            if kept > MAX_SAMPLES:
                raise source.wrong(
                    f"more than {MAX_SAMPLES:,} samples of {machine}", "give a part of the file"
                )
            _keep(source, samples, cells[2], _percent(source, cells[3]) * requests[cells[0]] / 100)
    series = [_series(name, samples) for name, samples in sorted(pods.items())]
    return traced(source.name, series, hold_s, [f"{machine}: {len(series)} online containers"])


def _requests(path: str, machine: str) -> Mapping[str, float]:
    """Cores by container; the largest where they changed."""
    found: dict[str, float] = {}
    with Source(path) as source:
        for cells in _rows(source, machine, at=1, columns=META_COLUMNS):
            cores = number(source, cells[5], "hundredths of a core", (0.0, 1e7), SCHEMA) / 100
            found[cells[0]] = max(cores, found.get(cells[0], 0.0))
    return found


def _rows(source: Source, machine: str, *, at: int, columns: int) -> Iterator[list[str]]:
    """The rows of one machine, whose name is in column `at`; of others only the first is looked at."""
    others: dict[str, None] = {}
    found = False
    for line in source:
        mine = machine in line
        if not mine and len(others) >= NAMED:
            continue
        cells = line.split(",")
        if len(cells) != columns:
            raise source.wrong(f"{len(cells)} columns; the schema has {columns}", SCHEMA)
        if cells[at] == machine:
            found = True
            yield cells
        elif len(others) < NAMED:
            others[cells[at][:40]] = None
    if not found:
        there = f"it has {', '.join(others)} and others" if others else "it is empty"
        raise Failed(f"{source.name}: no rows of machine {machine!r}; {there}", "name one with --machine")


def _percent(source: Source, text: str) -> float:
    """nan where it is not known. A container may use more than its request: 100 is no bound."""
    if not text:
        return math.nan
    percent = number(source, text, "percent", (-1.0, 1e5), SCHEMA)
    return math.nan if percent in INVALID else percent


def _keep(source: Source, samples: Samples, seconds: str, cores: float) -> None:
    if len(samples) >= MAX_SAMPLES:
        raise source.wrong(f"more than {MAX_SAMPLES:,} samples", "give a part of the file")
    at = number(source, seconds, "seconds", (0.0, 1e10), SCHEMA)
    known = samples.get(at, math.nan)
    samples[at] = cores if math.isnan(known) else max(known, cores)


def _series(name: str, samples: Samples) -> Series:
    times = sorted(samples)
    return Series(name, array("d", times), array("d", [samples[at] for at in times]))
