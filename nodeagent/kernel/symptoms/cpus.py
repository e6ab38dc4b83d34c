"""The CPUs that a pod may use: those in effect of its containers, else its own.

v1   cpuset.effective_cpus (Linux Documentation/admin-guide/cgroup-v1/cpusets.rst)
v2   cpuset.cpus.effective (cgroup-v2.rst), not there where no cgroup around has the controller: then all
"""

from __future__ import annotations

from functools import reduce

from nodeagent.kernel.files import KeptFile, Shelf, inside
from nodeagent.kernel.mounts import Hierarchies
from nodeagent.model.cpuset import canonical, union

_NAMES = {1: "cpuset.effective_cpus", 2: "cpuset.cpus.effective"}


class CpusFiles:
    """Of the pod at `cgroup`, with containers at `inner`."""

    __slots__ = ("_cgroup", "_files", "_root", "_shelf", "_version")

    def __init__(self, places: Hierarchies, cgroup: str, shelf: Shelf, inner: tuple[str, ...]) -> None:
        found = places.roots.get("cpuset")
        self._root = None if found is None else found.root
        self._version = 2 if found is None else found.version
        self._cgroup, self._shelf = cgroup, shelf
        self._files: tuple[KeptFile[str], ...] = ()
        self.follow(inner)

    def follow(self, inner: tuple[str, ...]) -> None:
        """The pod has these containers now."""
        self.close()
        name = _NAMES[self._version]
        places = (f"{self._root}/{path}" for path in inner or (self._cgroup,)) if self._root else ()
        self._files = tuple(KeptFile(inside(place, name), _listed, self._shelf) for place in places)

    def read(self) -> str:
        """In the kernel's list format; empty while not known."""
        known = [found for file in self._files if (found := file.value())]
        return reduce(union, known) if known and len(known) == len(self._files) else ""

    def close(self) -> None:
        for file in self._files:
            file.close()


def _listed(raw: bytes) -> str | None:
    return canonical(raw.decode("ascii", "replace"))
