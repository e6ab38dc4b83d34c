"""What the agent is good for: the same attacks beside an agent that observes and beside one that acts.

A latency is of all requests of all attack windows, from the first moment of each: detecting takes its share.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from tests.bench.eval import felt
from tests.bench.eval.labels import Labels, Window
from tests.bench.eval.run import record
from tests.bench.eval.scenario import CONTROL
from tests.bench.eval.tools import Tools

FILE = "control.json"
MODES = ("observe", "enforce")
SETTLED_S = 3.0


class Felt(Struct, frozen=True):
    """Latencies in ms of so many requests; `inf` where they were lost."""

    requests: int
    p50_ms: float
    p99_ms: float


class Compared(Struct, frozen=True):
    """One victim under one kind of attack; `kept` is the attacker's work with control / without it."""

    victim: str
    kind: str
    alone: Felt
    without: Felt
    bounded: Felt
    kept: float | None


def compare(home: Path, tools: Tools, seed: int, before: Path | None) -> tuple[Compared, ...]:
    """Both runs below `home`; what came of them is written there, too."""
    runs = {}
    for mode in MODES:
        (where := home / f"control-{mode}").mkdir(parents=True)
        runs[mode] = (record(CONTROL, seed, where, tools, before, agent__mode=mode), where)
    compared = tuple(_compared(*runs["observe"], *runs["enforce"]))
    (home / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(compared)))
    return compared


def read(home: Path) -> tuple[Compared, ...]:
    """What was compared when that set was recorded; nothing where it was not."""
    path = home / FILE
    return msgspec.json.decode(path.read_bytes(), type=tuple[Compared, ...]) if path.exists() else ()


def _compared(observed: Labels, there: Path, bounded: Labels, here: Path) -> Iterable[Compared]:
    for victim in observed.victims:
        calm = list(_calm(observed))
        alone = of(there / "load" / victim.program, observed.measured_from, calm)
        for one, other in zip(observed.windows, bounded.windows, strict=True):
            yield Compared(
                victim.program,
                one.kind,
                alone,
                of(there / "load" / victim.program, observed.measured_from, [(one.began, one.ended)]),
                of(here / "load" / victim.program, bounded.measured_from, [(other.began, other.ended)]),
                _kept(one, other),
            )


def of(path: Path, begin: float, spans: Iterable[tuple[float, float]]) -> Felt:
    """The requests that were due in these spans of monotonic time."""
    within = [(since - begin, until - begin) for since, until in spans]
    found = sorted(
        latency for due, latency in felt.pairs(path) if any(since <= due < until for since, until in within)
    )
    if not found:
        return Felt(0, math.inf, math.inf)
    p50, p99 = (round(felt.quantile(found, ratio) * 1e3, 3) for ratio in (0.5, 0.99))
    return Felt(len(found), p50, p99)


def _calm(labels: Labels) -> Iterable[tuple[float, float]]:
    since = labels.measured_from + SETTLED_S
    for window in labels.windows:
        yield since, window.began - 0.5
        since = window.ended + SETTLED_S
    yield since, labels.ended


def _kept(one: Window, other: Window) -> float | None:
    """Bogo operations per second against each other."""
    if not one.work or other.work is None:
        return None
    return (other.work / (other.ended - other.began)) / (one.work / (one.ended - one.began))
