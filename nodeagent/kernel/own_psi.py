"""Where a pod's pressure is told: its own cgroup in the v2 hierarchy.

On a hybrid node the pod is found in a v1 hierarchy, and its processes may be elsewhere in the v2 tree: in a
cgroup of the same name, in one of another name, in their runtime's service, or in the root.

Invariant: a pressure is a pod's only if its v2 cgroup has the pod's name, or exactly the pod's processes.
"""

from __future__ import annotations

import os

from nodeagent.kernel.files import read_whole
from nodeagent.kernel.mounts import Hierarchies
from nodeagent.model.errors import AgentError, Gone, Unsupported

MAX_PROCESSES = 4096
_MAX_CGROUPS = 256
_TRIES = 4  # a process may end between being listed and being asked


def psi_path(places: Hierarchies, proc: str, cgroup: str, nested: tuple[str, ...]) -> str | None:
    """Path of the pod's cgroup below the v2 root; None while it has no process; Unsupported if none."""
    if places.walk.version == 2:
        return cgroup
    if places.unified is None:
        raise Unsupported("no v2 hierarchy is mounted", hint="mount -t cgroup2 none /sys/fs/cgroup/unified")
    homes = processes(places.walk_root, (cgroup, *nested[:_MAX_CGROUPS]))
    for pid in list(homes)[:_TRIES]:
        found = _unified_path(proc, pid)
        if found is not None:
            return _own(places.unified, found, cgroup, homes, homes[pid])
    return None


def processes(root: str, cgroups: tuple[str, ...]) -> dict[int, str]:
    """The processes in these cgroups below `root`, each with its cgroup; at most MAX_PROCESSES."""
    homes: dict[int, str] = {}
    for cgroup in cgroups:
        for pid in ids_in(f"{root}/{cgroup}/cgroup.procs", MAX_PROCESSES - len(homes)):
            homes[pid] = cgroup
    return homes


def ids_in(path: str, most: int) -> list[int]:
    """Process or thread ids listed in a file, at most `most`, without those outside our pid namespace."""
    try:
        words = read_whole(path, 8 * most).split()
    except AgentError:  # the cgroup vanished, or holds no processes by its nature (v2 threaded)
        return []
    return [pid for word in words[:most] if word.isdigit() and len(word) < 11 and (pid := int(word)) > 0]


def _unified_path(proc: str, pid: int) -> str | None:
    """The path of the `0::` line of /proc/PID/cgroup without slashes around it; None if the process ended."""
    try:
        text = read_whole(f"{proc}/{pid}/cgroup").decode("utf-8", "surrogateescape")
    except Gone:
        return None
    for line in text.splitlines():
        if line.startswith("0::"):
            return line[3:].strip("/")
    raise Unsupported(f"{proc}/{pid}/cgroup has no v2 line")


def _own(unified: str, found: str, cgroup: str, homes: dict[int, str], home: str) -> str:
    """`found` is the v2 path of one process whose v1 cgroup is `home`; the pod's, or Unsupported."""
    below = home[len(cgroup) :]
    path = found.removesuffix(below) if below else found
    if path == cgroup:
        return path
    if path and not path.startswith("..") and all_below(unified, path) == homes.keys():
        return path
    raise Unsupported(f"the v2 cgroup /{found} is not the pod's own")


def all_below(root: str, path: str) -> set[int]:
    """Processes in a cgroup and all below it, as far as the bounds allow; `root` is its hierarchy's."""
    found: set[int] = set()
    for count, (directory, _, _) in enumerate(os.walk(f"{root}/{path}")):
        if count >= _MAX_CGROUPS or len(found) >= MAX_PROCESSES:
            break
        found.update(ids_in(f"{directory}/cgroup.procs", MAX_PROCESSES))
    return found
