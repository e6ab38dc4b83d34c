"""Tasks that cgroup v1 moved out of a cpuset when the last of its CPUs went offline: back into it.

They go to the nearest one above that has CPUs left (Linux Documentation/admin-guide/cgroup-v1/cpusets.rst),
and nothing brings them back when theirs has CPUs again. In the cpu hierarchy they have not moved.

Invariant: only tasks are moved that are still in that cgroup of the cpu hierarchy, and above it in cpuset's.
"""

from __future__ import annotations

import contextlib

from nodeagent.kernel.files import read_whole
from nodeagent.kernel.targets import around
from nodeagent.model.errors import AgentError


def bring_back(cpu_root: str, cpuset_root: str, target: str) -> None:
    """Move strays of the cgroup `target` home; one that has ended, or may not be moved, is left out."""
    above = (_processes(cpuset_root, path) for path in around([target]))
    for pid in _processes(cpu_root, target) & set().union(*above):
        with contextlib.suppress(OSError), open(f"{cpuset_root}/{target}/cgroup.procs", "wb", 0) as procs:
            procs.write(pid)


def _processes(root: str, path: str) -> set[bytes]:
    try:
        return set(read_whole(f"{root}/{path}/cgroup.procs").split())
    except AgentError:
        return set()
