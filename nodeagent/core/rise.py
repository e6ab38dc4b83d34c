"""Online work that rises into what Batch may use, before the next tick is due.

Where Batch runs idle (SCHED_IDLE) online work takes the CPUs from it at once and waits for nothing, so no
pressure tells; Batch's quota has to follow all the same. What the node spends outside Batch is looked at with
the pressure, over MOMENT_S: a longer time would tell of the begin of a surge as of a small one. Only a rise
by RISE_RATIO of the node above the most of `cpu.window_s` counts: a moment varies more than a second.

Invariant: it only ever adds to what online work uses.
"""

from __future__ import annotations

from nodeagent.core.surge import Trail
from nodeagent.core.usage import NODE
from nodeagent.model.decision import Memory

RISE_RATIO = 0.25
MOMENT_S = 0.1

Window = tuple[tuple[float, float], ...]  # (monotonic seconds, cores)


def outside_cores(trail: Trail) -> float | None:
    """Cores used outside Batch in the last moment, over MOMENT_S at least; None before the second look."""
    if len(trail) < 2:
        return None
    *before, now = trail
    start = next((look for look in reversed(before) if now.at - look.at >= MOMENT_S), trail[0])
    return max(0, now.waited_us - start.waited_us) / 1e6 / max(now.at - start.at, MOMENT_S)


def most_cores(window: Window, outside: float | None, system: float | None, total: int) -> float | None:
    """The most that online work used in the window, or uses now where that has risen; None: not known.

    It is not remembered: with the next whole tick it shows who it was, an online pod or the system.
    """
    most = max((cores for _, cores in window), default=None)
    if outside is None or system is None or most is None:
        return most
    online = outside - system
    return online if _risen(online, most, total) else most


def worth_a_tick(outside: float | None, memory: Memory, part: float = 1.0) -> bool:
    """Online use has risen by `part` of what counts, and Batch's limit and it are more than the node has."""
    seen, limit, system = memory.previous, memory.batch.cores, memory.known.get(NODE)
    if outside is None or seen is None or limit is None or system is None or system.cpu_cores is None:
        return False
    total = seen.topology.cores
    most = max((cores for _, cores in memory.online_cores), default=None)
    risen = most is not None and _risen(outside - system.cpu_cores, most, part * total)
    return risen and outside + limit > total


def _risen(online: float, most: float, total: float) -> bool:
    return online > most + RISE_RATIO * total
