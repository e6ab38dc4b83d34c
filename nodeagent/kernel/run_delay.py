"""Time that a pod's threads spent waiting on a run queue: the stand-in where pressure is unsupported.

Invariant: the sum never falls, for it is made of each thread's growth; a thread that ends only stops adding.
"""

from __future__ import annotations

from nodeagent.kernel.files import KeptFile, Misses, Shelf
from nodeagent.kernel.own_psi import ids_in
from nodeagent.kernel.parse import run_delay_ns

MAX_THREADS = 4096  # per pod; beyond it the sum is that of the first ones


class RunDelay:
    """`threads` are the files that list the pod's threads: v1 `tasks`, v2 `cgroup.threads`."""

    __slots__ = ("_at", "_files", "_last", "_proc", "_shelf", "_total_ns", "threads")

    def __init__(self, proc: str, threads: tuple[str, ...], shelf: Shelf) -> None:
        self._proc = proc
        self.threads = threads
        self._shelf = Shelf(shelf.descriptors, Misses())  # that a thread ends is no miss
        self._files: dict[int, KeptFile[int]] = {}
        self._last: dict[int, int] = {}
        self._total_ns = 0
        self._at: float | None = None

    def read(self, at: float) -> int | None:
        """us waited so far, as far as seen; None while there was no thread or if none could be read."""
        now = self._delays_ns()
        if now is None or (not now and self._at is None):
            return None
        elapsed_ns = 0 if self._at is None else int((at - self._at) * 1e9)
        for thread, delay_ns in now.items():
            before = self._last.get(thread)
            if self._at is None:
                self._total_ns += delay_ns
            elif before is not None and before <= delay_ns:
                self._total_ns += delay_ns - before
            else:  # new here; it may be old elsewhere, but cannot have waited for longer than since then
                self._total_ns += min(delay_ns, elapsed_ns)
        self._last, self._at = now, at
        return self._total_ns // 1000

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}

    def _delays_ns(self) -> dict[int, int] | None:
        """Run delay of each thread; None if there are threads and none can be read."""
        now: dict[int, int] = {}
        listed = 0
        for listing in self.threads:
            threads = ids_in(listing, MAX_THREADS - listed)
            listed += len(threads)
            for thread in threads:
                delay_ns = self._file(thread).value()
                if delay_ns is not None:
                    now[thread] = delay_ns
        for ended in self._files.keys() - now.keys():
            self._files.pop(ended).close()
        return now if now or not listed else None

    def _file(self, thread: int) -> KeptFile[int]:
        """/proc/THREAD is there for every thread, though not listed; same text as /proc/PID/task/THREAD."""
        file = self._files.get(thread)
        if file is None:
            path = f"{self._proc}/{thread}/schedstat"
            file = self._files[thread] = KeptFile(path, run_delay_ns, self._shelf)
        return file
