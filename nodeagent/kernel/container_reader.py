"""One container's files -> Container. Its cgroup is the pod's plus a tail, in the v2 hierarchy too.

Invariant: a container that is gone is told once in every reading until its pod no longer has it.
"""

from __future__ import annotations

from nodeagent.kernel.files import Shelf
from nodeagent.kernel.mounts import Hierarchies
from nodeagent.kernel.reading import CgroupReader, PsiFiles
from nodeagent.model.errors import Gone
from nodeagent.model.pod import CgroupDir
from nodeagent.model.snapshot import Container


class ContainerReader:
    """Reads one container until it is gone; its path is then added to `vanished`."""

    def __init__(
        self, places: Hierarchies, shelf: Shelf, vanished: list[str], name: str, directory: CgroupDir
    ) -> None:
        self._shelf = shelf
        self._vanished = vanished
        self._name = name
        self._directory = directory
        self._cgroup = CgroupReader(places, directory, shelf)
        self._last: Container | None = None
        self._fresh = True

    def find_psi(self, pod_directory: str | None, pod_cgroup: str) -> None:
        """The pod's pressure is told there, None: nowhere."""
        if pod_directory is not None:
            tail = self._directory.path.removeprefix(pod_cgroup)
            self._cgroup.psi = PsiFiles(pod_directory + tail, self._shelf)

    def read(self, at: float, slow: bool, full: bool, moved: bool) -> Container | None:
        """The container now; None when it is gone. See `CgroupReader.read`."""
        try:
            reading = self._cgroup.read(at, slow or self._fresh, full, moved)
        except Gone:
            self._vanished.append(self._directory.path)
            return None
        self._fresh = False
        if self._last is None or reading is not self._last.reading:
            self._last = Container(self._name, self._directory.path, self._directory.inode, reading)
        return self._last

    @property
    def known(self) -> bool:
        """True once all of it was read."""
        return not self._fresh and self._last is not None

    def throttled_us(self) -> int:
        """us that its own quota stopped it until now, between two readings."""
        return self._cgroup.throttled_us()

    def close(self) -> None:
        """Close every kept file."""
        self._cgroup.close()
