"""Walking through a journal, tick by tick, with one of two judges.

Invariant: a tick follows another only in the same run and with the next number; across anything else no
time passes and the memory is the recorded one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nodeagent.journal import read_segments
from nodeagent.model.decision import Tick
from nodeagent.model.errors import Failed
from nodeagent.model.policy import Policy
from nodeagent.replay.again import Again
from nodeagent.replay.answer import Replayed
from nodeagent.replay.troubles import Troubles
from nodeagent.replay.what_if import WhatIf


def replay(
    directory: Path | str, policy: Policy | None = None, progress: Callable[[int], None] | None = None
) -> Replayed:
    """Decide every tick in `directory` (a journal or a state directory with one) again.

    Without `policy` by the recorded one, and compare; with it, tell what would have been otherwise.
    `progress` gets the number of ticks done, every 100. Failed when there is nothing to replay.
    """
    directory = Path(directory)
    inside = directory / "journal"
    warnings: list[str] = []
    judge: Again | WhatIf = Again() if policy is None else WhatIf(policy)
    course, troubles = _Course(), Troubles()
    for segment in read_segments(inside if inside.is_dir() else directory, warnings.append):
        judge.begin(segment)
        for tick in segment.ticks():
            gap_s = course.step(segment.head.run, tick)
            judge.tick(tick, gap_s)
            troubles.tick(tick, gap_s)
            if progress is not None and course.ticks % 100 == 0:
                progress(course.ticks)
        course.segments += 1
    if course.last is None:
        raise Failed(f"{directory}: no tick can be read", "; ".join(warnings[:3]))
    troubles.end()
    return Replayed(
        ticks=course.ticks,
        segments=course.segments,
        first_unix=course.first_unix,
        last_unix=course.last.snapshot.unix,
        differing_count=judge.count if isinstance(judge, Again) else 0,
        differing=tuple(judge.listed) if isinstance(judge, Again) else (),
        otherwise=judge.answer() if isinstance(judge, WhatIf) else None,
        episode_count=troubles.count,
        episodes=tuple(troubles.listed),
        warnings=tuple(warnings),
    )


class _Course:
    """How far we are, and whether a tick follows the one before."""

    def __init__(self) -> None:
        self.ticks = 0
        self.segments = 0
        self.first_unix = 0.0
        self.last: Tick | None = None
        self._run = ""

    def step(self, run: str, tick: Tick) -> float | None:
        """Seconds since the tick that this one follows, None when it follows none."""
        last, same_run = self.last, run == self._run
        self.last, self._run = tick, run
        self.ticks += 1
        if last is None:
            self.first_unix = tick.snapshot.unix
            return None
        if not same_run or tick.snapshot.seq != last.snapshot.seq + 1:
            return None
        return max(0.0, tick.snapshot.at - last.snapshot.at)
