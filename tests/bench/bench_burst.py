"""What bursts do for an LS pod with a CPU limit: time that it is stopped by its own quota, per CPU second.

The node must have room meanwhile: other work beside makes all of it mean nothing.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.bench.table import Figure, show
from tests.live.running import executed, running, throttling, unique, until, used_s

WORK = """
import time
while True:
    end = time.thread_time() + {work_s}
    while time.thread_time() < end:
        pass
    time.sleep({rest_s})
"""
POLICIES = {"no burst": (0, 1), "kernel burst": (1, 1), "kernel and quota burst": (1, 2)}
TIMEOUT_S = 120.0


class Work(NamedTuple):
    """Spells of `work_s` CPU time with rests between, below the limit on average; `sample_s` in all."""

    work_s: float
    rest_s: float
    limit_cores: float
    sample_s: float


SHORT = Work(0.018, 0.22, 0.1, 0.72)
LONG = Work(1.0, 8.0, 0.25, 2.0)


def main() -> bool:
    """Print the tables; True when all targets were held."""
    with tempfile.TemporaryDirectory(prefix="na-bench-") as directory:
        return all(
            [_compare(Path(directory), "short", SHORT, 0.5), _compare(Path(directory), "long", LONG, 0.7)]
        )


def _compare(home: Path, name: str, work: Work, most: float) -> bool:
    stopped = {}
    for number, (policy, values) in enumerate(POLICIES.items()):
        (home / f"{name}{number}").mkdir()
        stopped[policy] = _stopped_ratio(home / f"{name}{number}", work, values)
    none, _, both = stopped.values()
    figures = [Figure(policy, ratio, "s per CPU s") for policy, ratio in stopped.items()]
    return show(
        f"Stopped by a quota of {work.limit_cores:g} cores: spells of {work.work_s * 1e3:.0f} ms of CPU time",
        [*figures, Figure("with all bursts / without", both / max(none, 1e-9), "x", most)],
    )


def _stopped_ratio(home: Path, work: Work, policy: tuple[int, int]) -> float:
    """Throttled time per CPU time of a pod that works so, with these burst.kernel_ratio and max_ratio."""
    pod = unique("bench-burst")
    path = f"nodeagent/ls/{pod}"
    code = WORK.format(work_s=work.work_s, rest_s=work.rest_s)
    command = f"exec {sys.executable} -c '{code}'"
    limit = ("--cpu-limit", str(work.limit_cores))
    with (
        running(home, agent__tick_s=1, burst__kernel_ratio=policy[0], burst__max_ratio=policy[1]) as agent,
        executed(agent.runtime, "ls", pod, command, *limit),
    ):
        until(lambda: used_s(path) > 0.1, "it works", TIMEOUT_S)
        used, before = used_s(path), throttling(path)[1]
        until(lambda: used_s(path) - used >= work.sample_s, "its work", TIMEOUT_S)
        return (throttling(path)[1] - before) / (used_s(path) - used)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
