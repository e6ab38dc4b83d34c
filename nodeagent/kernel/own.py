"""What this process itself uses (proc_pid_statm(5))."""

from __future__ import annotations

import os

_PAGE_BYTES = os.sysconf("SC_PAGESIZE")


def resident_bytes() -> int | None:
    """Resident memory of this process; None where /proc does not tell."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read(256).split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return None
