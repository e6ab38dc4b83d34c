"""The whole agent on some pods for a while: `nodeagent run` as it is, 1 s ticks, with journal and clients."""

from __future__ import annotations

import time
from pathlib import Path

from msgspec import Struct
from msgspec.structs import fields

from nodeagent.model.settings import AgentSettings
from tests.bench.cost import clock, watched
from tests.live.running import running

WARM_S = 13.0  # the slow tier has come round twice: it is known who rests
SCRAPE_EVERY_S = 10.0


class Whole(Struct, frozen=True):
    """What it used in `seconds`: a share of one core, memory at the end, and how often it ticked."""

    cpu_ratio: float
    ticks: float
    seconds: float
    resident_mib: float
    kernel_mib: float | None  # charged to its memory cgroup; None where that is not told

    @property
    def tick_ms(self) -> float:
        """CPU time per tick, of all threads."""
        return self.cpu_ratio * self.seconds / max(1.0, self.ticks) * 1e3


def lanes() -> dict[str, dict[str, object]]:
    """Settings by what they are called: with and without the fast lane, where there is one."""
    if any(field.name == "fast_lane_s" for field in fields(AgentSettings)):
        return {
            "without the fast lane": {"agent__fast_lane_s": 0},
            "with the fast lane": {"agent__fast_lane_s": 0.1},
        }
    return {"1 s ticks": {}}


def measured(home: Path, seconds: float, settings: dict[str, object]) -> Whole:
    """One run of it on whatever pods are there."""
    with (
        watched.memory_cgroup() as (through, kernel_file),
        running(
            home,
            through=through,
            agent__tick_s=1,
            http__address="127.0.0.1:0",
            log__level="info",
            **settings,  # type: ignore[arg-type]  # none of them is a word of `running`
        ) as agent,
        watched.watching(agent) as answers,
    ):
        pid = agent.process.pid
        time.sleep(WARM_S)
        ticks, used_s, began = watched.ticks(agent), clock.cpu_s(pid), time.monotonic()
        while (left_s := began + seconds - time.monotonic()) > 0.0:
            time.sleep(min(SCRAPE_EVERY_S, left_s))
            watched.ticks(agent)
        used_s, passed_s = clock.cpu_s(pid) - used_s, time.monotonic() - began
        ticks = watched.ticks(agent) - ticks
        assert answers, "the watcher heard nothing"
        kernel_mib = None if kernel_file is None else int(kernel_file.read_text()) / clock.MIB
        return Whole(used_s / passed_s, ticks, passed_s, clock.resident_mib(pid), kernel_mib)
