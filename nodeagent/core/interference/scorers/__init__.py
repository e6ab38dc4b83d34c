"""Scorers: functions from a window to one score per row of use; a new one is a file and an entry here.

All rank; which of them a name depends on is in `suspects`. `cpi2` is there for comparison alone.
"""

from __future__ import annotations

from collections.abc import Callable

from nodeagent.core.interference.frame import Frame
from nodeagent.core.interference.scorers.amplitude_free import amplitude_free
from nodeagent.core.interference.scorers.cpi2 import cpi2
from nodeagent.core.interference.scorers.joint import joint
from nodeagent.core.interference.scorers.lift import lift
from nodeagent.core.interference.scorers.shifts import shifts

Scorer = Callable[[Frame], tuple[float, ...]]

SCORERS: tuple[Scorer, ...] = (cpi2, amplitude_free, lift, joint, shifts)
