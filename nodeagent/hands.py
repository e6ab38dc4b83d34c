"""What acts on a decision: on the knobs of cgroups, on what systemd keeps of them, on pages and on NICs.

Invariant: an original value is on disk before its knob is written, and systemd is told only what is in there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from nodeagent.core.diff import diff
from nodeagent.host import Host
from nodeagent.keep import Keeper
from nodeagent.model.decision import Decision
from nodeagent.model.errors import Failed
from nodeagent.model.nic import Shaping
from nodeagent.model.pages import PageMove
from nodeagent.model.plan import Change, Kind, Knob, KnobReading, Outcome, Value
from nodeagent.model.settings import Actuator, Mode, actuator_of
from nodeagent.originals import Originals

LEAVE_AGAIN_S = 10.0  # until what could not be given back is tried again


class Hands(Protocol):
    """In the order in which a tick uses them."""

    @property
    def writes(self) -> bool:
        """Whether anything is done."""

    def look(self, readings: Iterable[KnobReading]) -> None:
        """A tick begins, with these values found."""

    def write(self, changes: Sequence[Change], decision: Decision) -> tuple[Outcome, ...]:
        """Write the changes in order, and have the network as it shall be; how each change went."""

    def move(self, moves: Sequence[PageMove], bytes_per_s: int) -> None:
        """Move these pages from now on, at most so many bytes per second."""

    def release(self, ends: Mapping[Knob, Value | None]) -> frozenset[Knob]:
        """Knobs that are no longer ours, with the value of who has them now; those that must stay ours."""

    def follow(self, outcomes: Iterable[Outcome]) -> None:
        """A tick's writes are done."""

    def thaw(self) -> None:
        """Let all go on that we have frozen: nobody knows any more whether they should be."""

    def shape(self, shaping: Shaping) -> None:
        """Between two ticks: the network as it shall be."""


class Idle:
    """Mode observe: the same loop, and nothing is done."""

    writes = False

    def look(self, readings: Iterable[KnobReading]) -> None: ...

    def write(
        self,
        changes: Sequence[Change],  # noqa: ARG002
        decision: Decision,  # noqa: ARG002
    ) -> tuple[Outcome, ...]:
        return ()

    def move(self, moves: Sequence[PageMove], bytes_per_s: int) -> None: ...

    def release(self, ends: Mapping[Knob, Value | None]) -> frozenset[Knob]:  # noqa: ARG002
        return frozenset()

    def follow(self, outcomes: Iterable[Outcome]) -> None: ...

    def thaw(self) -> None: ...

    def shape(self, shaping: Shaping) -> None: ...


class Acting:
    """Acts so that a crash at any instant can be undone: remember, write, confirm."""

    writes = True

    def __init__(
        self,
        host: Host,
        originals: Originals,
        keeper: Keeper,
        actuators: Collection[Actuator] = (Actuator.CPU,),
    ) -> None:
        self._host = host
        self._originals = originals
        self._keeper = keeper
        self._actuators = frozenset(actuators)
        self.look, self.follow, self.release = keeper.look, keeper.follow, keeper.release

    def write(self, changes: Sequence[Change], decision: Decision) -> tuple[Outcome, ...]:
        """NICs first: a change of theirs is written by making the whole network as it shall be."""
        told = self._network(decision, [change for change in changes if change.knob.kind.of_nic])
        mine = [c for c in changes if not c.knob.kind.of_nic and actuator_of(c.knob.kind) in self._actuators]
        return (*told, *self._write(mine))

    def move(self, moves: Sequence[PageMove], bytes_per_s: int) -> None:
        if Actuator.CPU in self._actuators:
            self._host.move(moves, bytes_per_s)

    def thaw(self) -> None:
        frozen = {knob: held for knob, held in self._originals.held.items() if knob.kind is Kind.FREEZE}
        if frozen:
            self._write(diff({}, self._host.knobs.read((), frozen)))

    def shape(self, shaping: Shaping) -> None:
        if self._host.network is not None:
            self._host.network.follow(shaping)

    def _network(self, decision: Decision, changes: Sequence[Change]) -> tuple[Outcome, ...]:
        network = self._host.network
        if network is None or decision.shaping is None:
            return ()
        network.set(decision.shaping, decision.yielded)
        return tuple(network.outcome(change) for change in changes)

    def _write(self, changes: Sequence[Change]) -> tuple[Outcome, ...]:
        """An original that cannot be made durable keeps its knob from being written; the others go on."""
        if not changes:
            return ()
        refused: tuple[Outcome, ...] = ()
        try:
            noted = self._originals.intend(changes, self._host.inode)
        except Failed as failed:
            held = self._originals.held
            refused = tuple(Outcome(c, None, str(failed)) for c in changes if c.knob not in held)
            noted = self._originals.intend([c for c in changes if c.knob in held], self._host.inode)
        self._keeper.begin(noted)
        self._keeper.release(dict.fromkeys(change.knob for change in noted if change.gives_back))
        outcomes = self._host.apply(noted)
        self._originals.confirm(outcomes)
        return outcomes + refused


class Directed:
    """Acting; but in ticks that only observe all is given back, once, and nothing is done.

    `leave` gives everything back and tells whether that is done; what is left is tried again later.
    """

    def __init__(self, acting: Acting, leave: Callable[[], bool]) -> None:
        self._acting = acting
        self._leave = leave
        self._idle = False
        self._leave_at = 0.0  # monotonic seconds; inf once all is given back
        self.look, self.follow, self.release = acting.look, acting.follow, acting.release
        self.thaw = acting.thaw

    @property
    def writes(self) -> bool:
        """False while a directive says so."""
        return not self._idle

    def write(self, changes: Sequence[Change], decision: Decision) -> tuple[Outcome, ...]:
        self._idle, was = decision.mode is Mode.OBSERVE, self._idle
        if not self._idle:
            return self._acting.write(changes, decision)
        if not was:
            self._leave_at = 0.0
        now = time.monotonic()
        if now >= self._leave_at:
            self._leave_at = math.inf if self._leave() else now + LEAVE_AGAIN_S
        return ()

    def move(self, moves: Sequence[PageMove], bytes_per_s: int) -> None:
        if not self._idle:
            self._acting.move(moves, bytes_per_s)

    def shape(self, shaping: Shaping) -> None:
        if not self._idle:
            self._acting.shape(shaping)
