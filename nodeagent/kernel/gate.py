"""A parent's memory and io pressure, read each tick so that its children's need not be.

Invariant: while the gate is shut, no cgroup below it has stalled since the last tick (a stall counts in the
cgroup and in all above it; Linux Documentation/accounting/psi.rst). What cannot be read leaves it open.
"""

from __future__ import annotations

from nodeagent.kernel.files import KeptFile, Shelf
from nodeagent.kernel.parse import stall
from nodeagent.model.snapshot import Stall


class Gate:
    """`moved`: since the last tick. It is True before the first reading."""

    __slots__ = ("_files", "_last", "moved")

    def __init__(self, memory: str, io: str | None, shelf: Shelf) -> None:
        paths = (memory,) if io is None else (memory, io)
        self._files = tuple(KeptFile(path, stall, shelf, hot=True) for path in paths)
        self._last: tuple[Stall | None, ...] = ()
        self.moved = True

    def read(self) -> None:
        now = tuple(file.value() for file in self._files)
        self.moved = None in now or now != self._last
        self._last = now

    def close(self) -> None:
        for file in self._files:
            file.close()


class Gates:
    """One gate per parent directory, and the node's own for pods whose pressure is told nowhere."""

    def __init__(self, proc: str, shelf: Shelf) -> None:
        self._shelf = shelf
        self._proc = proc
        self._gates: dict[str, Gate] = {}
        self.node = Gate(f"{proc}/pressure/memory", None, shelf)

    def over(self, directory: str) -> Gate:
        """The gate of the cgroup directory above this one; a new one is open in this tick."""
        parent = directory.rpartition("/")[0]
        if parent not in self._gates:
            self._gates[parent] = Gate(f"{parent}/memory.pressure", f"{parent}/io.pressure", self._shelf)
        return self._gates[parent]

    def read(self) -> None:
        self.node.read()
        for gate in self._gates.values():
            gate.read()

    def keep_only(self, directories: set[str]) -> None:
        """Close the gates that lead to none of these directories."""
        parents = {directory.rpartition("/")[0] for directory in directories}
        for parent in self._gates.keys() - parents:
            self._gates.pop(parent).close()

    def close(self) -> None:
        self.keep_only(set())
        self.node.close()
