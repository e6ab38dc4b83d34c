"""One run: pods, servers, clients, jobs and whoever controls them, and what was measured in the window.

The clients are one process on CPU 0 that comes before all others there (SCHED_FIFO), as if elsewhere; servers
 and jobs may run on every CPU.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.model.pod import OWN_LS, OWN_TIER
from tests.bench.colocate import sample
from tests.bench.colocate.jobs import JOBS
from tests.bench.colocate.runs import ALONE, BATCH_ALONE, Felt, Job, Run
from tests.bench.colocate.sample import Sampler
from tests.bench.colocate.tide import SURGE_S, Shape, rates
from tests.bench.colocate.variants import controlled
from tests.bench.eval import felt
from tests.bench.eval.places import Place, ended, place
from tests.bench.eval.tools import Tools
from tests.bench.eval.victims import PROGRAMS, free_port, serve
from tests.bench.eval.watch import FOREIGN_RATIO, Watch, busy_s, others_cpu, process_s
from tests.live.running import SLOWNESS

CLIENT_CPU = 0
AHEAD_S = 1.0 * min(SLOWNESS, 8.0)  # until the clients have been started
STEAL_RATIO = 0.02  # of the node's CPU time that the hypervisor may take
LATENESS_S = 10.0 * SLOWNESS
CALM_S = 20.0


@dataclass(frozen=True)
class Setting:
    """What all runs have in common. `agent` are settings of nodeagent beside its defaults ("cpu__idle")."""

    tools: Tools
    shape: Shape
    crest_per_s: dict[str, float]
    jobs: tuple[str, ...]
    seed: int
    agent: dict[str, str] = field(default_factory=dict)


class Totals(NamedTuple):
    """All that is counted, at one instant."""

    at: float
    busy_s: float
    idle_s: float
    steal_s: float
    client_s: float
    control_s: float
    online_s: tuple[float, ...]
    batch_s: tuple[float, ...]
    work: tuple[float, ...]


class Stage:
    """Everybody of a run, once they are there."""

    def __init__(self, variant: str, setting: Setting, home: Path) -> None:
        self.variant, self.setting, self.home = variant, setting, home
        self.hierarchies = find_hierarchies()
        self.online: dict[str, Place] = {}
        self.batch: dict[str, Place] = {}
        self.jobs: dict[str, subprocess.Popen[bytes]] = {}
        self.client: subprocess.Popen[bytes] | None = None
        self.control: int | None = None
        self.begin = 0.0

    @contextlib.contextmanager
    def set_up(self) -> Iterator[Stage]:
        """Pods, servers, control, clients, jobs, in this order; they end with the context."""
        with contextlib.ExitStack() as stack:
            names = () if self.variant == BATCH_ALONE else tuple(self.setting.crest_per_s)
            for name in names:
                self.online[name] = stack.enter_context(place(_pod(name), root=OWN_LS))
            for name in () if self.variant == ALONE else self.setting.jobs:
                self.batch[name] = stack.enter_context(place(_pod(name), root=OWN_TIER))
            ports = {name: free_port() for name in names}
            for name, port in ports.items():
                serve(name, self.online[name], self.setting.tools, self.home / name, port)
            everybody = (list(self.online.values()), list(self.batch.values()))
            control = controlled(self.variant, self.hierarchies, *everybody, self.home, self.setting.agent)
            self.control = stack.enter_context(control)
            self.begin = time.monotonic() + AHEAD_S
            if names:
                self.client = stack.enter_context(ended(self._clients(ports)))
            for name, pod in self.batch.items():
                words = JOBS[name].words(self.setting.tools, self._count(name), os.cpu_count() or 1)
                said = self.home / f"said-{name}"
                self.jobs[name] = stack.enter_context(
                    ended(pod.run(words, self.setting.tools.environment(), said))
                )
            yield self

    def totals(self) -> Totals:
        """What has been used and done so far."""
        times = psutil.cpu_times()
        return Totals(
            time.monotonic(),
            times.user + times.nice + times.system + times.irq + times.softirq,
            times.idle + times.iowait,
            times.steal,
            0.0 if self.client is None else process_s(self.client.pid),
            0.0 if self.control is None else process_s(self.control),
            tuple(pod.used_s() for pod in self.online.values()),
            tuple(pod.used_s() for pod in self.batch.values()),
            tuple(JOBS[name].count(self._count(name)) for name in self.batch),
        )

    def latencies(self, name: str, cpu_s: float) -> Felt:
        """What the clients felt of the requests that were due in the window."""
        shape = self.setting.shape
        found = felt.pairs(self.home / "load" / name)
        inside = sorted(late for due, late in found if 0.0 <= due - shape.warm_s < shape.window_s)
        answered = sum(latency < math.inf for latency in inside)
        p50, p99, p999 = (
            _ms(felt.quantile(inside, ratio)) if inside else None for ratio in (0.5, 0.99, 0.999)
        )
        return Felt(len(inside), answered, p50, p99, p999, cpu_s)

    def _count(self, name: str) -> Path:
        return self.home / f"count-{name}"

    def _clients(self, ports: dict[str, int]) -> subprocess.Popen[bytes]:
        (into := self.home / "load").mkdir()
        setting = self.setting
        targets = [
            {
                "name": name,
                "protocol": PROGRAMS[name].protocol,
                "port": port,
                "seed": setting.seed * 31 + number,
                "rates": rates(setting.crest_per_s[name], setting.shape),
            }
            for number, (name, port) in enumerate(ports.items())
        ]
        plan = self.home / "load.json"
        told = {"begin": self.begin, "targets": targets, "into": str(into), "statsd": ""}
        plan.write_text(json.dumps(told))
        words = ["taskset", "-c", str(CLIENT_CPU), sys.executable, "-m", "tests.bench.eval.load", str(plan)]
        return subprocess.Popen(words, start_new_session=True)


def calm(limit_s: float = CALM_S) -> None:
    """Wait until the node has nothing else to do, at most so long."""
    deadline, busy = time.monotonic() + limit_s, math.inf
    while busy > FOREIGN_RATIO * (os.cpu_count() or 1) and time.monotonic() < deadline:
        began, before = time.monotonic(), busy_s()
        time.sleep(1.0)
        busy = (busy_s() - before) / (time.monotonic() - began)


def perform(variant: str, number: int, setting: Setting) -> Run:
    """One run of a variant, of so many a round; AssertionError when somebody of it ended before time."""
    with (
        tempfile.TemporaryDirectory(prefix="na-colo-") as directory,
        Stage(variant, setting, Path(directory)).set_up() as stage,
    ):
        sampler = Sampler(stage.hierarchies, OWN_LS, OWN_TIER)
        with contextlib.closing(sampler):
            before, after, foreign = _measured(stage, sampler)
        for name, job in stage.jobs.items():
            said = (stage.home / f"said-{name}").read_text(errors="replace")[-500:]
            assert job.poll() is None, f"{name} ended: {said}"
        if stage.client is not None:
            stage.client.wait(LATENESS_S)
        return _run(stage, number, (before, after), sampler, foreign)


def _measured(stage: Stage, sampler: Sampler) -> tuple[Totals, Totals, list[float]]:
    """Counts when the window begins and when it ends; others' CPU in each second of it."""
    shape = stage.setting.shape
    begin, end = stage.begin + shape.warm_s, stage.begin + shape.warm_s + shape.window_s
    _sampled(sampler, begin, None)
    pods = [*stage.online.values(), *stage.batch.values()]
    pids = [os.getpid(), *(p for p in (stage.control, stage.client and stage.client.pid) if p)]
    before, watch = stage.totals(), Watch(pods, pids)
    _sampled(sampler, end, watch)
    return before, stage.totals(), [health.foreign_cores for health in watch.seen]


def _sampled(sampler: Sampler, until: float, watch: Watch | None) -> None:
    second = time.monotonic() + 1.0
    while (now := time.monotonic()) < until:
        sampler.look()
        if watch is not None and now >= second:
            watch.look()
            second = now + 1.0
        time.sleep(min(sample.EVERY_S, max(0.0, until - time.monotonic())))


def _run(
    stage: Stage, number: int, totals: tuple[Totals, Totals], sampler: Sampler, foreign: Sequence[float]
) -> Run:
    before, after = totals
    setting, seconds, cpus = stage.setting, after.at - before.at, os.cpu_count() or 1
    steal_s = after.steal_s - before.steal_s
    return Run(
        variant=stage.variant,
        round=number,
        seconds=round(seconds, 3),
        cpus=cpus,
        busy_s=round(after.busy_s - before.busy_s, 2),
        idle_s=round(after.idle_s - before.idle_s, 2),
        steal_s=round(steal_s, 2),
        client_s=round(after.client_s - before.client_s, 2),
        control_s=round(after.control_s - before.control_s, 2),
        online={
            name: stage.latencies(name, round(now - then, 4))
            for name, now, then in zip(stage.online, after.online_s, before.online_s, strict=True)
        },
        batch={
            name: Job(
                after.work[n] - before.work[n],
                JOBS[name].unit,
                round(after.batch_s[n] - before.batch_s[n], 4),
            )
            for n, name in enumerate(stage.batch)
        },
        surges=tuple(
            sample.reaction(sampler.samples, stage.begin + at, SURGE_S, cpus)
            for at in (setting.shape.surges_at_s if stage.online and stage.batch else ())
        ),
        line=tuple(sample.line(sampler.samples, before.at, after.at)),
        foreign=tuple(foreign),
        rejected=_rejected(foreign, steal_s / (cpus * seconds), cpus),
    )


def _rejected(foreign: Sequence[float], steal_ratio: float, cpus: int) -> tuple[str, ...]:
    why = others_cpu(foreign, cpus) if foreign else ("nobody looked at what others use",)
    if steal_ratio > STEAL_RATIO:
        why += (f"steal {steal_ratio:.1%} > {STEAL_RATIO:.0%}",)
    return why


def _pod(name: str) -> str:
    return f"na-colo-{os.getpid()}-{name}"


def _ms(seconds: float) -> float | None:
    return round(seconds * 1e3, 4) if math.isfinite(seconds) else None
