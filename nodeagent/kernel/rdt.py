"""Cache occupancy and memory bandwidth of pods from resctrl (Linux Documentation/filesystems/resctrl.rst).

    <root>/mon_groups/NAME/mon_data/mon_L3_00/{llc_occupancy,mbm_total_bytes,mbm_local_bytes}
    <root>/CLASS/mon_groups/NAME/...            the same inside a class of service

Container runtimes make such a group for each container that is to be monitored, by its id (OCI runtime
specification, linux.intelRdt.enableMonitoring). The agent reads these and makes none: monitoring ids are
scarce, and a task can be moved only inside its class.
Invariant: a domain that answers with words ("Unavailable", "Error") makes the sum unknown, never smaller.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from nodeagent.kernel.files import KeptFile, Shelf
from nodeagent.kernel.parse import number
from nodeagent.model.symptom import Rdt

FILES = ("llc_occupancy", "mbm_total_bytes", "mbm_local_bytes")
MAX_GROUPS = 4096
LOOK_S = 30.0  # between two looks at which groups there are

_Domains = tuple[tuple[KeptFile[int], ...], ...]  # by file, then by domain


class RdtGroups:
    """The monitoring groups below `root`; nothing where resctrl is not mounted there."""

    def __init__(self, root: str, shelf: Shelf) -> None:
        self._root = root
        self._shelf = shelf
        self._looked_at: float | None = None
        self._paths: dict[str, str] = {}
        self._open: dict[str, _Domains] = {}
        self.mounted = os.path.isdir(f"{root}/mon_data")

    def look(self, at: float) -> None:
        """See which groups there are, now and then."""
        if not self.mounted or (self._looked_at is not None and at - self._looked_at < LOOK_S):
            return
        self._looked_at = at
        self._paths = dict(_groups(self._root))
        for name in self._open.keys() - self._paths.keys():
            self._shut(name)

    def read(self, containers: Iterable[str]) -> Rdt | None:
        """The sums over those of a pod's containers (ids) that are monitored; None where none is."""
        groups = [domains for name in containers if (domains := self._domains(name)) is not None]
        if not groups:
            return None
        return Rdt(*(_sum([each[n] for each in groups]) for n in range(len(FILES))))

    def close(self) -> None:
        """Close every descriptor."""
        for name in [*self._open]:
            self._shut(name)

    def _domains(self, name: str) -> _Domains | None:
        path = self._paths.get(name)
        if path is None:
            return None
        if name not in self._open:
            where = [f"{path}/mon_data/{each}" for each in _listed(f"{path}/mon_data") if "_L3_" in each]
            self._open[name] = tuple(
                tuple(KeptFile(f"{domain}/{file}", number, self._shelf) for domain in where) for file in FILES
            )
        return self._open[name]

    def _shut(self, name: str) -> None:
        for files in self._open.pop(name):
            for file in files:
                file.close()


def _sum(groups: list[tuple[KeptFile[int], ...]]) -> int | None:
    values = [file.value() for files in groups for file in files]
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _groups(root: str) -> Iterator[tuple[str, str]]:
    """(name, path) of every monitoring group, those of classes too; at most MAX_GROUPS."""
    reserved = {"info", "mon_data", "mon_groups"}
    classes = [root, *(f"{root}/{name}" for name in _listed(root) if name not in reserved)]
    count = 0
    for path in classes:
        for name in _listed(f"{path}/mon_groups"):
            count += 1
            if count > MAX_GROUPS:
                return
            yield name, f"{path}/mon_groups/{name}"


def _listed(path: str) -> list[str]:
    """Directories in a directory, in order; none where it is not there."""
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []
