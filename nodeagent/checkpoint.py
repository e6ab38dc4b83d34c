"""What survives a restart, in one small file: `<state_dir>/checkpoint`, replaced as a whole.

    magic (8 bytes; the last is the format's version)  crc32 of the rest (4 bytes)  Checkpoint in msgpack

Invariant: what is loaded was saved whole and is plausible; anything else is a cold start with a warning,
and the file is kept aside as `checkpoint.corrupt`.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
import time
import zlib
from pathlib import Path

import msgspec

from nodeagent.model.decision import Checkpoint, Histogram
from nodeagent.model.errors import Failed

MAGIC = b"nackpt\x00\x01"
NAME = "checkpoint"
LIMIT_BYTES = 8 << 20  # 1000 NUMA nodes' histograms are below 5 MB
FUTURE_S = 86_400.0  # a clock that was set back by more than this makes the past worthless

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
        data = _read(path)
        saved = _unpack(data)
        _check(saved, time.time(), cpu_buckets, memory_buckets)
    except FileNotFoundError:
        return Checkpoint(), ""
    except OSError as error:
        return Checkpoint(), f"{path}: {error.strerror}; starting cold"
    except (ValueError, RecursionError) as error:
        with contextlib.suppress(OSError):
            os.replace(path, f"{path}.corrupt")
        return Checkpoint(), f"{path}: {error}; starting cold, the file is kept as {NAME}.corrupt"
    return saved, ""


def save(state_dir: Path, checkpoint: Checkpoint) -> None:
    """Replace the file; durable on return. Failed when the disk refuses, and the old file stays."""
    path, fresh = state_dir / NAME, state_dir / f"{NAME}.tmp"
    payload = _encode(checkpoint)
    data = MAGIC + zlib.crc32(payload).to_bytes(4, "little") + payload
    try:
        try:
            _write(fresh, data)
            os.replace(fresh, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(fresh)
            raise
        _sync_directory(state_dir)
    except OSError as error:
        hint = "history is kept in memory; after a restart it starts from the last checkpoint"
        raise Failed(f"{path}: {error.strerror}", hint) from None


def _read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("not a regular file")
        return file.read(LIMIT_BYTES + 1)


def _unpack(data: bytes) -> Checkpoint:
    if len(data) > LIMIT_BYTES:
        raise ValueError(f"larger than {LIMIT_BYTES} bytes")
    if data[: len(MAGIC) - 1] != MAGIC[:-1]:
        raise ValueError("not a checkpoint")
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError(f"format version {data[len(MAGIC) - 1 : len(MAGIC)].hex() or 'missing'}")
    crc, payload = data[len(MAGIC) : len(MAGIC) + 4], data[len(MAGIC) + 4 :]
    if zlib.crc32(payload).to_bytes(4, "little") != crc:
        raise ValueError("wrong checksum")
    return _decode(payload)


def _write(path: Path, data: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # of a save that was cut short, or somebody's symbolic link
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _check(saved: Checkpoint, now: float, cpu_buckets: int | None, memory_buckets: int | None) -> None:
    """ValueError for what no agent has written, whatever the checksum says."""
    online = saved.online
    for cpu in (online.cpu, *online.zone_cpu.values()):
        _check_histogram(cpu, now, cpu_buckets)
    for memory in (online.memory, *online.zone_memory.values()):
        _check_histogram(memory, now, memory_buckets)
    if not all(_plausible(value) for value in (saved.lent.used_core_s, saved.lent.offered_core_s)):
        raise ValueError("lent core-seconds are not a number of seconds")


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


def _plausible(value: float) -> bool:
    return math.isfinite(value) and value >= 0.0
