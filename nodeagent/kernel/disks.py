"""The node's block devices: /proc/diskstats (Linux Documentation/admin-guide/iostats.rst).

Invariant: only whole devices, neither partitions nor loop devices nor memory.
"""

from __future__ import annotations

import os
import re

from nodeagent.kernel.files import KeptFile, Shelf
from nodeagent.kernel.parse import MAX_NUMBER
from nodeagent.model.symptom import Disk

_MAX_DISKS = 256
_ROW = re.compile(rb" *(\d{1,4}) +(\d{1,7}) (\S{1,64})((?: \d{1,19}){11,})")
_IN_MEMORY = re.compile(rb"(?:loop|ram|zram)\d+")


class DiskFiles:
    """`sys_block` has one entry for each whole device; a "/" in its name is a "!" there."""

    __slots__ = ("_file", "_sys_block", "_whole")

    def __init__(self, proc: str, sys_block: str, shelf: Shelf) -> None:
        self._sys_block = sys_block
        self._whole: dict[bytes, bool] = {}
        self._file = KeptFile(f"{proc}/diskstats", self._disks, shelf, hot=True)

    def read(self) -> tuple[Disk, ...] | None:
        """All of them now; None where they are not told."""
        return self._file.value()

    def close(self) -> None:
        self._file.close()

    def _disks(self, raw: bytes) -> tuple[Disk, ...] | None:
        rows = rows_in(raw)
        if rows is None:
            return None
        known = self._whole
        self._whole = {name: known[name] if name in known else self._is_whole(name) for name in rows}
        return tuple([disk for name, disk in rows.items() if self._whole[name]][:_MAX_DISKS])

    def _is_whole(self, name: bytes) -> bool:
        found = os.fsdecode(name).replace("/", "!")
        return not _IN_MEMORY.fullmatch(name) and os.path.isdir(f"{self._sys_block}/{found}")


def rows_in(raw: bytes) -> dict[bytes, Disk] | None:
    """Every row of /proc/diskstats by name, in its order, partitions too."""
    found: dict[bytes, Disk] = {}
    for line in raw.splitlines():
        row = _ROW.fullmatch(line)
        if row is None:
            return None
        major, minor, name, words = row.groups()
        counts = [int(word) for word in words.split()[:10]]
        reads, _, _, read_ms, writes, _, _, write_ms, _, busy_ms = counts
        if max(reads + writes, (read_ms + write_ms) * 1000, busy_ms * 1000) > MAX_NUMBER:
            return None
        found[name] = Disk(
            f"{int(major)}:{int(minor)}",
            name.decode("utf-8", "replace"),
            reads + writes,
            (read_ms + write_ms) * 1000,
            busy_ms * 1000,
        )
    return found
