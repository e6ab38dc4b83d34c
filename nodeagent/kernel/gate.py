"""A parent's pressure, read each tick so that its children's need not be.

A stall counts in the cgroup and in all above it (Linux Documentation/accounting/psi.rst). Invariants: while
the gate is shut, no cgroup below it has stalled for memory or io since the last tick; while it is `calm`,
none has waited for CPU for longer than CALM_US. What cannot be read leaves it open, and not calm.
"""

from __future__ import annotations

from nodeagent.kernel.files import KeptFile, Shelf
from nodeagent.kernel.parse import stall
from nodeagent.model.snapshot import Stall

CALM_US = 20_000  # of a tick, in all pods below a gate together


class Gate:
    """`moved` and `calm` are since the last tick; True and False before the second reading."""

    __slots__ = ("_cpu", "_files", "_last", "_waited", "calm", "moved")

    def __init__(self, memory: str, io: str | None, cpu: str | None, shelf: Shelf) -> None:
        paths = (memory,) if io is None else (memory, io)
        self._files = tuple(KeptFile(path, stall, shelf, hot=True) for path in paths)
        self._cpu = None if cpu is None else KeptFile(cpu, stall, shelf, hot=True)
        self._last: tuple[Stall | None, ...] = ()
        self._waited: Stall | None = None
        self.moved, self.calm = True, False

    def read(self) -> None:
        now = tuple(file.value() for file in self._files)
        self.moved = None in now or now != self._last
        self._last = now
        if self._cpu is not None:
            before, after = self._waited, self._cpu.value()
            self._waited = after
            waited_us = -1 if before is None or after is None else after.some_us - before.some_us
            self.calm = 0 <= waited_us <= CALM_US

    def close(self) -> None:
        for file in self._files:
            file.close()
        if self._cpu is not None:
            self._cpu.close()


class Gates:
    """One gate per parent directory, and the node's own for pods whose pressure is told nowhere."""

    def __init__(self, proc: str, shelf: Shelf) -> None:
        self._shelf = shelf
        self._proc = proc
        self._gates: dict[str, Gate] = {}
        self.node = Gate(f"{proc}/pressure/memory", None, None, shelf)

    def over(self, directory: str) -> Gate:
        """The gate of the cgroup directory above this one; a new one is open in this tick."""
        parent = directory.rpartition("/")[0]
        if parent not in self._gates:
            memory, io, cpu = (f"{parent}/{kind}.pressure" for kind in ("memory", "io", "cpu"))
            self._gates[parent] = Gate(memory, io, cpu, self._shelf)
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
