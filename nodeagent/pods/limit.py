"""The CPU limit of a pod that `nodeagent exec` makes: its cgroup's quota, before anything runs there."""

from __future__ import annotations

from nodeagent.kernel.mounts import Hierarchies
from nodeagent.model.errors import Failed
from nodeagent.pods.claims import MAX_CORES

MIN_CORES = 0.01  # 1000 us of a period of 100 ms, the kernel's least quota


def check_limit(cpus: float | None, limit: float | None) -> None:
    """Failed, as for wrong usage, for a `limit` (cores) that cannot be one or is below the request `cpus`."""
    wrong = None
    if limit is not None and not MIN_CORES <= limit <= MAX_CORES:
        hint = f"at least {MIN_CORES}, at most {MAX_CORES:.0f}"
        wrong = Failed(f"--cpu-limit {limit}: not a number of cores that can be a limit", hint)
    elif limit is not None and cpus is not None and cpus > limit:
        hint = "a limit is at least the request"
        wrong = Failed(f"--cpu-limit {limit:g} is below --cpus {cpus:g}", hint)
    if wrong is not None:
        wrong.exit_code = 2
        raise wrong


def set_limit(hierarchies: Hierarchies, cgroup: str, cores: float | None) -> None:
    """Give a new cgroup this quota, None: none. Refused when it cannot have it."""
    if cores is not None:
        from nodeagent.kernel.knobs import limit_cpu  # those without a limit start faster

        limit_cpu(hierarchies, cgroup, cores)
