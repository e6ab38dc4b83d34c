"""One cgroup directory: cgroupspy's Controller and file interfaces, with I/O of our own.

cgroupspy opens and closes a file for each read, creates files that are missing when it writes, and lets
errno through. Here reads come from kept descriptors, a write is one write(2) to a file that exists, and
errors are those of the model.

Invariant: everything happens in the directory that was opened. A cgroup that is removed and made again
under the same name is never read or written by mistake: its old descriptors answer ENODEV or ENOENT.
"""

from __future__ import annotations

import errno
import math
import os
from typing import Any, Generic, NamedTuple, TypeVar, cast

from cgroupspy.controllers import Controller
from cgroupspy.interfaces import BaseFileInterface

from nodeagent.kernel.errno import translated
from nodeagent.model.errors import AgentError, Garbled, Gone, Refused, Unsupported
from nodeagent.model.plan import Kind, Value

MAX_DIGITS = 20  # of an unsigned 64-bit number

T = TypeVar("T")


class Directory(NamedTuple):
    """What cgroupspy's Controller wants to know of a node."""

    full_path: bytes


class Cgroup(Controller):
    """An open cgroup directory. Raises Gone, Refused or Unsupported; `close` it."""

    max_bytes = 256  # of one file: a line of at most two numbers
    controller = "cpu"

    def __init__(self, path: str) -> None:
        super().__init__(Directory(os.fsencode(path)))  # type: ignore[no-untyped-call]  # cgroupspy's
        self.path = path
        self._kept: dict[bytes, int] = {}
        self.parsed: dict[bytes, tuple[bytes, Any]] = {}  # Any: of each file another
        self.fresh = True  # read also what is `seldom` read
        try:
            self._dir = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise translated(error, path) from error
        self.inode = os.fstat(self._dir).st_ino

    @property
    def keeps(self) -> bool:
        """True while files are open: the next reading fails if the cgroup is gone."""
        return bool(self._kept)

    @property
    def alive(self) -> bool:
        """True when the path still leads to this directory."""
        return inode_of(self.path) == self.inode

    def get_property(self, filename: bytes) -> bytes:
        """The file's text, from a descriptor that is kept open."""
        try:
            kept = self._kept.get(filename)
            if kept is None:
                kept = self._kept[filename] = self._open(filename, os.O_RDONLY)
            return os.pread(kept, self.max_bytes, 0)
        except OSError as error:
            if error.errno != errno.ENOENT:
                self.drop_kept()  # ENODEV: the files may come back as others (v2 cgroup.subtree_control)
                self.parsed.clear()
            raise self._translated(error, filename) from error

    def set_property(self, filename: bytes, value: object) -> None:
        """Write str(value) with one write(2); the file must exist."""
        self.parsed.clear()  # the kernel may change other files with this one
        text = str(value).encode("ascii")
        try:
            # O_TRUNC matters to captured trees only; kernfs ignores it, and runc writes the same way
            descriptor = self._open(filename, os.O_WRONLY | os.O_TRUNC)
            try:
                os.write(descriptor, text)
            finally:
                os.close(descriptor)
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "?")
            raise self._translated(
                error, filename, f": writing {str(value).strip() or 'nothing'}: {name}"
            ) from error

    def drop_kept(self) -> None:
        """Close the files; they are opened again when they are read."""
        for descriptor in self._kept.values():
            os.close(descriptor)
        self._kept.clear()

    def filepath(self, filename: bytes) -> str:
        return f"{self.path}/{os.fsdecode(filename)}"

    def close(self) -> None:
        self.drop_kept()
        os.close(self._dir)

    def _open(self, filename: bytes, flags: int) -> int:
        return os.open(filename, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=self._dir)

    def _translated(self, error: OSError, filename: bytes, what: str = "") -> AgentError:
        path = self.filepath(filename)
        found = translated(error, path + what)
        if isinstance(found, Gone) and self.alive:
            hint = f"the {self.controller} controller may be off in this cgroup"
            return Unsupported(f"{path} does not exist", hint=hint)
        return found


class Found(NamedTuple):
    """One knob as it is, and what the kernel takes: `KnobReading` without what the agent remembers."""

    actual: Value
    scale: int = 1
    low: float = 0.0
    high: float = math.inf
    nested: bool = False
    has_idle: bool = False
    effective: str = ""
    burst: float = 0.0


class KnobCgroup(Cgroup):
    """A cgroup in the hierarchy of one controller, with that controller's knobs."""

    def read(self, kind: Kind) -> Found:
        """Unsupported when this cgroup has no such knob, else Gone, Garbled or Refused."""
        raise NotImplementedError

    def unset(self, kind: Kind) -> Found:
        """What holds in this cgroup while the controller is off in it; Unsupported where it cannot be."""
        raise Unsupported(f"{self.path} has no {kind.value}")

    def write(self, kind: Kind, value: Value) -> Value:
        """Set it; answers what was written. Refused when the kernel does not take it, else as for `read`."""
        raise NotImplementedError

    def _steps(self, value: float, scale: int, low: int, high: int) -> int:
        """`value` in units of 1/`scale`; Refused, without a try, when it is none of `low` to `high`."""
        steps = round(value * scale) if math.isfinite(value) else -1
        if not low <= steps <= high:
            limits = f"{low / scale:g}..{high / scale:g}"
            raise Refused(f"{self.path}: {value} is outside of {limits}; not written")
        return steps


def inode_of(path: str) -> int | None:
    """Inode of the directory at `path`; None when there is none. Refused when it may not be looked at."""
    try:
        return os.stat(path, follow_symlinks=False).st_ino
    except OSError as error:
        found = translated(error, path)
        if isinstance(found, Gone):
            return None
        raise found from error


class Interface(BaseFileInterface, Generic[T]):
    """A typed file of a Cgroup: `parse` and `render` are the dialect; text that does not fit is Garbled.

    `seldom`: what was read last is good enough while the cgroup need not be `fresh`.
    """

    def __init__(self, filename: str, *, seldom: bool = False) -> None:
        super().__init__(filename)  # type: ignore[no-untyped-call]  # cgroupspy's
        self._seldom = seldom

    def __get__(self, instance: Cgroup, owner: type[Cgroup]) -> T:
        last = instance.parsed.get(self.filename)
        if last is not None and self._seldom and not instance.fresh:
            return cast("T", last[1])
        data = instance.get_property(self.filename)
        if last is not None and last[0] == data:
            return cast("T", last[1])
        try:
            found = self.parse(data)
        except ValueError:
            path = instance.filepath(self.filename)
            raise Garbled(f"{path}: not what the kernel writes there: {data[:40]!r}") from None
        instance.parsed[self.filename] = data, found
        return found

    def __set__(self, instance: Cgroup, value: T) -> None:
        instance.set_property(self.filename, self.render(value))

    def parse(self, data: bytes) -> T:
        """The value that the text stands for; ValueError for any other text."""
        raise NotImplementedError

    def render(self, value: T) -> str:
        raise NotImplementedError

    # cgroupspy's names for the same, which Controller.get_content calls
    def sanitize_get(self, value: bytes) -> T:
        return self.parse(value)

    def sanitize_set(self, value: T) -> str:
        return self.render(value)


class Count(Interface[int]):
    """A non-negative number."""

    def parse(self, data: bytes) -> int:
        return count(data)

    def render(self, value: int) -> str:
        return str(value)


class Flag(Interface[bool]):
    """0 or 1."""

    def parse(self, data: bytes) -> bool:
        value = count(data)
        if value > 1:
            raise ValueError("not 0 or 1")
        return value == 1

    def render(self, value: bool) -> str:
        return str(int(value))


def count(data: bytes) -> int:
    """A number as the kernel prints it; ValueError for all that int() would take besides."""
    text = data.strip()
    if not text.isdigit() or len(text) > MAX_DIGITS:
        raise ValueError("not a number")
    return int(text)
