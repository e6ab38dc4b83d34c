"""The files in which systemd keeps what was set until the next boot.

    /run/systemd/system.control/UNIT.d/50-CPUQuota.conf

systemd has no call that takes such a file away without those of others (`systemctl revert`), and an emptied
one would go on hiding what the unit's own file says later: so one that we caused is removed.
"""

from __future__ import annotations

import contextlib
import errno
import os

DIRECTORY = "/run/systemd/system.control"


def path_of(host_root: str, unit: str, setting: str) -> str:
    """The file in which systemd keeps `setting` of `unit`."""
    return f"{host_root.rstrip('/')}{DIRECTORY}/{unit}.d/50-{setting}.conf"


def exists(host_root: str, unit: str, setting: str) -> bool:
    """True when somebody has set it until the next boot."""
    return os.path.lexists(path_of(host_root, unit, setting))


def remove(host_root: str, unit: str, setting: str) -> str:
    """Remove the file, and its directory when nothing is left in it; what went wrong, or ""."""
    path = path_of(host_root, unit, setting)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(os.path.dirname(path))
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            return f"{path}: {error.strerror}"
    return ""
