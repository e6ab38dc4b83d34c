"""Dire need, in which small steps are skipped: a victim breaks its SLO, or all of it waits for memory."""

from __future__ import annotations

from msgspec.structs import replace

from nodeagent.core import apps
from nodeagent.core.interference.facts import Facts
from nodeagent.model.course import Case, FullStall

FULL_STALL_RATIO = 0.10  # share of wall time, PSI "full"
FULL_STALL_S = 2.0  # at least, between two readings


def felt(case: Case, facts: Facts) -> Case:
    """With the share of time for which all of the victim waited for memory, as often as that is read."""
    reading = facts.pods[case.uid].pod.reading
    stall, last = reading.memory_stall, case.memory_full
    if stall is None or stall.full_us is None or reading.slow_at is None:
        return case
    if last.at is None or stall.full_us < last.total_us:
        return replace(case, memory_full=FullStall(reading.slow_at, stall.full_us))
    passed_s = reading.slow_at - last.at
    if passed_s < FULL_STALL_S:
        return case
    ratio = (stall.full_us - last.total_us) / (passed_s * 1e6)
    return replace(case, memory_full=FullStall(reading.slow_at, stall.full_us, ratio))


def urgent(case: Case, facts: Facts) -> bool:
    """True while the victim is in dire need; what its application tells counts only while it is fresh."""
    if case.memory_full.ratio >= FULL_STALL_RATIO:
        return True
    left = apps.slack(facts.pods[case.uid].pod.app, facts.at)
    return left is not None and left < 0.0
