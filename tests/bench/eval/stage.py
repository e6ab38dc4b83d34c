"""Everybody of a run: victims and Batch in their pods, clients, and what the agent is told of them.

CPU 0   the agent, the clients, the harness, and Batch that is apart
CPU 1   the servers, and Batch that shares a CPU with them
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.eval.labels import Window
from tests.bench.eval.places import ROOT, Place, ended, place
from tests.bench.eval.scenario import (
    APART,
    ATTACKS,
    BATCH,
    NEGATIVES,
    OTHER_CPU,
    VICTIM_CPU,
    Scenario,
    planned,
    rates,
)
from tests.bench.eval.tools import Tools
from tests.bench.eval.victims import PROGRAMS, free_port, serve

LOAD, TRICKLE = (Path(__file__).with_name(f"{name}.py") for name in ("load", "trickle"))
BATCH_REQUEST_CORES = 1.0


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


def needed(scenarios: Sequence[Scenario]) -> set[str]:
    """The programs of tools.PACKAGES without which these scenarios cannot run."""
    kinds = {kind for scenario in scenarios for kind in scenario.kinds}
    stress = {"stress-ng" for kind in kinds if (ATTACKS | NEGATIVES)[kind].stress}
    network = {"iperf3"} & kinds
    servers = {PROGRAMS[name].needs for scenario in scenarios for name in scenario.victims} - {""}
    return stress | network | servers
