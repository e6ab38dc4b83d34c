"""The processes whose pages are to be moved.

Invariant: a list that is not whole is an error: pages of a process that is not seen have not moved.
"""

from __future__ import annotations

import os

from nodeagent.kernel.errno import translated
from nodeagent.kernel.files import read_whole
from nodeagent.model.errors import Failed, Gone, Unsupported

MAX_PROCESSES = 16384
MAX_CGROUPS = 1024
_ID_BYTES = 11


def owners(root: str, cgroup: str) -> list[int]:
    """Processes in a cgroup and all below it, by number; `root` is its hierarchy's. None where it vanished.

    Unsupported if all are outside of our pid namespace (v2 lists them as 0), Refused, Failed if too many.
    """
    found: set[int] = set()
    for count, (directory, _, _) in enumerate(os.walk(f"{root}/{cgroup}", onerror=_unlistable)):
        found.update(_listed(directory))
        if count >= MAX_CGROUPS or len(found) > MAX_PROCESSES:
            raise Failed(f"{cgroup}: more than {MAX_PROCESSES} processes or {MAX_CGROUPS} cgroups")
    if found == {0}:
        raise Unsupported("processes of this pod are not visible here", hint="share the host's pid namespace")
    return sorted(found - {0})


def _listed(directory: str) -> list[int]:
    path, most = f"{directory}/cgroup.procs", MAX_PROCESSES * _ID_BYTES
    try:
        text = read_whole(path, most)
    except (Gone, Unsupported):  # it vanished, or it is threaded: the cgroup above lists its processes
        return []
    if len(text) >= most:
        raise Failed(f"{path}: more than {MAX_PROCESSES} processes")
    return [int(word) for word in text.split() if word.isdigit()]


def _unlistable(error: OSError) -> None:
    failure = translated(error, str(error.filename))
    if not isinstance(failure, Gone):
        raise failure from error
