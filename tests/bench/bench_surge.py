"""From a surge of LS load to Batch's quota written: the fast lane against the loop of 1 s, under one agent.

A surge is stamped before its first request is sent. The quota is read each half millisecond by the same
process, which runs before all others where it may, so both stamps are of one clock; the journal, which has
the same clock, says when the tick began that cut Batch. The agent bounds Batch by quota here, as it does
where SCHED_IDLE does not part Batch from online pods: elsewhere a surge that makes nobody wait cuts nobody.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nodeagent.journal import read_segments
from nodeagent.model.pod import OWN_TIER
from nodeagent.model.snapshot import Snapshot
from tests.bench import surge_cost
from tests.bench.beside import CPUS, WORK_MS, Server, hogs, measured, serving
from tests.bench.open_loop import first_in_line
from tests.bench.table import Figure, show
from tests.live.running import RunningAgent, cpu_file, quota_cores, running, until

LANES = {"on": 0.1, "off": 0.0}
SURGES = 20  # of each kind, with each lane
SURGE_S = 0.6  # what a surge asks for, on all CPUs
CUT_RATIO = 0.75  # a quota of at most this share of that before is pushed back
READY_RATIO = 0.2  # of all CPUs: so much at least has a surge to take from Batch
PATIENCE_S = 4.0
POLL_S = 0.0005
# Back soon, so that the next surge finds Batch as large as this one did; what is noticed stays as it is.
SOON = "recover_after_s = 0.2\nrecover_jitter_s = 0.0\nrecover_ratio_per_s = 1.0\nwindow_s = 0.5\n"
KINDS = {"twice as many threads as CPUs": 2 * CPUS, "as many threads as CPUs": CPUS}
STEADY_LOADS = (0.3, 0.6)  # of the CPUs
STEADY_TURNS, STEADY_S = 2, 20.0


@dataclass
class Reactions:
    """Of one kind of surge with one lane: seconds from the stamp, and the stamps themselves."""

    seconds: list[float] = field(default_factory=list)
    stamps: list[float] = field(default_factory=list)


class Quota:
    """Batch's quota, through one open descriptor."""

    def __init__(self) -> None:
        v1 = cpu_file(f"{OWN_TIER}/cpu.cfs_quota_us")
        self._fd = os.open(v1 if v1.exists() else cpu_file(f"{OWN_TIER}/cpu.max"), os.O_RDONLY)

    def read(self) -> int:
        """In us a period, as the file has it: 100 ms in both versions; a huge number without a limit."""
        word = os.pread(self._fd, 64, 0).split()[0]
        return 1 << 40 if word in (b"max", b"-1") else int(word)

    def close(self) -> None:
        os.close(self._fd)


def main() -> bool:
    """Print the tables; True when all targets were held."""
    with tempfile.TemporaryDirectory(prefix="na-bench-") as directory:
        return all([reaction(Path(directory)), steady(Path(directory)), surge_cost.main()])


def reaction(home: Path, surges: int = SURGES) -> bool:
    """How soon Batch is pushed back."""
    held = []
    for number, (kind, processes) in enumerate(KINDS.items()):
        (home / f"{number}").mkdir()
        found, agreed_s = _reactions(home / f"{number}", processes, surges)
        held.append(_told(kind, found, agreed_s))
    return all(held)


def steady(home: Path) -> bool:
    """What short looks cost Batch beside a server whose load does not surge."""
    held = []
    for number, load in enumerate(STEADY_LOADS):
        (home / f"steady{number}").mkdir()
        own = home / f"steady{number}"
        with _switched(own, "") as agent, serving(own, 2 * CPUS) as server, hogs(own) as batch:
            held.append(_steady(agent, server, batch, load))
    return all(held)


def _reactions(home: Path, processes: int, surges: int) -> tuple[dict[str, Reactions], list[float]]:
    """By lane; and by how many seconds the journal's tick precedes the quota that was seen."""
    found = {lane: Reactions() for lane in LANES}
    luck = random.Random(11)
    with _switched(home, SOON) as agent, serving(home, processes) as server, hogs(home):
        until(lambda: (quota_cores(OWN_TIER) or 0.0) >= READY_RATIO * CPUS, "Batch has the node", 60.0)
        with contextlib.closing(Quota()) as quota:
            for number in range(surges):
                for lane in luck.sample(list(LANES), len(LANES)):
                    switch(agent, lane, SOON)
                    _calm(quota)
                    time.sleep(luck.uniform(0.0, 1.0))
                    stamp, took_s = _surge(server, quota)
                    found[lane].stamps.append(stamp)
                    found[lane].seconds.append(took_s)
                print(f"  surge {number + 1} of {surges}", end="\r", file=sys.stderr)
    ticks = [t for segment in read_segments(home / "state/journal", print) for t in segment.ticks()]
    limits = [(tick.snapshot, tick.decision.batch_limit_cores or math.inf) for tick in ticks]
    return found, [_agreed_s(r, limits) for r in found.values()]


def _told(kind: str, found: Mapping[str, Reactions], agreed_s: Sequence[float]) -> bool:
    figures = []
    middle = {lane: statistics.median(r.seconds) for lane, r in found.items()}
    for lane, r in found.items():
        most = 150.0 if lane == "on" else None
        figures.append(Figure(f"lane {lane}: median", middle[lane] * 1e3, "ms", most))
        figures.append(Figure(f"lane {lane}: p95", sorted(r.seconds)[int(len(r.seconds) * 0.95)] * 1e3, "ms"))
    figures.append(Figure("median on / off", middle["on"] / middle["off"], "x", 0.2))
    for lane, seconds in zip(found, agreed_s, strict=True):
        figures.append(Figure(f"lane {lane}: from that tick to the quota, median", seconds * 1e3, "ms"))
    count = len(found["on"].seconds)
    return show(f"From a surge ({kind}) to Batch's quota cut by a quarter, {count} each in turns", figures)


def _agreed_s(found: Reactions, limits: list[tuple[Snapshot, float]]) -> float:
    """From the begin of the first tick after the stamp that cut Batch, by the journal, to what was seen."""
    differences = []
    for stamp, took_s in zip(found.stamps, found.seconds, strict=True):
        before = [cores for seen, cores in limits if seen.at < stamp]
        cut = (
            seen.at for seen, cores in limits if seen.at >= stamp and cores <= CUT_RATIO * before[-1] * 1.02
        )
        differences.append(stamp + took_s - next(cut, math.inf))
    return statistics.median(differences)


def _surge(server: Server, quota: Quota) -> tuple[float, float]:
    """(monotonic stamp, seconds until the quota was cut or inf) of one surge; waits until it is over."""
    requests = round(SURGE_S * CPUS / (WORK_MS / 1e3))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, first_in_line():
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        client.connect(("127.0.0.1", server.port))
        cut = CUT_RATIO * quota.read()
        stamp = time.monotonic()
        for number in range(requests):
            client.send(number.to_bytes(4, "little"))
        while quota.read() > cut and time.monotonic() - stamp < PATIENCE_S:
            time.sleep(POLL_S)
        took_s = time.monotonic() - stamp
        client.settimeout(1.0)
        with contextlib.suppress(TimeoutError):
            for _ in range(requests):
                client.recv(64)
    return stamp, took_s if took_s < PATIENCE_S else math.inf


def _calm(quota: Quota) -> None:
    until(lambda: quota.read() >= READY_RATIO * CPUS * 100_000, "Batch is back", 60.0)


@contextlib.contextmanager
def _switched(home: Path, more: str) -> Iterator[RunningAgent]:
    """An agent whose lane `switch` turns on and off."""
    config = home / "nodeagent.toml"
    config.write_text(_toml("on", more))
    with running(home, config=config, agent__tick_s=1) as agent:
        yield agent


def switch(agent: RunningAgent, lane: str, more: str = "") -> None:
    """Turn the lane on or off, by a reload."""
    before = len(agent.named("config.reloaded"))
    (agent.home / "nodeagent.toml").write_text(_toml(lane, more))
    agent.process.send_signal(1)
    until(lambda: len(agent.named("config.reloaded")) > before, "the reload")


def _toml(lane: str, more: str) -> str:
    return f"[agent]\nfast_lane_s = {LANES[lane]}\n[cpu]\nyielding_ceiling_ratio = 0\n{more}"


def _steady(agent: RunningAgent, server: Server, batch: str, load: float) -> bool:
    cores: dict[str, list[float]] = {lane: [] for lane in LANES}
    p99: dict[str, list[float]] = {lane: [] for lane in LANES}
    cuts, others = dict.fromkeys(LANES, 0), 0.0
    for turn in range(STEADY_TURNS):
        for lane in sorted(LANES, reverse=bool(turn % 2)):
            switch(agent, lane)
            before = _halvings(agent)
            per_s = load * CPUS / (WORK_MS / 1e3)
            phase = measured(lane, server, batch, seed=turn, per_s=per_s, seconds=STEADY_S)
            cores[lane].append(phase.batch_cores)
            others = max(others, phase.other_cores)
            p99[lane].append(phase.latencies.quantile_ms(0.99))
            cuts[lane] += _halvings(agent) - before
    on, off = (statistics.mean(cores[lane]) for lane in ("on", "off"))
    figures = [
        Figure("cores used by Batch, lane on", on, "cores"),
        Figure("cores used by Batch, lane off", off, "cores"),
        Figure("lost by the lane", (1.0 - on / off) * 100, "%", 2.0),
        *(Figure(f"times that Batch was halved, lane {lane}", cuts[lane], "") for lane in LANES),
        Figure("cores used by others: above 0.3, run it again", others, "cores"),
        *(Figure(f"LS p99, lane {lane}", statistics.mean(p99[lane]), "ms") for lane in LANES),
    ]
    title = f"Beside a server at {load:.0%} of the CPUs ({server.processes} threads)"
    return show(f"{title}: {STEADY_TURNS} x {STEADY_S:g} s each, in turns", figures)


def _halvings(agent: RunningAgent) -> int:
    return len(agent.named("ls-cpu-pressure.began"))


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
