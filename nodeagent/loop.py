"""The loop: read, decide, diff, write, record, report; then wait. The only place that catches everything.

Ticks are due at fixed times (a late one does not shift the next) and come early when the fast lane, a PSI
trigger or a new cgroup says so. A node that cannot be read skips the tick: nothing is changed but that nobody
stays frozen, and the old offer runs out.
"""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from msgspec.structs import replace

from nodeagent.core import nic, rise, surge, tidied
from nodeagent.core.attention import attended
from nodeagent.core.decide import decide
from nodeagent.core.diff import diff, left_alone
from nodeagent.hands import Hands
from nodeagent.host import Host
from nodeagent.model.decision import Decision, Memory, Tick
from nodeagent.model.directive import DirectiveStatus, Refusal
from nodeagent.model.errors import AgentError, Failed
from nodeagent.model.nic import KnownNic, Shaping
from nodeagent.model.placement import Tidied
from nodeagent.model.plan import Change, Knob, KnobReading, Plan, Setting
from nodeagent.model.pod import PodRule
from nodeagent.model.policy import Policy
from nodeagent.model.settings import Mode
from nodeagent.model.snapshot import Snapshot
from nodeagent.originals import Originals

EARLY_GAP_S = 0.1  # early ticks come at most this often
VAIN_GAP_S = 1.0  # those that pressure calls for, where the last one could not cut Batch
PRESSURE, USE, TRIGGER = "pressure", "use", "psi"  # what calls for an early tick because Batch is in the way


class Wish(Protocol):
    """Somebody waits for a defragmentation, or with `dry_run` to be told what it would do."""

    dry_run: bool

    def answer(self, done: Tidied) -> None:
        """It was tried; called once, in the loop's own thread: it must not wait for anybody."""


class Asked(Protocol):
    """The directives of controllers; nothing of it waits."""

    def news(self) -> tuple[tuple[DirectiveStatus, ...], tuple[Refusal, ...]]:
        """What is in force or has ended since the last call, and what was refused."""

    def fileno(self) -> int:
        """Readable once a directive was taken, until `drain`."""

    def drain(self) -> None: ...


class Listener(Protocol):
    """Who is told of every turn, in the loop's own thread: it must not wait for anybody."""

    def ticked(self, tick: Tick, policy: Policy, memory_before: Memory, duration_s: float) -> None:
        """A tick is complete; `policy` and `memory_before` are what it was decided with."""

    def skipped(self, error: AgentError) -> None:
        """The node could not be read; nothing was decided."""


class Loop:
    """One loop over one host; `wishes` tells what was wished since the last tick, `asked` the directives."""

    def __init__(  # noqa: PLR0913  # one for each part
        self,
        host: Host,
        originals: Originals,
        hands: Hands,
        *,
        policy: Policy,
        memory: Memory,
        listener: Listener,
        wishes: Callable[[], Sequence[Wish]] = tuple,
        asked: Asked | None = None,
    ) -> None:
        self.policy = policy
        self.memory = memory
        self._host = host
        self._originals = originals
        self._hands = hands
        self._listener = listener
        self._wishes = wishes
        self._asked = asked
        self._configured = Mode.ENFORCE if hands.writes else Mode.OBSERVE
        self._seq = 0
        self._compared: tuple[object, ...] = ()  # what `_differences` are of
        self._differences: tuple[Change, ...] = ()
        self._polled: tuple[dict[int, int], select.poll] = {}, select.poll()  # the last that was waited on
        self._shaping: Shaping | None = None  # as of the last tick or beat
        self._nics: dict[str, KnownNic] = {}
        self._directed: tuple[str, ...] = ()
        self._soon = False  # the last look, on time, has seen something begin
        self._quiet_until = 0.0  # an early tick could do nothing: no look before this time
        self.at_work = False  # the last wait was for something else as well, which took its time

    def tick(self, woken_by: str) -> Tick | None:
        """One turn. None when the node could not be read: then nothing was decided, and only thawed."""
        began = time.monotonic()
        try:
            snapshot = self._host.read(self._seq, self._originals.held, woken_by)
        except (AgentError, OSError) as error:
            self._host.forget_scan()
            self._hands.thaw()
            self._quiet_until = began + VAIN_GAP_S
            told = error if isinstance(error, AgentError) else Failed(f"cannot read the node: {error}")
            self._listener.skipped(told)
            return None
        of_cgroups = snapshot.knobs
        if snapshot.nics is not None:  # of theirs nothing is remembered
            of_cgroups = tuple(r for r in of_cgroups if not r.knob.kind.of_nic)
        self._originals.recognise(of_cgroups, self._host.inode)
        self._hands.look(of_cgroups)
        self._seq += 1
        before = self.memory
        wishes = self._wishes()
        snapshot = self._told(snapshot, any(not wish.dry_run for wish in wishes))
        decision, self.memory = decide(snapshot, self.policy, before)
        self._host.attend(attended(decision.interference, snapshot.pods))
        plan = {s.knob: s for s in decision.plan}
        changes = self._changes(decision, plan, snapshot.knobs)
        tick = Tick(snapshot, decision, changes, self._hands.write(changes, decision))
        self._shaping, self._nics = decision.shaping, self.memory.nics
        self._directed = decision.interference.directed
        if woken_by in (PRESSURE, USE, TRIGGER) and not surge.lowered(before.batch, self.memory.batch):
            self._quiet_until = began + VAIN_GAP_S
        self._host.restrain(decision.interference.restraints)
        self._hands.move(decision.moves, self.policy.numa.migrate_bytes_per_s)
        self._forget_others(of_cgroups, plan, decision.yielded)
        self._hands.follow(tick.outcomes)
        self._listener.ticked(tick, self.policy, before, time.monotonic() - began)
        came = {dry_run: self._came_of(dry_run, tick, before) for dry_run in {w.dry_run for w in wishes}}
        for wish in wishes:
            wish.answer(came[wish.dry_run])
        return tick

    @property
    def beat_s(self) -> float:
        """Time until NICs want to be looked at again, also between ticks; inf where none is shaped."""
        return math.inf if self._shaping is None else nic.beat_s(self._shaping, self._nics, self.policy)

    def beat(self) -> None:
        """Between ticks: Batch's ceilings after one more look at the NICs."""
        network, shaping = self._host.network, self._shaping
        if network is None or shaping is None:
            return
        sample = network.sample(time.monotonic())
        shaping, self._nics = nic.beaten(sample, shaping, self.policy, self._nics, network.support)
        self._hands.shape(shaping)
        self._shaping = shaping

    @property
    def look_s(self) -> float:
        """Time to the next look of the fast lane; inf while it is off, or Batch has nothing left to lose."""
        if not self._host.fast_lane_s or not surge.to_lose(self.memory, self.policy):
            return math.inf
        pause_s = self._host.fast_lane_s * (surge.HINT if self._soon else 1.0)
        return max(pause_s, self._quiet_until - time.monotonic())

    def look(self) -> str:
        """Between ticks: why Batch shall be cut now, "" while it need not."""
        at, memory = time.monotonic(), self.memory
        if at < self._quiet_until or not surge.to_lose(memory, self.policy):
            return ""
        stalled, outside_cores = self._host.look(at)
        on_time, self._soon = not self._soon, False
        if surge.just_cut(at, memory):
            return ""
        if surge.worth_a_tick(stalled, memory, self._directed, self.policy):
            return PRESSURE
        if rise.worth_a_tick(outside_cores, memory):
            return USE
        hint = surge.worth_a_tick(stalled, memory, self._directed, self.policy, surge.HINT)
        self._soon = on_time and (hint or rise.worth_a_tick(outside_cores, memory, surge.HINT))
        return ""

    def wait(self, until: float, signals: int) -> str:
        """Sleep until the monotonic time `until`, or until something calls for an early tick; says what.

        When the descriptor `signals` is readable it returns "signal" at once.
        """
        earliest = min(until, time.monotonic() + EARLY_GAP_S)
        reason, self.at_work = "", False
        while (left_s := (earliest if reason else until) - time.monotonic()) > 0:
            fds = {signals: select.POLLIN}
            if not reason:
                fds |= self._host.wake_fds()
                if self._asked is not None:
                    fds[self._asked.fileno()] = select.POLLIN
            for fd, events in self._poll(fds).poll(left_s * 1000):
                if fd == signals:
                    return "signal"
                self.at_work = True
                reason = self._woken(fd, events) or reason
            if reason == TRIGGER and self._host.fast_lane_s:
                return reason
        return reason or "timer"

    def take(self, policy: Policy, rules: tuple[PodRule, ...], fast_lane_s: float) -> None:
        """Go on with another policy, other pod rules and looks from the next tick on."""
        self.policy = policy
        self._host.rules, self._host.policy, self._host.fast_lane_s = rules, policy, fast_lane_s
        self._host.forget_scan()

    def _changes(
        self, decision: Decision, plan: Mapping[Knob, Setting], knobs: tuple[KnobReading, ...]
    ) -> tuple[Change, ...]:
        """What is to be written; where all is as in the last tick, that is as well."""
        given = (decision.plan, knobs, decision.yielded)
        if given != self._compared:
            self._compared, self._differences = given, diff(plan, knobs, decision.yielded)
        return self._differences

    def _told(self, snapshot: Snapshot, defragment: bool) -> Snapshot:
        """With what people and controllers ask for."""
        statuses, refused = ((), ()) if self._asked is None else self._asked.news()
        return replace(
            snapshot, defragment=defragment, directives=statuses, refused=refused, mode=self._configured
        )

    def _poll(self, fds: dict[int, int]) -> select.poll:
        if fds != self._polled[0]:
            self._polled = fds, select.poll()
            for fd, events in fds.items():
                self._polled[1].register(fd, events)
        return self._polled[1]

    def _woken(self, fd: int, events: int) -> str:
        if self._asked is None or fd != self._asked.fileno():
            reason = self._host.woken(fd, events)
            in_vain = reason == TRIGGER and self._host.fast_lane_s and not self.look()
            return "" if in_vain else reason
        self._asked.drain()
        return "directive"

    def _came_of(self, dry_run: bool, tick: Tick, before: Memory) -> Tidied:
        done = tidied.effect(tick.snapshot, self.policy, before, dry_run=dry_run)
        if dry_run:
            return done
        errors = tuple(outcome.error for outcome in tick.outcomes if outcome.error)
        return replace(done, errors=errors, written=self._hands.writes)

    def _forget_others(
        self, readings: tuple[KnobReading, ...], plan: Plan, yielded: Collection[Knob]
    ) -> None:
        """What is gone, and what nobody here wants any more and somebody else has changed: it is theirs."""
        theirs = {r.knob: r.actual for r in left_alone(plan, readings) if r.knob not in yielded}
        read = {r.knob for r in readings}
        missing = {knob: held for knob, held in self._originals.held.items() if knob not in read}
        ends = {**dict.fromkeys(self._host.vanished(missing) if missing else ()), **theirs}
        if ends:
            kept = self._hands.release(ends)
            self._originals.forget(knob for knob in ends if knob not in kept)
