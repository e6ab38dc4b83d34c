"""One agent per state directory: an flock(2), which the kernel frees however its holder ends.

Invariant: what the file says of its holder only serves messages; who may run is decided by the kernel alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from types import TracebackType

from msgspec import Struct

from nodeagent.model.errors import Failed

FILE = "lock"
_SAME_START_S = 2.0  # psutil computes start times from the boot time, which the kernel tells in whole seconds


class Holder(Struct, frozen=True):
    """A running process that wrote the lock file. `since_unix` in seconds."""

    pid: int
    name: str
    since_unix: float

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since_unix))
        return f"pid {self.pid} ({self.name}, since {since})"


class Lock:
    """Held from `acquire` to `release`, or for the rest of the process; also a context manager."""

    def __init__(self, state_dir: str) -> None:
        self._dir = state_dir
        self._path = f"{state_dir}/{FILE}"
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock; Failed when another process has it or the directory cannot be used."""
        if self._fd is not None:
            return
        self._make_dir()
        while self._fd is None:
            self._fd = self._locked()
        with contextlib.suppress(OSError):  # a full disk: the lock is held all the same
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()} {_started(os.getpid()) or time.time():.2f}\n".encode(), 0)

    def release(self) -> None:
        """Give the lock back. The file stays: to remove it would let two processes lock two files."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _make_dir(self) -> None:
        try:
            os.makedirs(self._dir, mode=0o700, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error

    def _locked(self) -> int | None:
        """A locked descriptor; None when somebody removed the file in between, so that it locks nothing."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(fd, self._path):
                return fd
            os.close(fd)
            return None
        except OSError as error:
            os.close(fd)
            if isinstance(error, BlockingIOError):
                raise self._held() from error
            raise self._unusable(error) from error

    def _held(self) -> Failed:
        who = holder(self._dir)
        return Failed(
            f"another agent runs: {who or 'a process that has not said who it is'} holds {self._path}",
            hint="stop it first, or give this one its own: --set agent.state_dir=DIR --set agent.run_dir=DIR",
        )

    def _unusable(self, error: OSError) -> Failed:
        return Failed(
            f"cannot lock {self._path}: {error.strerror}",
            hint="run as root, or choose another directory: --set agent.state_dir=DIR",
        )


def holder(state_dir: str) -> Holder | None:
    """The agent that runs on this state directory by its own word, or None; takes no lock."""
    with contextlib.suppress(OSError, ValueError):
        fd = os.open(f"{state_dir}/{FILE}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            pid, since = os.read(fd, 64).decode("ascii").split()
        finally:
            os.close(fd)
        return _running(int(pid), float(since))
    return None


def _running(pid: int, since_unix: float) -> Holder | None:
    import psutil

    started = _started(pid)
    if started is None or not abs(started - since_unix) <= _SAME_START_S:
        return None  # gone, or its number belongs to another process by now
    with contextlib.suppress(psutil.Error):
        return Holder(pid, psutil.Process(pid).name(), started)
    return None


def _started(pid: int) -> float | None:
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except (psutil.Error, ValueError, OverflowError, RuntimeError):  # the last: /proc/stat without btime
        return None


def _is_at(fd: int, path: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    return False
