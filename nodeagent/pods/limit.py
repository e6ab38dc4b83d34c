"""What `nodeagent exec --cpu-limit` may be."""

from __future__ import annotations

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
