"""Deciding recorded ticks by their recorded policy: the same in must give the same out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from nodeagent.core.decide import decide
from nodeagent.core.diff import diff
from nodeagent.journal import Segment
from nodeagent.model.decision import Memory, Tick
from nodeagent.model.plan import one_owner
from nodeagent.model.policy import Policy
from nodeagent.replay.answer import LISTED, Difference
from nodeagent.replay.compare import differences

FIELDS = 3  # named for one tick


class Again:
    """Counts the ticks whose decision or changes differ from the recorded ones and lists the first."""

    def __init__(self) -> None:
        self.count = 0
        self.listed: list[Difference] = []
        self._segment = ""
        self._policy = Policy()
        self._memory = Memory()
        self._recorded: Memory | None = None  # a new segment's, until its first tick

    def begin(self, segment: Segment) -> None:
        """The next ticks are from this segment."""
        self._segment = segment.name
        self._policy, self._recorded = segment.head.policy, segment.head.memory

    def tick(self, tick: Tick, gap_s: float | None) -> None:
        """Judge one tick; `gap_s` is None when it does not follow the one before."""
        wrong = list(islice(self._wrong(tick, gap_s is not None), FIELDS + 1))
        if not wrong:
            return
        self.count += 1
        if len(self.listed) < LISTED:
            what = "; ".join(wrong[:FIELDS]) + ("; …" if len(wrong) > FIELDS else "")
            self.listed.append(Difference(tick.snapshot.seq, tick.snapshot.unix, self._segment, what))

    def _wrong(self, tick: Tick, follows: bool) -> Iterator[str]:
        if self._recorded is not None:
            # a run has one memory: what the last segment led to is what this one began with
            if follows:
                yield from differences(self._recorded, self._memory, "memory")
            self._memory, self._recorded = self._recorded, None
        decision, self._memory = decide(tick.snapshot, self._policy, self._memory)
        yield from differences(tick.decision, decision, "decision")
        changes = diff(one_owner(decision.plan), tick.snapshot.knobs, decision.yielded)
        yield from differences(tick.changes, changes, "changes")
