"""CPU time that the node spends outside Batch, from two or three files: what all spend, less what Batch does.

v1: cpuacct.usage of the root and of each Batch cgroup. v2: usage_usec in their cpu.stat; the root's counts in
scheduler ticks and has stolen time in it (Linux kernel/cgroup/rstat.c, root_cgroup_cputime).
Invariant: it is told only where every part was read; with more than MOST Batch cgroups it is not.
"""

from __future__ import annotations

from nodeagent.kernel.files import KeptFile, Shelf, inside
from nodeagent.kernel.mounts import Hierarchies
from nodeagent.kernel.parse import FlatKeyed, microseconds

MOST = 16

_cpu_stat = FlatKeyed(b"usage_usec", b"nr_periods", b"nr_throttled", b"throttled_usec")


class OutsideBatch:
    """`follow` the cgroups that Batch is in; `close` it."""

    def __init__(self, places: Hierarchies, shelf: Shelf) -> None:
        found = places.roots.get("cpuacct")
        self._v1 = found is not None and found.version == 1
        self._root = found.root if found is not None and self._v1 else places.unified
        self._shelf = shelf
        self._whole = self._file("")
        self._batch: dict[str, KeptFile[int]] = {}
        self._many = False

    def follow(self, cgroups: tuple[str, ...]) -> None:
        """From now on Batch is in exactly these cgroups, none of which is inside another."""
        self._many = len(cgroups) > MOST
        wanted = () if self._many else cgroups
        for gone in self._batch.keys() - set(wanted):
            self._batch.pop(gone).close()
        for cgroup in wanted:
            if cgroup not in self._batch:
                self._batch[cgroup] = self._file(cgroup)

    def used_us(self) -> int | None:
        """us so far, None where not known; another sum after `follow`."""
        if self._many:
            return None
        whole, batch_us = self._whole.value(), 0
        for file in self._batch.values():
            part = file.value()
            if part is None:
                file.absent = False  # a new cgroup comes into one hierarchy after the other
                return None
            batch_us += part
        return None if whole is None else whole - batch_us

    def close(self) -> None:
        """Close every kept file."""
        self.follow(())
        self._whole.close()

    def _file(self, cgroup: str) -> KeptFile[int]:
        directory = None if self._root is None else f"{self._root}/{cgroup}".rstrip("/")
        if self._v1:
            return KeptFile(inside(directory, "cpuacct.usage"), microseconds, self._shelf, hot=True)
        return KeptFile(inside(directory, "cpu.stat"), _usage, self._shelf, hot=True)


def _usage(raw: bytes) -> int | None:
    found = _cpu_stat(raw)
    return None if found is None else found[0]
