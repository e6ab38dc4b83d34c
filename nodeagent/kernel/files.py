"""Files of /proc and /sys that are read again and again through kept-open descriptors.

A kept descriptor costs 1.1 times a C pread and 5 KB of kernel memory; opening anew costs 3 to 6 times.
Invariant: reading never raises. What cannot be read is None and is counted by kind in `Misses`; a file that
was never there is not a miss.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from os import pread
from typing import Generic, NamedTuple, TypeVar

from nodeagent.kernel.errno import translated
from nodeagent.model.errors import AgentError, Garbled, Gone, Unsupported

MAX_FILE_BYTES = 1 << 20
_FIRST_BYTES = 448  # with its header still within Python's small-object allocator; longer files grow it once
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK

T = TypeVar("T")
Parse = Callable[[bytes], T | None]


class Misses:
    """Readings that failed, by kind, since the last `taken`."""

    __slots__ = ("garbled", "gone", "refused")

    def __init__(self) -> None:
        self.garbled = self.gone = self.refused = 0

    def count(self, error: AgentError) -> None:
        if isinstance(error, Gone):
            self.gone += 1
        elif isinstance(error, Garbled):
            self.garbled += 1
        elif not isinstance(error, Unsupported):
            self.refused += 1

    def taken(self) -> dict[str, int]:
        """The counts that are not 0, which are forgotten here."""
        counts = {"garbled": self.garbled, "gone": self.gone, "refused": self.refused}
        self.garbled = self.gone = self.refused = 0
        return {kind: count for kind, count in counts.items() if count}


class Descriptors:
    """How many descriptors are kept, and how many may be.

    Without `most`, that is 3/4 of RLIMIT_NOFILE, whose soft limit is first raised to the hard one. The last
    quarter of `most` is for files that are read every tick.
    """

    __slots__ = ("kept", "most")

    def __init__(self, most: int | None = None) -> None:
        self.kept = 0
        self.most = _three_quarters_of_all() if most is None else most

    def has_room(self, hot: bool) -> bool:
        return self.kept < (self.most if hot else self.most * 3 // 4)


class Shelf(NamedTuple):
    """What the files of one reader share."""

    descriptors: Descriptors
    misses: Misses


class KeptFile(Generic[T]):
    """One file whose whole text the kernel gives in one read (all but lists of tasks and mounts).

    `hot`: read every tick. `parse` gives None for garbled text. Text is parsed only when it differs from the
    last time, so an unchanged value is the same object; `changes` counts how often it did.
    """

    __slots__ = (
        "_directory", "_fd", "_hot", "_last", "_name", "_parse", "_raw", "_shelf", "_size", "absent",
        "changes",
    )  # fmt: skip

    def __init__(self, path: str, parse: Parse[T], shelf: Shelf, *, hot: bool = False) -> None:
        directory, _, name = path.rpartition("/")
        self._directory, self._name = sys.intern(directory), sys.intern(name)  # one for all files in it
        self.absent = False  # not there when last opened; `value` does not try again until this is reset
        self.changes = 0
        self._parse = parse
        self._shelf = shelf
        self._hot = hot
        self._fd = -1
        self._size = _FIRST_BYTES
        self._raw: bytes | None = None
        self._last: T | None = None

    def value(self) -> T | None:
        """What the file says now, or None."""
        try:
            raw = pread(self._fd, self._size, 0)  # fd -1, not open, is an OSError as well
        except OSError:
            return None if self.absent else self._changed(self._reopened())
        if raw == self._raw and self._last is not None:
            return self._last
        return self._changed(raw)

    def read(self) -> bytes | None:
        """The file's bytes now, or None."""
        self.value()
        return self._raw

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._shelf.descriptors.kept -= 1

    @property
    def kept(self) -> bool:
        return self._fd >= 0

    @property
    def path(self) -> str:
        return inside(self._directory, self._name) if self._name else ""

    def _changed(self, raw: bytes | None) -> T | None:
        if raw is not None and len(raw) >= self._size:
            raw = self._grown()
        self.changes += 1
        self._raw = raw
        self._last = None if raw is None else self._parse(raw)
        if raw is not None and self._last is None:
            self._shelf.misses.garbled += 1
        return self._last

    def _grown(self) -> bytes | None:
        """The file read again with a buffer that it does not fill."""
        while self._size < MAX_FILE_BYTES:
            self._size = min(self._size * 4, MAX_FILE_BYTES)
            raw = self._again() if self.kept else self._reopened()
            if raw is None or len(raw) < self._size:
                return raw
        self._shelf.misses.garbled += 1
        return None

    def _again(self) -> bytes | None:
        try:
            return pread(self._fd, self._size, 0)
        except OSError as error:
            self._failed(error)
            return None

    def _reopened(self) -> bytes | None:
        """Open and read: the first time, when the kept descriptor died, or each time if none may be kept."""
        if self.kept:
            self._shelf.misses.gone += 1  # even if the path lives on, for then it is another cgroup's
            self._raw = None
            self.close()
        try:
            fd = os.open(self.path, _FLAGS)
        except OSError as error:
            self._failed(error)
            return None
        try:
            raw = pread(fd, self._size, 0)
        except OSError as error:
            os.close(fd)
            self._failed(error)
            return None
        self._keep(fd)
        return raw

    def _keep(self, fd: int) -> None:
        if self._shelf.descriptors.has_room(self._hot):
            self._fd = fd
            self._shelf.descriptors.kept += 1
        else:
            os.close(fd)

    def _failed(self, error: OSError) -> None:
        failure = translated(error, self.path)
        self.absent = isinstance(failure, Gone | Unsupported)
        if not (isinstance(failure, Gone) and self._raw is None):  # what was never there is no miss
            self._shelf.misses.count(failure)


def inside(directory: str | None, name: str) -> str:
    """Path of the file `name`; "" (which no file has) where the directory's controller is not mounted."""
    return "" if directory is None else f"{directory}/{name}"


def read_whole(path: str, limit: int = MAX_FILE_BYTES) -> bytes:
    """A file that the kernel may give in pieces (lists of tasks), up to `limit` bytes; AgentError if not."""
    try:
        fd = os.open(path, _FLAGS)
        try:
            pieces, left = [], limit
            while left > 0 and (piece := os.read(fd, min(left, 1 << 16))):
                pieces.append(piece)
                left -= len(piece)
            return b"".join(pieces)
        finally:
            os.close(fd)
    except OSError as error:
        raise translated(error, path) from error


def _three_quarters_of_all() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    except (OSError, ValueError):  # macOS and some sandboxes refuse even this
        pass
    return soft * 3 // 4 if soft != resource.RLIM_INFINITY else 1 << 20
