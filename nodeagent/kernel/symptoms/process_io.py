"""Bytes that a pod's processes read from and wrote to storage, where its cgroup does not count them.

Recent kernels count nothing in blkio of cgroup v1 until somebody has set a limit on the device: on 6.18, 64
MiB of direct I/O, and still "Total 0". /proc/PID/io (Linux Documentation/filesystems/proc.rst) counts always,
though not by device; dirtied pages count as written.
Invariant: what is told never falls. What a process did is its parent's once it is reaped, so that their sum
stays; what goes with processes that nobody reaps is remembered.
"""

from __future__ import annotations

import re

from nodeagent.kernel.files import Misses, read_whole
from nodeagent.kernel.own_psi import ids_in
from nodeagent.kernel.parse import MAX_NUMBER
from nodeagent.model.errors import AgentError, Gone, Refused

MOST_PROCESSES = 64  # of a pod: the oldest of each cgroup
_STORED = re.compile(rb"^(?:read|write)_bytes: (\d{1,19})$", re.MULTILINE)


class ProcessIo:
    """`lists` are the cgroup.procs of the pod and of what is in it."""

    __slots__ = ("_last", "_lost", "_misses", "_pids", "_proc", "_threads", "lists")

    def __init__(self, proc: str, lists: tuple[str, ...], misses: Misses) -> None:
        self._proc = proc
        self.lists = lists
        self._misses = misses
        self._last = self._lost = 0
        self._pids: list[int] = []
        self._threads: frozenset[int] | None = None

    def read(self, threads: frozenset[int] | None = None) -> int | None:
        """Bytes so far; None when no process tells. With the same `threads` there are the same processes."""
        pids = self._pids
        if threads is None or threads is not self._threads:
            self._threads = threads
            pids = self._pids = []
            for listing in self.lists:
                pids += ids_in(listing, MOST_PROCESSES - len(pids))
        told = [size for pid in pids if (size := self._of(pid)) is not None]
        if pids and not told:
            return None
        now = sum(told)
        self._lost += max(0, self._last - now)
        self._last = now
        return now + self._lost if now + self._lost <= MAX_NUMBER else None

    def _of(self, pid: int) -> int | None:
        try:
            raw = read_whole(f"{self._proc}/{pid}/io", 4096)
        except AgentError as error:
            if not isinstance(error, Gone | Refused):  # refused: it takes CAP_SYS_PTRACE
                self._misses.count(error)
            return None
        found = stored(raw)
        if found is None:
            self._misses.garbled += 1
        return found


def stored(raw: bytes) -> int | None:
    """Bytes read from and written to storage, in the text of /proc/PID/io."""
    counts = _STORED.findall(raw)
    return sum(map(int, counts)) if len(counts) == 2 else None
