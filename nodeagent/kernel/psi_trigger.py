"""PSI triggers: a descriptor that polls readable (POLLPRI) when tasks have stalled for too long.

Without CAP_SYS_RESOURCE the kernel takes only windows of n x 2 s, and serves them from its 2 s averaging
(Linux kernel commit d82caa273565 ("sched/psi: Allow unprivileged polling of N*2s period") (in v6.4)).
Invariant: the caller owns the descriptor; closing it removes the trigger.
"""

from __future__ import annotations

import errno
import os

from nodeagent.kernel.errno import translated
from nodeagent.model.errors import Gone, Refused, Unsupported

_UNPRIVILEGED_US = 2_000_000
_LONGEST_US = 10_000_000


def open_trigger(path: str, stall_us: int = 50_000, window_us: int = 500_000, *, longer: bool = True) -> int:
    """A descriptor for poll(POLLPRI): `path` (a pressure file) had `some` stall of `stall_us` in a window.

    Where the window is refused, the next multiple of 2 s is taken with the same share of stall, if `longer`
    ones will do. Gone, Refused or Unsupported when there can be no trigger.
    """
    longer_us = -(-window_us // _UNPRIVILEGED_US) * _UNPRIVILEGED_US
    windows = [window_us, longer_us] if longer and window_us < longer_us <= _LONGEST_US else [window_us]
    for window in windows[:-1]:
        try:
            return _opened(path, stall_us, window)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL):
                break
    try:
        return _opened(path, stall_us * windows[-1] // window_us, windows[-1])
    except OSError as error:
        raise _explained(error, path) from error


def _opened(path: str, stall_us: int, window_us: int) -> int:
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # /proc/pressure/* overwrites the last byte written with NUL: without the newline, a digit would go.
        os.write(fd, f"some {stall_us} {window_us}\n".encode("ascii"))
    except OSError:
        os.close(fd)
        raise
    return fd


def _explained(error: OSError, path: str) -> Gone | Refused | Unsupported:
    failure = translated(error, path)
    if error.errno == errno.EINVAL:
        return Refused(f"{path}: the kernel takes no such trigger", hint="give the agent CAP_SYS_RESOURCE")
    if isinstance(failure, Gone | Refused | Unsupported):
        return failure
    return Refused(str(failure), failure.hint)
