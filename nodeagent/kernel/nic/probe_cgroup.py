"""A cgroup for as long as the probe needs one.

Invariant: it has the number of its process in its name, so the next one finds what a killed one has left.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from nodeagent.kernel.errno import translated
from nodeagent.kernel.files import read_whole
from nodeagent.kernel.mounts import Hierarchies
from nodeagent.model.errors import Unsupported
from nodeagent.model.pod import OWN_ROOT

PREFIX = "na-probe-"
_PATIENCE_S = 0.2


@contextmanager
def cgroup(root: str | None, places: Hierarchies) -> Iterator[tuple[str, int]]:
    """One below our own subtree of that hierarchy where there is one, else below the cgroup of ours.

    Its path and level, which is its depth. AgentError, Unsupported without a root.
    """
    if root is None:
        raise Unsupported(
            "no cgroup v2 hierarchy is mounted", hint="mount -t cgroup2 none /sys/fs/cgroup/unified"
        )
    path = _path(root, places)
    try:
        os.mkdir(path)
    except FileExistsError:
        pass  # prepared
    except OSError as error:
        raise translated(error, path) from error
    try:
        yield path, path.removeprefix(f"{root}/").count("/") + 1
    finally:
        _remove(path)


def prepare(places: Hierarchies) -> None:
    """Make those that this process cannot make any more once it is in a user namespace.

    The root of a hierarchy is written by capability alone (kernel/cgroup/cgroup.c, cgroup_setup_root).
    It cannot remove them either: `sweep` does, after its end.
    """
    roots = [place.root for name, place in places.roots.items() if name == "net_cls"]
    for root in [*roots, *([places.unified] if places.unified else [])]:
        with suppress(OSError):
            os.mkdir(_path(root, places))


def sweep(places: Hierarchies) -> None:
    """Remove what killed probes have left, in all hierarchies."""
    for place in places.all:
        above = _above(place.root, places)
        with suppress(OSError):
            for name in os.listdir(above):
                number = name.removeprefix(PREFIX)
                if name != number and not os.path.exists(f"/proc/{number}"):
                    _remove(f"{above}/{name}")


def _remove(path: str) -> None:
    """Also when a process has just been put to an end in it."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return os.rmdir(path)
        except (FileNotFoundError, PermissionError):
            return None
        except OSError:
            if time.monotonic() > end:
                return None
            time.sleep(0.005)


def _path(root: str, places: Hierarchies) -> str:
    return f"{_above(root, places)}/{PREFIX}{os.getpid()}"


def _above(root: str, places: Hierarchies) -> str:
    path = OWN_ROOT if os.path.isdir(f"{root}/{OWN_ROOT}") else _own_path(root, places)
    return f"{root}/{path}".rstrip("/")


def _own_path(root: str, places: Hierarchies) -> str:
    """That of our cgroup, as /proc/self/cgroup tells; "" where that is not below this mount."""
    at = next(place for place in places.all if place.root == root)
    for line in read_whole("/proc/self/cgroup").decode("utf-8", "surrogateescape").splitlines():
        number, names, path = line.split(":", 2)
        ours = number == "0" if at.version == 2 else bool(at.controllers & set(names.split(",")))
        if ours:
            return path.strip("/") if os.path.isdir(root + path) else ""
    return ""
