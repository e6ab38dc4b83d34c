"""Make and remove the cgroup of one pod, in every hierarchy at once.

    ROOT/nodeagent/batch/sort       shared levels are made on demand and removed when empty

Invariant: before a process can enter, its cgroup has what it needs there (v1 cpuset: CPUs and memory nodes;
v2: controllers); and nothing but the named cgroup and empty levels above it is ever removed.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
import time
from collections.abc import Iterator
from typing import NamedTuple

from nodeagent.kernel.errno import translated
from nodeagent.kernel.mounts import Hierarchies, Hierarchy
from nodeagent.model.errors import AgentError, Failed, Refused
from nodeagent.model.plan import Change, Kind, Knob

KILL_PATIENCE_S = 5.0  # from SIGKILL to giving up on a process in an uninterruptible sleep
_CONTROLLERS = ("cpu", "memory", "pids", "io", "cpuset")
_READ_ONLY = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_VANISHED = frozenset({errno.ENOENT, errno.ENODEV})  # ENODEV: it is being removed just now
_ATTEMPTS = 100
_POLL_S = 0.005


class PodCgroup(NamedTuple):
    """The cgroup.procs files that a process enters the pod by, and what could not be had."""

    procs: tuple[str, ...]
    warnings: tuple[str, ...]


def make_pod_cgroup(hierarchies: Hierarchies, path: str) -> PodCgroup:
    """Make the cgroup `path` in every hierarchy that can be written.

    Refused when the one where pods are looked for cannot be, Failed when the cgroup is there already; then
    nothing of what was made is left.
    """
    made: list[str] = []
    warnings: list[str] = []
    try:
        for hierarchy in hierarchies.all:
            try:
                warnings += _make(hierarchy, path, made)
            except OSError as error:
                if error.errno not in _READ_ONLY or hierarchy == hierarchies.walk:
                    raise
                warnings.append(str(translated(error, hierarchy.root)))
    except (AgentError, OSError) as error:
        for top in made:
            _remove_tree(top)
        _remove_empty_levels(hierarchies, path)
        raise _explained(error, hierarchies.walk_root) from error
    return PodCgroup(tuple(f"{top}/cgroup.procs" for top in made), tuple(warnings))


def limit_cpu(hierarchies: Hierarchies, path: str, cores: float | None) -> None:
    """Give the new cgroup `path` a CPU quota, None: none. Refused when it cannot have it."""
    if cores is None:
        return
    from nodeagent.kernel.knobs import Knobs  # a command without a limit starts faster

    knobs = Knobs(hierarchies)
    try:
        (outcome,) = knobs.apply([Change(Knob(Kind.CPU_QUOTA, path), math.inf, cores, "")])
    finally:
        knobs.close()
    if not outcome.ok:
        raise Refused(f"no CPU limit of {cores:g} cores: {outcome.error}")


def remove_if_empty(hierarchies: Hierarchies, path: str) -> bool:
    """Remove the cgroup `path` everywhere unless a process is in or below it. True if it is not there now."""
    tops = _tops(hierarchies, path)
    if next(_processes(tops), None) is not None:
        return False
    left = [error for top in tops for error in _remove_tree(top)]
    _remove_empty_levels(hierarchies, path)
    return not left


def remove_pod_cgroup(hierarchies: Hierarchies, path: str, *, grace_s: float = 2.0) -> tuple[str, ...]:
    """End what still runs there (SIGTERM, after `grace_s` SIGKILL) and remove the cgroup `path` everywhere.

    The levels above go when nothing else is in them. Returns what could not be removed, one line each.
    """
    tops = _tops(hierarchies, path)
    _end(tops, signal.SIGTERM, grace_s)
    for top in tops:
        # Linux kernel commit 661ee6280931 ("cgroup: introduce cgroup.kill") (in v5.14)
        with contextlib.suppress(OSError):
            _write(f"{top}/cgroup.kill", "1")
    _end(tops, signal.SIGKILL, KILL_PATIENCE_S)
    warnings = [str(translated(error, top)) for top in tops for error in _remove_tree(top)]
    _remove_empty_levels(hierarchies, path)
    return tuple(warnings)


def _explained(error: AgentError | OSError, root: str) -> AgentError:
    if isinstance(error, AgentError):
        return error
    found = translated(error, error.filename or root)
    return Refused(f"cannot make a cgroup: {found}", hint=found.hint)


def _remove_empty_levels(hierarchies: Hierarchies, path: str) -> None:
    level = os.path.dirname(path)
    while level:
        for hierarchy in hierarchies.all:
            with contextlib.suppress(OSError):  # others are in it, or took it away
                os.rmdir(f"{hierarchy.root}/{level}")
        level = os.path.dirname(level)


def _make(hierarchy: Hierarchy, path: str, made: list[str]) -> list[str]:
    """Make all levels of `path`, from the top anew when another exec removes one that it found empty.

    The last one is added to `made`: it cannot vanish, nor any level above it from then on.
    """
    for _ in range(_ATTEMPTS):
        try:
            return _make_levels(hierarchy, path.split("/"), made)
        except OSError as error:
            if error.errno not in _VANISHED:
                raise
    where = f"{hierarchy.root}/{path}"
    raise Refused(f"{where}: its parents keep vanishing", hint="does something else remove them?")


def _make_levels(hierarchy: Hierarchy, names: list[str], made: list[str]) -> list[str]:
    warnings: list[str] = []
    level = hierarchy.root
    for depth, name in enumerate(names, start=1):
        if hierarchy.version == 2:
            warnings += _enable_controllers(level)
        parent, level = level, f"{level}/{name}"
        try:
            os.mkdir(level, mode=0o755)
        except FileExistsError:
            if depth == len(names):
                raise Failed(f"{level} exists already", hint="choose another --name") from None
        if depth == len(names):
            made.append(level)
        if hierarchy.version == 1 and "cpuset" in hierarchy.controllers:
            _inherit_cpuset(parent, level)
    return warnings


def _enable_controllers(level: str) -> list[str]:
    """For the children of a v2 cgroup; what the kernel refuses is told, not raised.

    EBUSY: the cgroup has processes of its own (the root of a container's cgroup namespace).
    """
    enabled = _read(f"{level}/cgroup.subtree_control").split()
    available = _read(f"{level}/cgroup.controllers").split()
    warnings = []
    for controller in _CONTROLLERS:
        if controller in available and controller not in enabled:
            try:
                _write(f"{level}/cgroup.subtree_control", f"+{controller}")
            except OSError as error:
                if error.errno in _VANISHED:
                    raise
                warnings.append(f"{level}: cannot enable controller {controller}: {error.strerror}")
    return warnings


def _inherit_cpuset(parent: str, level: str) -> None:
    """A new v1 cpuset is empty and takes no process (ENOSPC)."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not _read(f"{level}/{name}").strip():
            _write(f"{level}/{name}", _read(f"{parent}/{name}").strip())


def _tops(hierarchies: Hierarchies, path: str) -> list[str]:
    tops = [f"{hierarchy.root}/{path}" for hierarchy in hierarchies.all]
    return [top for top in tops if os.path.isdir(top)]


def _processes(tops: list[str]) -> Iterator[int]:
    """Processes in or below `tops`; 0 stands for those of another pid namespace."""
    for top in tops:
        for directory, _, _ in os.walk(top):
            with contextlib.suppress(OSError):
                yield from map(int, _read(f"{directory}/cgroup.procs").split())


def _end(tops: list[str], signum: signal.Signals, patience_s: float) -> None:
    """Signal each process once as it is seen, until there is none or the patience is over."""
    deadline = time.monotonic() + patience_s
    told: set[int] = set()
    while pids := set(_processes(tops)) - {os.getpid()}:
        for pid in pids - told - {0}:  # 0 would be our own process group
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signum)
        told |= pids
        if time.monotonic() >= deadline:
            return
        time.sleep(_POLL_S)


def _remove_tree(top: str) -> list[OSError]:
    """rmdir, deepest first; a process that is just exiting keeps its cgroup busy for a moment."""
    deadline = time.monotonic() + 1.0
    while True:
        failures: list[OSError] = []
        for directory, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                continue
            except OSError as error:
                failures.append(error)
        if not failures or time.monotonic() >= deadline:
            return failures[-1:]
        time.sleep(_POLL_S)


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
