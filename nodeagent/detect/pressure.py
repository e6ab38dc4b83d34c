"""An LS pod waits for CPU for more than its share of wall time, and not because of its own limit."""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.core import waits
from nodeagent.core.limit import LS_PRESSURE
from nodeagent.core.scene import Sight
from nodeagent.model.decision import Condition
from nodeagent.model.policy import Policy


def detect(sight: Sight, policy: Policy) -> Iterator[Condition]:
    """Yield one condition per LS pod that is hurt; level = share of wall time in [0, 1]."""
    for p in sight.view.pods:
        wait = sight.waits.get(p.pod.spec.uid)
        level = 0.0 if wait is None else waits.ratio(wait)
        if wait is not None and level > policy.pressure.ls_cpu_stall_ratio:
            name = p.pod.spec.name
            told = f"{name} waits {level:.0%} of the time ({wait.source})"
            yield Condition(LS_PRESSURE, p.pod.spec.uid, level, told)
