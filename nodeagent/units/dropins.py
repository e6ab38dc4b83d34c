"""The files in which systemd keeps what was set until the next boot.

    /run/systemd/system.control/UNIT.d/50-CPUQuota.conf
    /run/systemd/transient/UNIT.d/50-CPUQuota.conf         of one that systemd-run or a runtime made

systemd has no call that takes such a file away without those of others (`systemctl revert`), and an emptied
one would go on hiding what the unit's own file says later: so one that we caused is removed.
"""

from __future__ import annotations

import errno
import os

DIRECTORIES = ("/run/systemd/system.control", "/run/systemd/transient")


def paths(host_root: str, unit: str, setting: str) -> tuple[str, ...]:
    """Where systemd may keep `setting` of `unit`."""
    root = host_root.rstrip("/")
    return tuple(f"{root}{directory}/{unit}.d/50-{setting}.conf" for directory in DIRECTORIES)


def exists(host_root: str, unit: str, setting: str) -> bool:
    """True when somebody has set it until the next boot."""
    return any(map(os.path.lexists, paths(host_root, unit, setting)))


def remove(host_root: str, unit: str, setting: str) -> str:
    """Remove the file, and its directory when nothing is left in it; what went wrong, or ""."""
    for path in paths(host_root, unit, setting):
        try:
            os.unlink(path)
            os.rmdir(os.path.dirname(path))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST):
                return f"{path}: {error.strerror}"
    return ""
