"""What survives a restart, in one small file: `<state_dir>/checkpoint`, replaced as a whole (see sealed.py).

Invariant: what is loaded was saved whole and is plausible; anything else is a cold start with a warning,
and the file is kept aside as `checkpoint.corrupt`.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import msgspec

from nodeagent import sealed
from nodeagent.model.decision import Checkpoint, Histogram
from nodeagent.model.errors import Failed
from nodeagent.model.senses import Baseline
from nodeagent.model.symptom import Sign

MAGIC = b"nackpt\x00\x01"
NAME = "checkpoint"
LIMIT_BYTES = 16 << 20  # 1000 NUMA nodes' histograms are below 5 MB, 4096 baselines below 6
MOST_BUCKETS = 600  # of a baseline
FUTURE_S = 86_400.0  # a clock that was set back by more than this makes the past worthless

_SIGNS = frozenset(sign.value for sign in Sign)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Checkpoint).decode


def load(
    state_dir: Path, cpu_buckets: int | None = None, memory_buckets: int | None = None
) -> tuple[Checkpoint, str]:
    """The saved checkpoint and "", or an empty one and why (also "" when there is none yet).

    With the numbers of buckets given, histograms of another size are refused.
    """
    path = state_dir / NAME
    try:
        saved = _decode(sealed.read(path, MAGIC, LIMIT_BYTES, "checkpoint"))
        _check(saved, time.time(), cpu_buckets, memory_buckets)
    except FileNotFoundError:
        return Checkpoint(), ""
    except OSError as error:
        return Checkpoint(), f"{path}: {error.strerror}; starting cold"
    except (ValueError, RecursionError) as error:
        sealed.set_aside(path)
        return Checkpoint(), f"{path}: {error}; starting cold, the file is kept as {NAME}.corrupt"
    return saved, ""


def save(state_dir: Path, checkpoint: Checkpoint) -> None:
    """Replace the file; durable on return. Failed when the disk refuses, and the old file stays."""
    path = state_dir / NAME
    try:
        sealed.write(path, MAGIC, _encode(checkpoint))
    except OSError as error:
        hint = "history is kept in memory; after a restart it starts from the last checkpoint"
        raise Failed(f"{path}: {error.strerror}", hint) from None


def _check(saved: Checkpoint, now: float, cpu_buckets: int | None, memory_buckets: int | None) -> None:
    """ValueError for what no agent has written, whatever the checksum says."""
    online = saved.online
    for cpu in (online.cpu, *online.zone_cpu.values()):
        _check_histogram(cpu, now, cpu_buckets)
    for memory in (online.memory, *online.zone_memory.values()):
        _check_histogram(memory, now, memory_buckets)
    if not all(_plausible(value) for value in (saved.lent.used_core_s, saved.lent.offered_core_s)):
        raise ValueError("lent core-seconds are not a number of seconds")
    for baselines in saved.baselines.values():
        for key, baseline in baselines.items():
            _check_baseline(key, baseline, now)


def _check_histogram(histogram: Histogram, now: float, buckets: int | None) -> None:
    if buckets is not None and len(histogram.weights) not in (0, buckets):
        raise ValueError(f"a histogram has {len(histogram.weights)} buckets instead of {buckets}")
    if not all(map(_plausible, histogram.weights)) or not _plausible(histogram.seconds):
        raise ValueError("a histogram has weights that are negative or not finite")
    times = (histogram.at, *(unix for unix, _ in histogram.window))
    if not all(_plausible(unix) and unix <= now + FUTURE_S for unix in times):
        raise ValueError("a histogram is from the future")
    if not all(_plausible(value) for _, value in histogram.window):
        raise ValueError("a histogram's window has values that are negative or not finite")


def _check_baseline(key: str, baseline: Baseline, now: float) -> None:
    sign, _, load_bin = key.partition("@")
    if sign not in _SIGNS or not (load_bin.isascii() and load_bin.isdigit() and len(load_bin) < 4):
        raise ValueError(f"a baseline is of no sign and load: {key[:40]!r}")
    if not 0 <= baseline.low <= MOST_BUCKETS or len(baseline.weights) > MOST_BUCKETS + 1:
        raise ValueError("a baseline has buckets that there are not")
    quantiles = (baseline.q50, baseline.q95, baseline.q99)
    numbers = (*baseline.weights, baseline.at, baseline.last, *quantiles, baseline.mean, baseline.clumped)
    if not all(map(_plausible, numbers)) or baseline.samples < 0 or quantiles != tuple(sorted(quantiles)):
        raise ValueError("a baseline has numbers that are negative, not finite or out of order")
    if max(baseline.at, baseline.last) > now + FUTURE_S:
        raise ValueError("a baseline is from the future")


def _plausible(value: float) -> bool:
    return math.isfinite(value) and value >= 0.0
