"""What another process has used: CPU time exactly, and memory.

A process' CPU clock can be asked for from outside (clock_getcpuclockid(3); Linux
include/linux/posix-timers.h): nanoseconds of user and system time of all its threads, ended ones too.
/proc/PID/stat counts in 10 ms.
"""

from __future__ import annotations

import time
from pathlib import Path

_SCHED = 2  # CPUCLOCK_SCHED: all that it ran
MIB = 1 << 20


def cpu_s(pid: int) -> float:
    """CPU seconds that the process has used so far; OSError when it is gone."""
    return time.clock_gettime(~pid << 3 | _SCHED)


def resident_mib(pid: int, key: str = "VmRSS") -> float:
    """Its resident memory; `VmHWM` is the most that there was."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024
