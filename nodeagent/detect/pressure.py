"""An LS pod waits for CPU for more than its share of wall time, and not because of its own limit.

PSI "some" (Linux Documentation/accounting/psi.rst) where the pod has it. Where PSI is unsupported, the sum
of its threads' run-queue delays (/proc/PID/schedstat, Documentation/scheduler/sched-stats.rst): an upper
bound of "some", so the same threshold is never later. Throttled time is taken off: the kernel counts a
thread that its own quota stopped as waiting.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.core.limit import LS_PRESSURE
from nodeagent.core.rates import PodRates, View
from nodeagent.model.decision import Condition
from nodeagent.model.pod import Qos
from nodeagent.model.policy import Policy


def detect(view: View, policy: Policy) -> Iterator[Condition]:
    """Yield one condition per LS pod that is hurt; level = share of wall time in [0, 1]."""
    for p in view.pods:
        if p.pod.spec.qos is not Qos.LS:
            continue
        waited, source = _waited(p)
        busy_enough = p.cores is None or p.cores >= policy.pressure.min_usage_cores
        if waited is not None and waited > policy.pressure.ls_cpu_stall_ratio and busy_enough:
            name = p.pod.spec.name
            yield Condition(
                LS_PRESSURE, p.pod.spec.uid, waited, f"{name} waits {waited:.0%} of the time ({source})"
            )


def _waited(p: PodRates) -> tuple[float | None, str]:
    own = p.throttled_ratio or 0.0
    if p.stall_ratio is not None:
        return min(1.0, max(0.0, p.stall_ratio - own)), "PSI cpu some"
    if p.run_delay_ratio is not None:
        return min(1.0, max(0.0, p.run_delay_ratio - own)), "run-queue delay"
    return None, ""
