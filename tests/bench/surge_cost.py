"""What the fast lane costs: CPU time of a look and of a tick, on LS pods at rest and at work."""

from __future__ import annotations

import gc
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from typing import NamedTuple

from msgspec.structs import replace

from nodeagent.kernel.reader import NodeReader
from nodeagent.lane import MOST, Lane
from nodeagent.model.pod import Member, Qos
from tests.bench.bench_tick import WARM_TICKS, Ticks
from tests.bench.real_pods import real_pods
from tests.bench.table import Figure, show

SIZES = (30, 100, 250)
ACTIVE = {"at rest": 0.0, "all at work": 1.0}
TICKS, LOOKS, PAUSE_S = 4, 10, 0.1
RATIO = 0.2  # pressure.ls_cpu_stall_ratio
ANY = -1.0  # a threshold that everybody exceeds: no gate is ever shut


class Cost(NamedTuple):
    """CPU seconds: of one tick, of one look, and of one look when every gate is open; pods in that one."""

    tick_s: float
    look_s: float
    open_s: float
    looked_at: int


def main() -> bool:
    """Print the tables; True when all targets were held."""
    held = [_table(what, ratio) for what, ratio in ACTIVE.items()]
    return all(held)


def _table(what: str, active_ratio: float) -> bool:
    figures = []
    for size in SIZES:
        cost = _cost(size, active_ratio)
        share = LOOKS * cost.look_s / cost.tick_s
        figures += [
            Figure(f"{size} pods: one look", cost.look_s * 1e6, "us"),
            Figure(f"{size} pods: {LOOKS} looks / one tick", share, "x", 0.2 if not active_ratio else None),
            Figure(f"{size} pods: one look at {cost.looked_at}, all gates open", cost.open_s * 1e6, "us"),
            Figure(f"{size} pods: {LOOKS} of those, of a core", LOOKS * cost.open_s * 100, "%", 1.0),
        ]
    return show(f"LS pods {what}: CPU time, {LOOKS} looks a tick, of at most {MOST} pods", figures)


def _cost(size: int, active_ratio: float) -> Cost:
    ticks_s, looks_s, open_s, most = [], [], [], 0
    with ExitStack() as stack:
        found = stack.enter_context(real_pods(size, active_ratio))
        members = tuple(Member(replace(member.spec, qos=Qos.LS)) for member in found)
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="na-bench-"))
        ticks = stack.enter_context(closing(Ticks(members, directory)))
        reader = stack.enter_context(closing(NodeReader()))
        lane = stack.enter_context(closing(Lane(reader, "/proc/pressure/cpu")))
        for number in range(WARM_TICKS + TICKS):
            if number == WARM_TICKS:
                gc.collect()
                gc.freeze()  # as the agent does
            tick_s = ticks.tick().all_s
            _read(lane, reader, members)
            looks = [_look_s(lane, RATIO) for _ in range(LOOKS)]
            opened = [_look_s(lane, ANY) for _ in range(LOOKS)]
            most = max(most, lane.looked_at)
            if number >= WARM_TICKS:
                ticks_s.append(tick_s)
                looks_s += looks
                open_s += opened
    mean = statistics.mean
    return Cost(mean(ticks_s), mean(looks_s), mean(open_s), most)


def _read(lane: Lane, reader: NodeReader, members: tuple[Member, ...]) -> None:
    at = time.monotonic()
    lane.ticking(at, RATIO)
    reader.read(members, at)
    lane.ticked(at, RATIO)


def _look_s(lane: Lane, ratio: float) -> float:
    time.sleep(PAUSE_S)
    began = time.process_time()
    lane.look(time.monotonic(), ratio)
    return time.process_time() - began


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
