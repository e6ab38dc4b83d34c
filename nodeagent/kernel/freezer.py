"""Stopping all processes of a cgroup and letting them go on.

    v2  cgroup.freeze    Linux kernel commit 76f969e8948d ("cgroup: cgroup v2 freezer") (in v5.2)
    v1  freezer.state    Linux Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst

v2's needs no controller, so it is the one on a hybrid node, too: what it has frozen can still be killed, what
v1's has cannot. The value is what was asked of this very cgroup: while that is pending (v1: FREEZING) it is
the same already, and what a cgroup around asks is not told.

Invariant: a cgroup without processes cannot be frozen, nor the one that this process is in.
"""

from __future__ import annotations

import os
import re

from nodeagent.kernel.cgroup import Flag, Found, Interface, KnobCgroup
from nodeagent.kernel.files import read_whole
from nodeagent.model.errors import AgentError, Refused, Unsupported
from nodeagent.model.plan import Kind, Value, numeric

MAX_PROCS_BYTES = 4 << 20
_POPULATED = re.compile(rb"^populated ([01])$", re.MULTILINE)


class Populated(Interface[bool]):
    """The "populated" line of cgroup.events."""

    def parse(self, data: bytes) -> bool:
        if (found := _POPULATED.search(data)) is None:
            raise ValueError("no such line")
        return found[1] == b"1"


class State(Interface[bool]):
    """freezer.state; True for what is frozen or about to be."""

    def parse(self, data: bytes) -> bool:
        return data.strip() != b"THAWED"

    def render(self, value: bool) -> str:
        return "FROZEN" if value else "THAWED"


class FreezerCgroup(KnobCgroup):
    """What the two dialects share."""

    controller = "freezer"

    def read(self, kind: Kind) -> Found:
        """Unsupported when this cgroup has no such knob, else Gone, Garbled or Refused."""
        if kind is not Kind.FREEZE:
            raise Unsupported(f"{self.path} has no {kind.value}")
        frozen, inhabited = self._asked()
        return Found(float(frozen), high=float(frozen or inhabited))

    def write(self, kind: Kind, value: Value) -> Value:  # noqa: ARG002  # it has one knob
        """Freeze (1.0) or thaw (0.0). Refused, without a try, for the cgroup of this process."""
        frozen = numeric(value) == 1.0
        if frozen and any(os.getpid() in pids for pids in self._processes()):
            raise Refused(f"{self.path}: the agent itself is in it; not frozen")
        self._ask(frozen)
        return value

    def _asked(self) -> tuple[bool, bool]:
        """Whether it is to be frozen, and whether there is anybody in it."""
        raise NotImplementedError

    def _ask(self, frozen: bool) -> None:
        raise NotImplementedError

    def _processes(self) -> list[set[int]]:
        """Of this cgroup and of each one in it."""
        return [_pids(f"{directory}/cgroup.procs") for directory, _, _ in os.walk(self.path)]


class FreezerV1(FreezerCgroup):
    """The freezer controller of one v1 cgroup."""

    state = State("freezer.state")
    parent_freezing = Flag("freezer.parent_freezing")
    self_freezing = Flag("freezer.self_freezing")

    def _asked(self) -> tuple[bool, bool]:
        frozen = self.state
        if frozen and self._within_frozen():
            frozen = self.self_freezing
        return frozen, frozen or any(self._processes())

    def _within_frozen(self) -> bool:
        try:
            return self.parent_freezing
        except Unsupported:  # Linux before 3.9
            return False

    def _ask(self, frozen: bool) -> None:
        self.state = frozen


class FreezerV2(FreezerCgroup):
    """The freezer of one v2 cgroup; not of the root, which has none."""

    freeze = Flag("cgroup.freeze")
    populated = Populated("cgroup.events")

    def _asked(self) -> tuple[bool, bool]:
        return self.freeze, self.populated

    def _ask(self, frozen: bool) -> None:
        self.freeze = frozen


def _pids(path: str) -> set[int]:
    try:
        return {int(word) for word in read_whole(path, MAX_PROCS_BYTES).split()}
    except (AgentError, ValueError):  # it has just gone, or is threaded and lists nobody
        return set()
