"""One small file that is replaced as a whole and read only when it is whole.

    magic (8 bytes; the last is the format's version)  crc32 of the rest (4 bytes)  payload

Invariant: whoever reads finds the old payload or the new one, wherever a crash strikes.
"""

from __future__ import annotations

import contextlib
import os
import stat
import zlib
from pathlib import Path

_CRC_BYTES = 4


def read(path: Path, magic: bytes, limit_bytes: int, what: str) -> bytes:
    """The payload; OSError, or ValueError for a file that is no whole `what` of at most `limit_bytes`."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("not a regular file")
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise ValueError(f"larger than {limit_bytes} bytes")
    if data[: len(magic) - 1] != magic[:-1]:
        raise ValueError(f"not a {what}")
    if data[: len(magic)] != magic:
        raise ValueError(f"format version {data[len(magic) - 1 : len(magic)].hex() or 'missing'}")
    payload = data[len(magic) + _CRC_BYTES :]
    if _crc(payload) != data[len(magic) : len(magic) + _CRC_BYTES]:
        raise ValueError("wrong checksum")
    return payload


def write(path: Path, magic: bytes, payload: bytes) -> None:
    """Replace the file; durable on return. OSError when the disk refuses, and the old file stays."""
    fresh = path.with_name(f"{path.name}.tmp")
    try:
        _write(fresh, magic + _crc(payload) + payload)
        os.replace(fresh, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise
    _sync_directory(path.parent)


def set_aside(path: Path) -> None:
    """Keep a file that cannot be used as FILE.corrupt."""
    with contextlib.suppress(OSError):
        os.replace(path, f"{path}.corrupt")


def _crc(payload: bytes) -> bytes:
    return zlib.crc32(payload).to_bytes(_CRC_BYTES, "little")


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
