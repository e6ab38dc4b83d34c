"""What a cgroup reads from and writes to each block device, with all that is below it.

    v1   blkio.throttle.io_service_bytes_recursive, io_serviced_recursive; older kernels: not _recursive
    v2   io.stat

Buffered writes are the cgroup's own on v2 alone; on v1 the kernel's flusher does them, and nobody is charged.
Where v1 counts nothing at all (see process_io), the root's file names no device either.
Invariant: only whole devices that are neither loop devices nor memory, ordered by name.
"""

from __future__ import annotations

import re

from nodeagent.kernel.files import KeptFile, Shelf, inside
from nodeagent.kernel.mounts import Hierarchies
from nodeagent.kernel.parse import MAX_NUMBER
from nodeagent.model.symptom import DeviceUse

_Counts = dict[str, int]
_RETRY = 16  # readings until a file that was not there is looked for again
_IN_MEMORY = frozenset({"1", "7"})  # majors of ram and loop (Linux Documentation/admin-guide/devices.txt)
_V1 = re.compile(rb"^(\d{1,4}:\d{1,7}) (?:Read|Write) (\d{1,19})$", re.MULTILINE)
_V1_TEXT = re.compile(rb"(?:\d+:\d+ [A-Z][a-z]+ \d+\n)*Total \d+\n")
_N = rb"(\d{1,19})"
_V2 = re.compile(
    rb"(\d{1,4}:\d{1,7}) rbytes=" + _N + rb" wbytes=" + _N + rb" rios=" + _N + rb" wios=" + _N + rb"(?: |$)",
    re.MULTILINE,
)
_V2_TEXT = re.compile(rb"(?:\d+:\d+ [^\n]*\n)*")


class Counting:
    """Whether the kernel counts by cgroup at all, as the root of the hierarchy tells."""

    def __init__(self, places: Hierarchies, shelf: Shelf) -> None:
        found = places.roots.get("io") or places.roots.get("blkio")
        self._always = found is not None and found.version == 2
        root = None if found is None else found.root
        names = ("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes")
        self._files = tuple([KeptFile(inside(root, name), blkio, shelf) for name in names])

    def read(self) -> bool:
        """True when what a cgroup's file says is what the cgroup did."""
        return self._always or any(file.value() for file in self._files)

    def close(self) -> None:
        for file in self._files:
            file.close()


class BlockFiles:
    """One cgroup's, at `cgroup` below the hierarchy of blkio or io."""

    __slots__ = ("_asked", "_directory", "_files", "_last", "_parts", "_shelf", "_version")

    def __init__(self, places: Hierarchies, cgroup: str, shelf: Shelf) -> None:
        found = places.roots.get("io") or places.roots.get("blkio")
        self._version = 0 if found is None else found.version
        self._directory = None if found is None else f"{found.root}/{cgroup}"
        self._shelf = shelf
        self._files = self._opened("_recursive")
        self._asked = 0
        self._parts: tuple[object, ...] = ()
        self._last: tuple[DeviceUse, ...] | None = None

    @property
    def absent(self) -> bool:
        """True when the last reading found no such file."""
        return self._version == 0 or any(file.absent for file in self._files)

    def read(self) -> tuple[DeviceUse, ...] | None:
        """Bytes and operations by device; None where they are not told."""
        if self._version == 0:
            return None
        self._look_again()
        parts = tuple([file.value() for file in self._files])
        if len(parts) != len(self._parts) or any(a is not b for a, b in zip(parts, self._parts, strict=True)):
            self._parts, self._last = parts, _uses(parts)
        return self._last

    def close(self) -> None:
        for file in self._files:
            file.close()

    def _look_again(self) -> None:
        """Where a file is not there, try the older name, and later the newer one again."""
        if not self.absent:
            return
        self._asked += 1
        if self._asked == 1 or self._asked % _RETRY == 0:
            self.close()
            older = self._version == 1 and self._files[0].path.endswith("_recursive")
            self._files = self._opened("" if older else "_recursive")

    def _opened(self, suffix: str) -> tuple[KeptFile[_Counts] | KeptFile[tuple[_Counts, _Counts]], ...]:
        if self._version == 2:
            return (KeptFile(inside(self._directory, "io.stat"), io_stat, self._shelf),)
        names = (f"blkio.throttle.io_{what}{suffix}" for what in ("service_bytes", "serviced"))
        return tuple([KeptFile(inside(self._directory, name), blkio, self._shelf) for name in names])


def blkio(raw: bytes) -> _Counts | None:
    """Reads and writes by device in a blkio.throttle file (Linux Documentation/admin-guide/cgroup-v1)."""
    if _V1_TEXT.fullmatch(raw) is None:
        return None
    found: _Counts = {}
    for device, count in _V1.findall(raw):
        name = device.decode()
        found[name] = found.get(name, 0) + int(count)
    return found


def io_stat(raw: bytes) -> tuple[_Counts, _Counts] | None:
    """Bytes and operations by device in io.stat (Linux Documentation/admin-guide/cgroup-v2.rst)."""
    if _V2_TEXT.fullmatch(raw) is None:
        return None
    found = _V2.findall(raw)
    return (
        {device.decode(): int(read) + int(written) for device, read, written, _, _ in found},
        {device.decode(): int(reads) + int(writes) for device, _, _, reads, writes in found},
    )


def _uses(parts: tuple[object, ...]) -> tuple[DeviceUse, ...] | None:
    pair = parts[0] if len(parts) == 1 else parts
    if not isinstance(pair, tuple):
        return None
    sizes, counts = pair
    if sizes is None or counts is None:
        return None
    return tuple(
        DeviceUse(device, sizes[device], counts[device])
        for device in sorted(sizes.keys() & counts.keys())
        if device.partition(":")[0] not in _IN_MEMORY and max(sizes[device], counts[device]) <= MAX_NUMBER
    )
