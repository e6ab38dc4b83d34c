"""Journal: appends ticks, rotates, deletes the oldest, and survives a disk that takes no more.

Invariant: append never raises; all of the directory's segments together never exceed `max_bytes`, and a
segment is only ever seen with whole frames, except after a crash in the middle of a write.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import zlib
from collections import deque
from pathlib import Path

from nodeagent import __version__
from nodeagent.journal.packed import (
    DIRECTORY,
    FRAME,
    FRAME_LIMIT_BYTES,
    MAGIC,
    SUFFIX,
    Packer,
    SegmentHead,
    pack_head,
)
from nodeagent.model.decision import Memory, Tick
from nodeagent.model.policy import Policy

NAME = re.compile(r"(\d{9})-[0-9a-z]{1,8}" + re.escape(SUFFIX))
LEVEL = 3  # of zlib


class Journal:
    """The ticks of this run, under `state_dir`.

    `bytes` is what all segments take on disk, `ticks_written` counts this run's ticks, and `stopped` is
    empty or the reason why nothing is written; it is tried again `retry_s` of tick time later.
    """

    def __init__(
        self,
        state_dir: Path,
        max_bytes: int = 64 << 20,
        segment_bytes: int | None = None,
        retry_s: float = 60.0,
    ) -> None:
        self.bytes = 0
        self.stopped = ""
        self.ticks_written = 0
        self._directory = state_dir / DIRECTORY
        self._max_bytes = max_bytes
        # at least two segments, or making room would cost all history at once
        self._segment_bytes = min(segment_bytes or max_bytes // 16, max_bytes // 2)
        self._retry_s = retry_s
        self._retry_at = 0.0
        self._run = os.urandom(16).hex()
        self._dir_fd = -1
        self._old: deque[tuple[str, int]] = deque()  # (name, bytes) of the other segments, oldest first
        self._current: _Segment | None = None

    def append(self, tick: Tick, policy: Policy, memory_before: Memory) -> None:
        """Write one tick with the policy and the memory that it was decided with.

        What the disk refuses or a value that cannot be encoded is told in `stopped`, never raised.
        """
        if self.stopped and tick.snapshot.at < self._retry_at:
            return
        try:
            self._append(tick, policy, memory_before)
        except (OSError, ValueError, OverflowError) as error:
            self._stop(error, tick.snapshot.at)
        else:
            self.stopped = ""
            self.ticks_written += 1

    def rotate(self) -> None:
        """End the segment; the next tick begins another, whose head holds that tick's policy and memory."""
        if self._current is not None:
            self._current.close()
            self._current = None
            os.close(self._dir_fd)

    close = rotate

    def _append(self, tick: Tick, policy: Policy, memory: Memory) -> None:
        segment = self._current
        if segment is None or (segment.policy is not policy and segment.policy != policy):
            segment = self._begin(tick, policy, memory)
        frame = segment.frame(tick)
        if segment.bytes and segment.bytes + len(frame) > self._segment_bytes:
            segment = self._begin(tick, policy, memory)
            frame = segment.frame(tick)
        self._make_room(len(frame))
        segment.write(frame)
        self.bytes += len(frame)

    def _begin(self, tick: Tick, policy: Policy, memory: Memory) -> _Segment:
        self.rotate()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if stat.S_IMODE(os.fstat(directory).st_mode) & 0o077:
                os.fchmod(directory, 0o700)
            self._old = _segments(directory)
            self.bytes = sum(size for _, size in self._old)
            number = int(self._old[-1][0][:9]) + 1 if self._old else 1
            boot = re.sub("[^0-9a-z]", "", tick.snapshot.boot_id.lower())[:8] or "0"
            head = SegmentHead(
                agent_version=__version__,
                run=self._run,
                created_unix=tick.snapshot.unix,
                hostname=os.uname().nodename,
                policy=policy,
                memory=memory,
            )
            self._current = _Segment(directory, f"{number:09d}-{boot}{SUFFIX}", head)
        except BaseException:
            os.close(directory)
            raise
        self._dir_fd = directory
        return self._current

    def _make_room(self, size: int) -> None:
        own = self._current.bytes if self._current is not None else 0
        if own + size > self._max_bytes:
            raise ValueError(f"one tick needs {size} bytes, the journal may have {self._max_bytes}")
        while self._old and self.bytes + size > self._max_bytes:
            name, freed = self._old.popleft()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._dir_fd)
            self.bytes -= freed

    def _stop(self, error: Exception, now: float) -> None:
        said = error.strerror if isinstance(error, OSError) else None
        self.stopped = f"{self._directory}: {said or error}"
        self._retry_at = now + self._retry_s
        if self._current is not None:
            self._current.undo(self._dir_fd)
        self.rotate()


class _Segment:
    """One open file. `bytes` counts whole frames; the head goes out together with the first tick."""

    def __init__(self, directory: int, name: str, head: SegmentHead) -> None:
        self.name = name
        self.policy = head.policy
        self.bytes = 0
        self._packer = Packer()
        self._deflate = zlib.compressobj(LEVEL)
        self._head = MAGIC + self._seal(pack_head(head))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(name, flags, 0o600, dir_fd=directory)

    def frame(self, tick: Tick) -> bytes:
        """The bytes to write for the tick; each tick exactly once, in order."""
        return self._head + self._seal(self._packer.pack(tick))

    def write(self, frame: bytes) -> None:
        view = memoryview(frame)
        while view:
            view = view[os.write(self._fd, view) :]
        self.bytes += len(frame)
        self._head = b""

    def undo(self, directory: int) -> None:
        """Remove what was written of a frame that could not be finished, and the file if nothing is left."""
        with contextlib.suppress(OSError):
            if self.bytes:
                os.ftruncate(self._fd, self.bytes)
            else:
                os.unlink(self.name, dir_fd=directory)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # NFS and quotas report late errors here; nothing to be done
            os.close(self._fd)

    def _seal(self, payload: bytes) -> bytes:
        packed = self._deflate.compress(payload) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        if max(len(payload), len(packed)) > FRAME_LIMIT_BYTES:
            raise ValueError(f"a frame of {len(payload)} bytes is too large")
        length = len(packed).to_bytes(4, "little")
        return FRAME.pack(len(packed), zlib.crc32(packed, zlib.crc32(length))) + packed


def _segments(directory: int) -> deque[tuple[str, int]]:
    """(name, bytes) of the regular files that are named like segments, oldest first."""
    with os.scandir(directory) as entries:
        found = [
            (entry.name, entry.stat(follow_symlinks=False).st_size)
            for entry in entries
            if NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
        ]
    return deque(sorted(found))
