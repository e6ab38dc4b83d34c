"""A file that is kept open and read again: what differs from the last time is told, what does not is cheap.

Invariant: the compiled nodeagent/kernel/_kept.c (`make fast`), where it is there, does the same.
"""

from __future__ import annotations

from os import pread
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Descriptor (-1: none) and size to read, the bytes as last read and what they were parsed to."""

    __slots__ = ("_fd", "_last", "_raw", "_size")

    def value(self) -> T | None:
        """What the file says now, or None."""
        try:
            raw = pread(self._fd, self._size, 0)  # fd -1, not open, is an OSError as well
        except OSError:
            return self._unreadable()
        if raw == self._raw and self._last is not None:
            return self._last
        return self._changed(raw)

    _fd: int
    _size: int
    _raw: bytes | None
    _last: T | None

    def _changed(self, raw: bytes) -> T | None:
        """What the new bytes say."""
        raise NotImplementedError

    def _unreadable(self) -> T | None:
        """What is told when the descriptor does not answer, or is not there."""
        raise NotImplementedError
