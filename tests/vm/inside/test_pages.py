"""A bound pod's pages: on its NUMA node, there to stay, and no pod is lost whenever the agent is killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil

from nodeagent.model.cpuset import CpuSet
from nodeagent.model.pod import OWN_TIER
from tests.live.running import NODEAGENT, RunningAgent, executed, held_set, running, unique, until
from tests.vm.inside.guest import NODES, ONLY_HERE, online, sets_of

pytestmark = ONLY_HERE
POD_MIB, HOG_MIB, HOG_ROUNDS, KILLS = 64, 256, 20, 6
MOSTLY = 0.95
HOLD = f"""
import time
held = bytearray({POD_MIB} << 20)
for at in range(0, len(held), 4096): held[at] = 1
time.sleep(3600)
"""
HOG = f"""
import os, sys
os.sched_setaffinity(0, map(int, sys.argv[1].split(",")))
for number in range({HOG_ROUNDS}):
    taken = bytearray({HOG_MIB} << 20)
    for at in range(0, len(taken), 4096): taken[at] = number
"""


def python(program: str, *words: str) -> str:
    """A shell's words for a program."""
    path = Path("/tmp", f"na-test-{os.getpid()}-{abs(hash(program))}.py")
    path.write_text(program)
    return " ".join(("exec", sys.executable, "-S", str(path), *words))


def anonymous(pid: int) -> dict[int, int]:
    """Pages of a process that are not of files, by NUMA node."""
    lines = [line for line in Path(f"/proc/{pid}/numa_maps").read_text().splitlines() if "anon=" in line]
    found = [(int(n), int(count)) for line in lines for n, count in re.findall(r" N(\d+)=(\d+)", line)]
    return {node: sum(count for n, count in found if n == node) for node, _ in found}


def share_on(pid: int, nodes: CpuSet) -> float:
    pages = anonymous(pid)
    return sum(count for node, count in pages.items() if node in nodes) / max(sum(pages.values()), 1)


def test_pages_of_a_bound_pod_are_on_its_node_and_stay_there_beside_a_hog_on_another(tmp_path: Path) -> None:
    name = unique("pages")
    ask = ("--numa", "bind", "--cpus", "1", "--memory", f"{POD_MIB}Mi")
    with (
        running(tmp_path, numa__placement=True) as agent,
        executed(agent.runtime, "ls", name, python(HOLD), *ask) as pod,
    ):
        until(lambda: held_set(f"nodeagent/ls/{name}") < online(), "own cores")
        (child,) = psutil.Process(pod.pid).children()
        with_memory = CpuSet.parse((NODES / "has_memory").read_text())
        until(lambda: held_set(f"nodeagent/ls/{name}", "mems") < with_memory, "a node of its own")
        mine = held_set(f"nodeagent/ls/{name}", "mems")
        until(lambda: sum(anonymous(child.pid).values()) * 4096 >= POD_MIB << 20, "the memory is taken")
        until(lambda: share_on(child.pid, mine) >= MOSTLY, "the pages are at home")
        away = min(CpuSet.parse((NODES / "has_cpu").read_text()) - mine)
        cpus = CpuSet.parse((NODES / f"node{away}/cpulist").read_text())
        hog = executed(agent.runtime, "mid", unique("hog"), python(HOG, ",".join(map(str, cpus))))
        with hog as working:
            shares = []
            while working.poll() is None:
                shares.append(share_on(child.pid, mine))
                time.sleep(0.1)
            assert working.returncode == 0
        assert len(shares) > 3 and min(shares) >= MOSTLY


def test_kills_at_random_instants_of_placing_pods_with_memory_then_restore(tmp_path: Path) -> None:
    """Each life begins with everything given back, so that it has to move pods and pages anew."""
    luck, changed = random.Random(7), 0
    names = [unique(name) for name in ("first", "second", "batch")]
    paths = [*(f"nodeagent/ls/{name}" for name in names[:2]), OWN_TIER, f"{OWN_TIER}/{names[2]}"]
    restore = [*NODEAGENT, "restore", "-o", "json", "--set", f"agent.state_dir={tmp_path / 'state'}"]
    with contextlib.ExitStack() as pods:
        for name in names[:2]:
            ask = ("--numa", "bind", "--cpus", "1")
            pods.enter_context(executed(tmp_path / "run", "ls", name, python(HOLD), *ask))
        pods.enter_context(executed(tmp_path / "run", "batch", names[2], "sleep 3600"))
        before = sets_of(paths)
        for _ in range(KILLS):
            agent = RunningAgent(tmp_path, agent__tick_s=0.1, numa__placement=True, journal__enabled=False)
            until(lambda a=agent: bool(a.named("agent.started")), "start")  # type: ignore[misc]
            time.sleep(luck.uniform(0.0, 1.5))  # the instant is what is tested
            agent.process.kill()
            agent.process.wait()
            changed += sets_of(paths) != before
            told = json.loads(subprocess.run(restore, capture_output=True, check=True).stdout)
            assert told["failed"] == [] and told["left"] == []
            assert sets_of(paths) == before
        assert changed > KILLS // 3, "the kills came before anything was written"
