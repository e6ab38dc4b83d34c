"""One labelled run: an agent that observes, servers under load, and what disturbs them, each moment stamped.

CPU 0   the agent, the clients, this harness, and Batch that is apart
CPU 1   the servers, and Batch that shares a CPU with them

HOME/labels.json   HOME/journal/   HOME/load/NAME   HOME/log-*
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from tests.bench.eval import felt
from tests.bench.eval.labels import Labels, Victim, Window
from tests.bench.eval.places import ROOT, Place, end, ended, place
from tests.bench.eval.scenario import (
    APART,
    ATTACKS,
    BATCH,
    NEGATIVES,
    OTHER_CPU,
    VICTIM_CPU,
    Planned,
    Scenario,
    planned,
    rates,
)
from tests.bench.eval.tools import Tools
from tests.bench.eval.victims import PROGRAMS, free_port, serve
from tests.bench.eval.watch import Watch, idle_stall_ratio, rejected
from tests.live.running import RunningAgent, running

LOAD, TRICKLE = (Path(__file__).with_name(f"{name}.py") for name in ("load", "trickle"))
POLL_S = 0.05
BATCH_REQUEST_CORES = 1.0
BESIDE_LOAD = "beside-load"  # what a victim's own load is for the others on its CPU: an attack
QUOTA_RATIO = 0.6  # of what the victim uses, in the negative "quota"
_BOGO = re.compile(rb"metrc:.*\] \S+ +(\d+) ")


class Stage:
    """Everybody of a run, once they are all there."""

    def __init__(self, scenario: Scenario, seed: int, home: Path, tools: Tools) -> None:
        self.scenario, self.seed, self.home, self.tools = scenario, seed, home, tools
        self.plan = planned(scenario, seed)
        self.victims: dict[str, Place] = {}
        self.batch: dict[str, Place] = {}
        self.ports = {name: free_port() for name in scenario.victims}
        self.windows: list[Window] = []
        self.netns = f"na-{os.getpid()}-eval"

    @contextlib.contextmanager
    def set_up(self) -> Iterator[Stage]:
        """Pods and their programs."""
        with contextlib.ExitStack() as stack:
            self._network(stack)
            for name in self.scenario.victims:
                self.victims[name] = stack.enter_context(
                    place(name, VICTIM_CPU, PROGRAMS[name].request_cores)
                )
                serve(name, self.victims[name], self.tools, self.home / name, self.ports[name])
            for name in (*BATCH, APART):
                cpu, seed = (OTHER_CPU, [str(self.seed)]) if name == APART else (VICTIM_CPU, [])
                self.batch[name] = stack.enter_context(place(name, cpu, BATCH_REQUEST_CORES))
                words = [sys.executable, "-I", "-S", str(TRICKLE), *seed]
                stack.enter_context(ended(self.batch[name].run(words)))
            yield self

    def _network(self, stack: contextlib.ExitStack) -> None:
        """A namespace of its own for iperf3."""
        if "iperf3" not in self.scenario.kinds:
            return
        subprocess.run(["ip", "netns", "add", self.netns], check=True)
        stack.callback(subprocess.run, ["ip", "netns", "delete", self.netns], check=False)
        subprocess.run(["ip", "-n", self.netns, "link", "set", "lo", "up"], check=True)

    @contextlib.contextmanager
    def loaded(self, begin: float) -> Iterator[subprocess.Popen[bytes]]:
        """The clients, which begin at this instant."""
        into = self.home / "load"
        into.mkdir()
        targets = [
            {
                "name": name,
                "protocol": PROGRAMS[name].protocol,
                "port": self.ports[name],
                "seed": self.seed * 31 + number,
                "rates": rates(PROGRAMS[name].per_s, self.scenario, name, self.plan),
            }
            for number, name in enumerate(self.scenario.victims)
        ]
        plan = self.home / "load.json"
        statsd = str(self.home / "run" / "statsd") if self.scenario.told else ""
        plan.write_text(json.dumps({"begin": begin, "targets": targets, "into": str(into), "statsd": statsd}))
        words = ["taskset", "-c", str(OTHER_CPU), sys.executable, "-m", "tests.bench.eval.load", str(plan)]
        with ended(subprocess.Popen(words, start_new_session=True)) as process:
            yield process

    def config(self) -> Path:
        """The pods, and who tells of which: the clients, by StatsD."""
        lines = [f'scope = ["{ROOT}/**"]']
        if self.scenario.told:
            lines.append(f'[app_signals]\nstatsd_socket = "{self.home}/run/statsd"')
            lines += [f'[[apps]]\nmatch = "{p.cgroup}"\nstatsd = "{n}"' for n, p in self.victims.items()]
        for name, each in {**self.victims, **self.batch}.items():
            online = name in self.victims
            cpus = PROGRAMS[name].request_cores if online else BATCH_REQUEST_CORES
            qos = "ls" if online else "batch"
            lines.append(f'[[pods]]\nmatch = "{each.cgroup}"\nname = "{name}"\nqos = "{qos}"\ncpus = {cpus}')
        (config := self.home / "agent.toml").write_text("\n".join(lines) + "\n")
        return config

    def words(self, kind: str, length: float) -> list[str]:
        """The command of an attack, for so many seconds."""
        seconds = max(1, round(length))
        if kind == "iperf3":
            iperf = self.tools.path("iperf3")
            both = f"{iperf} -s -1 >/dev/null & sleep 0.3; {iperf} -c 127.0.0.1 -t {seconds} >/dev/null; wait"
            return ["nsenter", f"--net=/run/netns/{self.netns}", "--", "sh", "-c", both]
        stress = (ATTACKS | NEGATIVES)[kind].stress
        where = ["--temp-path", str(self.home)]
        return [self.tools.path("stress-ng"), *stress, *where, "--timeout", f"{seconds}s", "--metrics"]

    def exposed(self, kind: str) -> tuple[str, ...]:
        """The cgroups of the victims that an attack of this kind can reach."""
        only = ATTACKS[kind].only
        return tuple(self.victims[name].cgroup for name in self.victims if not only or name in only)


def record(
    scenario: Scenario, seed: int, home: Path, tools: Tools, before: Path | None = None, **settings: object
) -> Labels:
    """A whole run below the empty directory `home`; its labels are written there, too.

    The agent knows the workloads as that of the run at `before` did when it ended.
    """
    idle = idle_stall_ratio()
    values = {"agent__mode": "observe", "agent__tick_s": 1.0, "log__level": "info", **settings}
    if before is not None:
        (home / "state").mkdir(mode=0o700)
        shutil.copy(before / "state" / "checkpoint", home / "state" / "checkpoint")
    with Stage(scenario, seed, home, tools).set_up() as stage:
        with running(home, stage.config(), ("taskset", "-c", str(OTHER_CPU)), **values) as agent:
            begin = time.monotonic() + 1.0
            with stage.loaded(begin) as load:
                health = _play(stage, begin, agent, load)
                load.wait(10.0)
        labels = _labels(stage, begin, idle, health)
    shutil.copytree(home / "state" / "journal", home / "journal")
    (home / "labels.json").write_bytes(msgspec.json.encode(labels))
    return labels


def _labels(stage: Stage, begin: float, idle: float, watch: Watch) -> Labels:
    scenario = stage.scenario
    labels = Labels(
        scenario=scenario.name,
        seed=stage.seed,
        cpus=os.cpu_count() or 1,
        measured_from=begin,
        ended=begin + scenario.seconds,
        victims=tuple(Victim(n, p.cgroup, n, scenario.told) for n, p in stage.victims.items()),
        batch=tuple(p.cgroup for p in stage.batch.values()),
        windows=tuple(stage.windows),
        felt={p.cgroup: felt.seconds(stage.home / "load" / n, begin) for n, p in stage.victims.items()},
        health=tuple(watch.seen),
        idle_stall_ratio=round(idle, 4),
    )
    return msgspec.structs.replace(labels, rejected=rejected(labels))


def _play(stage: Stage, begin: float, agent: RunningAgent, load: subprocess.Popen[bytes]) -> Watch:
    """Do what is planned when it is due, and look around once a second."""
    pids = (agent.process.pid, load.pid, os.getpid())
    watch = Watch([*stage.victims.values(), *stage.batch.values()], pids)
    _wait(begin, watch)
    for each in stage.plan:
        _wait(begin + each.begin, watch)
        _ACTS.get(each.kind, _attack)(stage, each, watch)
    _wait(begin + stage.scenario.seconds, watch)
    return watch


def _wait(until: float, watch: Watch, over: Callable[[], bool] = lambda: False) -> None:
    """Until the instant, or until something is over."""
    while (left := until - time.monotonic()) > 0.0 and not over():
        if not watch.seen or time.monotonic() - watch.seen[-1].at >= 1.0:
            watch.look()
        time.sleep(min(left, POLL_S))


def _attack(stage: Stage, each: Planned, watch: Watch) -> None:
    """Run a stressor to its end; of a negative nobody is the culprit."""
    culprit, said = stage.batch[each.who], stage.home / f"said-{each.begin:.0f}"
    words = stage.words(each.kind, each.length)
    began = time.monotonic()
    process = culprit.run(words, stage.tools.environment(), said)
    with ended(process):
        _wait(began + each.length + 10.0, watch, lambda: process.poll() is not None)
    now, work = time.monotonic(), bogo_operations(said.read_bytes())
    if each.kind in NEGATIVES:
        everybody = tuple(p.cgroup for p in stage.victims.values())
        stage.windows.append(Window(each.kind, began, now, everybody, work=work))
    else:
        channel = ATTACKS[each.kind].channel
        stage.windows.append(
            Window(each.kind, began, now, stage.exposed(each.kind), culprit.cgroup, channel, work)
        )


def _own_load(stage: Stage, each: Planned, watch: Watch) -> None:
    """The clients know their plan."""
    began = time.monotonic()
    _wait(began + each.length, watch)
    _negative(stage, each, began)
    busy = stage.victims[each.who].cgroup
    others = tuple(place.cgroup for place in stage.victims.values() if place.cgroup != busy)
    stage.windows.append(Window(BESIDE_LOAD, began, time.monotonic(), others, busy, "cpu"))


def _quota(stage: Stage, each: Planned, watch: Watch) -> None:
    """A quota of its own that is too small for the victim."""
    victim = stage.victims[each.who]
    passed_s = sum(b.at - a.at for a, b in zip(watch.seen, watch.seen[1:], strict=False))
    used = victim.used_s() / max(passed_s, 1.0)
    began = time.monotonic()
    victim.limit(max(0.02, math.floor(used * QUOTA_RATIO * 100) / 100))
    try:
        _wait(began + each.length, watch)
    finally:
        victim.limit(None)
    _negative(stage, each, began)


def _restart(stage: Stage, each: Planned, watch: Watch) -> None:
    """The victim's program ends and begins again, in its pod."""
    victim, began = stage.victims[each.who], time.monotonic()
    procs = Path(victim.procs[0])
    for pid in map(int, procs.read_text().split()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
    _wait(began + 5.0, watch, lambda: not procs.read_text())
    serve(each.who, victim, stage.tools, stage.home / each.who, stage.ports[each.who])
    _wait(began + each.length, watch)
    _negative(stage, each, began)


def _negative(stage: Stage, each: Planned, began: float) -> None:
    victim = stage.victims[each.who].cgroup
    stage.windows.append(Window(each.kind, began, time.monotonic(), (victim,)))


_ACTS: dict[str, Callable[[Stage, Planned, Watch], None]] = {
    "load": _own_load,
    "quota": _quota,
    "restart": _restart,
}


def bogo_operations(said: bytes) -> float | None:
    """The work that stress-ng says it has done, None when it says nothing."""
    return sum(map(float, found)) if (found := _BOGO.findall(said)) else None


def needed(scenarios: Sequence[Scenario]) -> set[str]:
    """The programs of tools.PACKAGES without which these scenarios cannot run."""
    kinds = {kind for scenario in scenarios for kind in scenario.kinds}
    stress = {"stress-ng" for kind in kinds if (ATTACKS | NEGATIVES)[kind].stress}
    network = {"iperf3"} & kinds
    servers = {PROGRAMS[name].needs for scenario in scenarios for name in scenario.victims} - {""}
    return stress | network | servers


__all__ = ["Stage", "bogo_operations", "end", "needed", "record"]
