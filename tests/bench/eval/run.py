"""One labelled run: an agent that observes, servers under load, and what disturbs them, each moment stamped.

HOME/labels.json   HOME/journal/   HOME/load/NAME   HOME/log-*
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from tests.bench.eval import felt
from tests.bench.eval.labels import Labels, Victim, Window
from tests.bench.eval.places import ended
from tests.bench.eval.scenario import ATTACKS, NEGATIVES, OTHER_CPU, Planned, Scenario
from tests.bench.eval.stage import Stage
from tests.bench.eval.tools import Tools
from tests.bench.eval.victims import serve
from tests.bench.eval.watch import Watch, idle_stall_ratio, rejected
from tests.live.running import RunningAgent, running

POLL_S = 0.05
BESIDE_LOAD = "beside-load"  # what a victim's own load is for the others on its CPU: an attack
QUOTA_RATIO = 0.6  # of what the victim uses, in the negative "quota"
_BOGO = re.compile(rb"metrc:.*\] \S+ +(\d+) ")


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
