"""Reading a journal: every tick that is whole, and a word about all that is not.

Invariant: no file can make it raise, allocate without bound, or yield a tick that was not written.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from nodeagent.journal.packed import (
    FRAME,
    FRAME_LIMIT_BYTES,
    MAGIC,
    SUFFIX,
    SegmentHead,
    Unpacker,
    unpack_head,
)
from nodeagent.model.decision import Tick
from nodeagent.model.errors import Failed, Garbled

Warn = Callable[[str], None]


class Segment:
    """One segment while it is open: until the next one is asked for."""

    def __init__(self, name: str, head: SegmentHead, frames: _Frames, warn: Warn) -> None:
        self.name = name
        self.head = head
        self._frames = frames
        self._warn = warn

    def ticks(self) -> Iterator[Tick]:
        """The ticks in order, once; ends with a warning at the first frame that is torn or garbled."""
        unpacker = Unpacker()
        try:
            while (payload := self._frames.next()) is not None:
                try:
                    tick = unpacker.unpack(payload)
                except (ValueError, RecursionError) as error:
                    raise Garbled(f"frame before byte {self._frames.offset} is not a tick: {error}") from None
                yield tick
        except (Garbled, OSError) as error:
            self._warn(f"{self.name}: {_said(error)}; the rest of this segment is left out")


def read_segments(directory: Path, warn: Warn) -> Iterator[Segment]:
    """The segments in `directory`, oldest first; what is skipped is told to `warn`, one line each.

    Symbolic links are not followed. Failed when the directory cannot be read or holds no segment file.
    """
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        denied = isinstance(error, PermissionError)
        hint = (
            "journals are readable by root alone" if denied else "journals are in <state directory>/journal"
        )
        raise Failed(f"{directory}: {error.strerror}", hint) from None
    try:
        names = sorted(name for name in os.listdir(fd) if name.endswith(SUFFIX))
        if not names:
            raise Failed(f"{directory}: no *{SUFFIX} file", "journals are in <state directory>/journal")
        for name in names:
            yield from _segment(fd, name, warn)
    finally:
        os.close(fd)


def _segment(directory: int, name: str, warn: Warn) -> Iterator[Segment]:
    try:
        file = _open(directory, name)
    except (Garbled, OSError) as error:
        warn(f"{name}: {_said(error)}; skipped")
        return
    with file:
        try:
            frames = _Frames(file)
            segment = Segment(name, frames.head(), frames, warn)
        except (Garbled, OSError) as error:
            warn(f"{name}: {_said(error)}; skipped")
            return
        yield segment


def _open(directory: int, name: str) -> BinaryIO:
    # O_NONBLOCK: a FIFO of that name must not make us wait for its writer
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Garbled("not a regular file")
    return os.fdopen(fd, "rb")


class _Frames:
    """The frames of one file. `offset` is that of the next frame; Garbled says where and what."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size  # what a live agent appends later is left out
        self._inflate = zlib.decompressobj()
        self.offset = len(MAGIC)
        magic = file.read(len(MAGIC))
        if magic[:-1] != MAGIC[:-1]:
            raise Garbled("not a journal segment")
        if magic != MAGIC:
            raise Garbled(f"format version {magic[-1]}, this agent reads {MAGIC[-1]}")

    def head(self) -> SegmentHead:
        payload = self.next()
        if payload is None:
            raise Garbled("no head")
        try:
            return unpack_head(payload)
        except (ValueError, RecursionError) as error:
            raise Garbled(f"head: {error}") from None

    def next(self) -> bytes | None:
        """The next payload, None at the end."""
        start, left = self.offset, self._size - self.offset
        if left <= 0:
            return None
        prefix = self._file.read(FRAME.size)
        if len(prefix) < FRAME.size:
            raise Garbled(f"torn at byte {start}")
        length, crc = FRAME.unpack(prefix)
        if length > FRAME_LIMIT_BYTES:
            raise Garbled(f"frame at byte {start} claims {length} bytes")
        packed = self._file.read(min(length, left))
        if len(packed) < length:
            raise Garbled(f"torn at byte {start}")
        if zlib.crc32(packed, zlib.crc32(prefix[:4])) != crc:
            raise Garbled(f"frame at byte {start} has a wrong checksum")
        self.offset = start + FRAME.size + length
        return self._unzip(packed, start)

    def _unzip(self, packed: bytes, start: int) -> bytes:
        try:
            payload = self._inflate.decompress(packed, FRAME_LIMIT_BYTES)
        except zlib.error as error:
            raise Garbled(f"frame at byte {start}: {error}") from None
        if self._inflate.unconsumed_tail or self._inflate.eof:
            raise Garbled(f"frame at byte {start} unpacks to too much, or ends the stream")
        return payload


def _said(error: Garbled | OSError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
