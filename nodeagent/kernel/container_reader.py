"""One container's files -> Container; its cgroup is below its pod's.

Invariant: a container that is gone stays gone.
"""

from __future__ import annotations

from nodeagent.kernel.files import Shelf
from nodeagent.kernel.mounts import Hierarchies
from nodeagent.kernel.reading import CgroupReader, PsiFiles
from nodeagent.model.errors import Gone
from nodeagent.model.pod import CgroupDir
from nodeagent.model.snapshot import Container


class ContainerReader:
    """A container's cgroup is the pod's plus a tail, in the v2 hierarchy too."""

    def __init__(
        self, places: Hierarchies, shelf: Shelf, name: str, directory: CgroupDir, vanished: list[str]
    ) -> None:
        self._shelf, self._vanished = shelf, vanished
        self._name = name
        self._directory = directory
        self._cgroup = CgroupReader(places, directory, shelf)
        self._last: Container | None = None
        self._fresh = True

    def find_psi(self, pod_directory: str | None, pod_cgroup: str) -> None:
        """Where its pressure is told, from where the pod's is."""
        if pod_directory is not None:
            tail = self._directory.path.removeprefix(pod_cgroup)
            self._cgroup.psi = PsiFiles(pod_directory + tail, self._shelf)

    def read(self, at: float, slow: bool, full: bool, moved: bool) -> Container | None:
        """The container now; None when it is gone, which is noted in `vanished`."""
        try:
            reading = self._cgroup.read(at, slow or self._fresh, full, moved)
        except Gone:
            self._vanished.append(self._directory.path)
            return None
        self._fresh = False
        if self._last is None or reading is not self._last.reading:
            self._last = Container(self._name, self._directory.path, self._directory.inode, reading)
        return self._last

    def throttled_us(self, at: float) -> int:
        """us that its own quota stopped it until `at`."""
        return self._cgroup.throttled_us(at)

    def still(self) -> bool:
        """True when it rests as at the last reading."""
        return not self._fresh and self._last is not None and self._cgroup.still()

    def close(self) -> None:
        self._cgroup.close()
