"""One enforcing agent per node, whatever its state directory: an flock(2) on the root of the cpu hierarchy.

Invariant: the kernel alone decides who holds it and frees it however the holder ends; nothing is written.
"""

from __future__ import annotations

import fcntl
import os

from nodeagent.kernel.errno import translated
from nodeagent.model.errors import Failed

LOCKS = "/proc/locks"


class NodeLock:
    """Held from `acquire` to `release`. `root` is a directory of the cgroup file system."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock; Failed with the holder's pid when another agent enforces on this node."""
        try:
            fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise translated(error, self._root) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _holder(os.fstat(fd))
            os.close(fd)
            who = f"pid {pid}" if pid is not None else "a process in another pid namespace"
            raise Failed(
                f"another agent enforces on this node: {who} holds the lock on {self._root}",
                "stop it first, or run this one with --set agent.mode=observe",
            ) from None
        self._fd = fd

    def __enter__(self) -> NodeLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give the lock back."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _holder(locked: os.stat_result) -> int | None:
    """The pid in /proc/locks (proc_locks(5)) that holds a FLOCK on this inode, None where it is not told."""
    device = f"{os.major(locked.st_dev):02x}:{os.minor(locked.st_dev):02x}:{locked.st_ino}"
    try:
        with open(LOCKS, encoding="ascii", errors="replace") as file:
            lines = [line.split() for line in file]
    except OSError:
        return None
    pids = (int(f[4]) for f in lines if len(f) >= 6 and f[1] == "FLOCK" and f[5] == device and f[4].isdigit())
    return next((pid for pid in pids if pid > 0), None)
