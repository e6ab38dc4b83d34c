"""How long each LS pod waits for CPU, over at least a quarter of a second.

PSI "some" (Linux Documentation/accounting/psi.rst) where the pod has it. Where PSI is unsupported, the sum
of its threads' run-queue delays (/proc/PID/schedstat, Documentation/scheduler/sched-stats.rst): an upper
bound of "some", so the same threshold is never later. Throttled time is taken off: the kernel counts a
thread that its own quota stopped as waiting. Ticks that come early are short, and in a tenth of a second one
bad moment looks like pressure; so shares are of SPAN_S at least, and short ticks add up to it.
"""

from __future__ import annotations

from collections.abc import Mapping

from nodeagent.core.rates import PodRates, View
from nodeagent.model.decision import Wait
from nodeagent.model.pod import Qos
from nodeagent.model.snapshot import Pod

SPAN_S = 0.25


def add_up(view: View, last: Mapping[str, Wait]) -> dict[str, Wait]:
    """The waits of the LS pods after this tick, by uid; a pod whose wait is not known has none."""
    after = {}
    for p in view.pods:
        ratio, source = waited(p) if p.pod.spec.qos is Qos.LS else (None, "")
        if ratio is not None and view.dt_s is not None:
            before = last.get(p.pod.spec.uid)
            more = before is not None and before.span_s < SPAN_S and before.source == source
            span_s, waited_s = (before.span_s, before.waited_s) if before is not None and more else (0.0, 0.0)
            after[p.pod.spec.uid] = Wait(span_s + view.dt_s, waited_s + ratio * view.dt_s, source)
    return after


def ratio(wait: Wait) -> float:
    """Share of wall time spent waiting, within [0, 1]."""
    return min(1.0, wait.waited_s / max(wait.span_s, SPAN_S))


def totals(pod: Pod) -> tuple[int, int] | None:
    """us that the pod waited until now, and that its own quotas stopped it; None where that is not known."""
    now = pod.reading
    waited_us = now.run_delay_us if now.cpu_stall is None else now.cpu_stall.some_us
    own_us = (now.throttled_us or 0) + sum(c.reading.throttled_us or 0 for c in pod.containers)
    return None if waited_us is None else (waited_us, own_us)


def waited(p: PodRates) -> tuple[float | None, str]:
    """Share of this tick that the pod waited, None where not known, and what tells so."""
    own = p.throttled_ratio or 0.0
    if p.stall_ratio is not None:
        return min(1.0, max(0.0, p.stall_ratio - own)), "PSI cpu some"
    if p.run_delay_ratio is not None:
        return min(1.0, max(0.0, p.run_delay_ratio - own)), "run-queue delay"
    return None, ""
