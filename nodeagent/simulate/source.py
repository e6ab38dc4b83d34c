"""A trace file as numbered lines of text: plain, gzip or a tar of one file, from a path or standard input.

Invariant: a line is never longer than `MAX_LINE_BYTES` in memory, whatever is in the file.
"""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import IO, cast

from nodeagent.model.errors import Failed

MAX_LINE_BYTES = 1 << 16
PEEK_BYTES = 1 << 16
CSV = "give a CSV file, or one that gzip or tar has packed"
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError)


class Source:
    """The lines of one file; `number` is that of the last one. Use it as a context manager, once."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.name = "standard input" if path == "-" else path
        self.number = 0

    def __enter__(self) -> Source:
        """OSError when the file cannot be opened, Failed when it is damaged."""
        with ExitStack() as stack:
            try:
                self._stream = self._opened(stack)
            except DAMAGED as error:
                raise self._damaged(error) from None
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[str]:
        """Each line without white space around it; Failed where it is not text."""
        while line := self._line():
            self.number += 1
            if len(line) > MAX_LINE_BYTES:
                raise self.wrong(f"a line of more than {MAX_LINE_BYTES} bytes", CSV)
            try:
                text = line.decode()
            except UnicodeDecodeError:
                raise self.wrong("this is not text", CSV) from None
            yield text.removeprefix("\ufeff").strip()

    def wrong(self, what: str, hint: str = "") -> Failed:
        """What is wrong with the last line."""
        return Failed(f"{self.name}:{self.number}: {what}", hint)

    def _line(self) -> bytes:
        try:
            return self._stream.readline(MAX_LINE_BYTES + 1)
        except DAMAGED as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> Failed:
        return Failed(f"{self.name}: damaged after line {self.number}: {error}", "copy or download it again")

    def _opened(self, stack: ExitStack) -> IO[bytes]:
        if self._path == "-":
            stream = cast("io.BufferedReader", sys.stdin.buffer)
        else:
            stream = stack.enter_context(open(self._path, "rb"))  # noqa: SIM115  the stack closes it
        if stream.peek(2)[:2] == b"\x1f\x8b":
            unpacked = gzip.GzipFile(fileobj=stream)
            stack.enter_context(closing(unpacked))
            stream = io.BufferedReader(cast("io.RawIOBase", unpacked), PEEK_BYTES)
        if stream.peek(512)[257:262] != b"ustar":
            return stream
        packed = tarfile.TarFile.open(fileobj=stream, mode="r|")
        stack.enter_context(closing(packed))
        for member in packed:
            if member.isfile():
                self.name = f"{self.name}({member.name[:80]})"
                return cast("IO[bytes]", packed.extractfile(member))
        raise Failed(f"{self.name}: there is no file in it", "give the CSV file itself")
