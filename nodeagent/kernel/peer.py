"""In which cgroup a process is, that the kernel has told to be at the other end of a socket."""

from __future__ import annotations

from nodeagent.kernel.files import read_whole
from nodeagent.kernel.mounts import Hierarchy
from nodeagent.model.errors import AgentError

MAX_BYTES = 64 << 10


def cgroup_of(pid: int, at: Hierarchy) -> str:
    """Its path below the root of the hierarchy `at` (proc_pid_cgroup(5)); "" where that is not known.

    `pid` is as this process sees it, so it is our own /proc that is looked at. A path that leads up ("/../")
    is that of a process outside of our cgroup namespace, of which the rest is not told.
    """
    if pid <= 0:
        return ""
    try:
        text = read_whole(f"/proc/{pid}/cgroup", MAX_BYTES).decode("utf-8", "surrogateescape")
    except AgentError:
        return ""
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        here = number == "0" if at.version == 2 else bool(at.controllers & set(names.split(",")))
        if here:
            return "" if path.startswith("/..") else path.strip("/").removesuffix(" (deleted)")
    return ""
