"""A small node for whole episodes: an online server, a Batch neighbour that hurts it when told, an innocent.

All are children of one cgroup with a limit, as services in a systemd slice with CPUQuota= or MemoryMax= are:
whoever uses it up stops the others, which no weight prevents. How fast the machine is hardly matters.

    TOP  0.7 cores   web (LS) 0.3                     hog (Batch) 2 processes while there is `go`   lamb 0.05
    TOP  160 MiB     web reads 64 MiB over and over   hog takes 100 MiB time and again              lamb 0.05
                                                      or reads 256 MiB while there is `go`
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from nodeagent.journal import read_segments
from nodeagent.kernel.place import limit_cpu
from nodeagent.model.decision import Tick
from nodeagent.model.errors import AgentError, Failed
from nodeagent.model.explanation import Explanation
from nodeagent.model.interference_told import Listed
from nodeagent.model.symptom import Sign
from nodeagent.rpc.channel import Target
from nodeagent.rpc.client import explain
from nodeagent.rpc.interference_client import listed
from tests.live.restrained_place import Pods
from tests.live.running import SLOWNESS, RunningAgent, running, until

TOP_CORES = 0.7
TOP_BYTES = 160 << 20
WEB, HOG, LAMB = "web", "hog", "lamb"
ANSWER_S = 10.0 * SLOWNESS
# Each has the directory of the test as its argument.
# A unit of 3 ms of CPU time in every 10 ms; a line for each: when it was done, and how long it took.
SERVER = """
import sys, time
out = open(sys.argv[1] + "/done", "a", buffering=1)
while True:
    began, end = time.monotonic(), time.thread_time() + 0.003
    while time.thread_time() < end: pass
    out.write(f"{time.monotonic()} {time.monotonic() - began}\\n")
    time.sleep(0.007)
"""
BURNER = """
import os, sys, time
os.fork()
while True:
    end = time.monotonic() + 0.05
    while os.path.exists(sys.argv[1] + "/go") and time.monotonic() < end: pass
    if time.monotonic() < end: time.sleep(0.05)
"""
# Pages of a file that is mapped, here and there.
MAPPED = """
import mmap, os, random, sys, time
def mapped(name, size):
    with open(name, "wb") as file:
        for _ in range(size >> 20): file.write(bytes(1 << 20))
        os.fsync(file.fileno())
    pages = mmap.mmap(os.open(name, os.O_RDONLY), size, prot=mmap.PROT_READ)
    pages.madvise(mmap.MADV_RANDOM)
    return pages
"""
READER = f"""{MAPPED}
size = 64 << 20
pages = mapped(sys.argv[1] + "/data", size)
at = [random.randrange(size) for _ in range(1 << 16)]
out = open(sys.argv[1] + "/done", "a", buffering=1)
while True:
    for first in range(0, len(at), 128):
        began = time.monotonic()
        for n in at[first:first + 128]: pages[n]
        out.write(f"{{time.monotonic()}} {{time.monotonic() - began}}\\n")
        time.sleep(0.02)
"""
GREEDY = f"""{MAPPED}
size = 256 << 20
pages = mapped(sys.argv[1] + "/more", size)
while True:
    while not os.path.exists(sys.argv[1] + "/go"): time.sleep(0.05)
    for _ in range(256): pages[random.randrange(size)]
    time.sleep(0.01)
"""
# Takes 100 MiB for 1 s again and again; most of its CPU time is in between, and so less makes that rarer.
EATER = """
import mmap, os, sys, time
POPULATE_WRITE = 23  # linux/mman.h
while True:
    while not os.path.exists(sys.argv[1] + "/go"): time.sleep(0.05)
    began = time.thread_time()
    taken = mmap.mmap(-1, 100 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    taken.madvise(POPULATE_WRITE)
    end = time.thread_time() + max(0.25, 6 * (time.thread_time() - began))
    time.sleep(1.0)
    taken.close()
    while time.thread_time() < end: pass
"""
STEADY = """
import time
while True:
    end = time.thread_time() + 0.005
    while time.thread_time() < end: pass
    time.sleep(0.095)
"""
# What else runs on this machine is not to bound Batch, nor is the rule that halves all of it to come first;
# what is usual is to be known soon.
VALUES: dict[str, object] = {
    "agent__tick_s": 1.0,
    "cpu__floor_cores": float(os.cpu_count() or 1),
    "pressure__ls_cpu_stall_ratio": 0.9,
    "interference__warm_samples": 20,
    "interference__young_s": 0,
    "interference__trial_s": 5,
}


class Stage:
    """Everybody in place, and calm; `home` is on a disk. Without more, it is CPU time that is scarce."""

    def __init__(self, pods: Pods, home: Path, server: str = SERVER, burner: str = BURNER) -> None:
        self.pods, self.home = pods, home
        # fetching pages costs CPU time, which an emulated machine has little of: not to count as its own load
        self.request_cores = 0.5 if server is SERVER else 2.0
        self.go = home / "go"
        self.web = pods.make(WEB, self._program("server", server))
        self.hog = pods.make(HOG, self._program("burner", burner))
        self.lamb = pods.make(LAMB, self._program("steady", STEADY))
        weight = pods.file(pods.top, "cpu.shares", "cpu.weight")
        most = {"cpu.shares": "262144", "cpu.weight": "10000"}  # other work is no part of this
        weight.write_text(most[weight.name])
        if server is SERVER:
            limit_cpu(pods.hierarchies, pods.top, TOP_CORES)

    def _program(self, name: str, text: str) -> str:
        (self.home / f"{name}.py").write_text(text)
        return f"exec {sys.executable} -I -S {self.home}/{name}.py {self.home}"

    @contextlib.contextmanager
    def agent(self, **values: object) -> Iterator[RunningAgent]:
        """An agent that knows these pods and may write them."""
        rules = [
            f'[[pods]]\nmatch = "{cgroup}"\nname = "{name}"\nqos = "{qos}"\ncpus = {cpus}\n'
            for cgroup, name, qos, cpus in (
                (self.web, WEB, "ls", self.request_cores),
                (self.hog, HOG, "batch", 1.0),
                (self.lamb, LAMB, "batch", 1.0),
            )
        ]
        config = self.home / "nodeagent.toml"
        config.write_text("\n".join([f'scope = ["{self.pods.top}/**"]', *rules]))
        with running(self.home, config, (), **{**VALUES, **values}) as made:
            yield made

    def took_s(self, since: float, until_: float) -> float:
        """Mean time that the slowest tenth of the server's units took, of those done between two instants."""
        lines = (self.home / "done").read_text().splitlines()[:-1]
        pairs = (tuple(map(float, line.split())) for line in lines)
        found = sorted(took for at, took in pairs if since <= at < until_)
        return statistics.mean(found[-max(1, len(found) // 10) :])


def memory_stage(pods: Pods, home: Path, burner: str = EATER) -> Stage:
    """The same where it is memory."""
    file = pods.file(pods.top, "memory.max", "memory.limit_in_bytes")
    file.write_text(str(TOP_BYTES))
    return Stage(pods, home, READER, burner)


def learned(agent: RunningAgent) -> None:
    """Wait until what is usual is known, and for some seconds in which it was so."""
    until(lambda: _usual(agent), f"a baseline, {agent.log_path}", 120.0)
    time.sleep(5.0)


def why(agent: RunningAgent, subject: str | None) -> Explanation | None:
    """What the agent explains of a pod, None: of the offer; None while it does not know the pod."""
    with contextlib.suppress(AgentError):
        return explain(target(agent), subject, timeout_s=ANSWER_S)
    return None


def told(agent: RunningAgent) -> Listed:
    """What it lists of interference."""
    return listed(target(agent), "", open_only=False, timeout_s=ANSWER_S)


def target(agent: RunningAgent) -> Target:
    return Target(f"unix:{agent.runtime}/nodeagent.sock")


def seen(agent: RunningAgent, event: str, **keys: object) -> bool:
    """Whether there was such an event."""
    return any(keys.items() <= each.items() for each in agent.named(event))


def ticks(agent: RunningAgent) -> list[Tick]:
    """What the journal has."""
    with contextlib.suppress(Failed):
        found = read_segments(agent.state / "journal", _never)
        return [tick for segment in found for tick in segment.ticks()]
    return []


def story(agent: RunningAgent) -> str:
    """What was said of interference, for a test that failed."""
    names = ("interference.", "knob.", "agent.")
    return "\n".join(json.dumps(e) for e in agent.events() if e["event"].startswith(names))[-6000:]


def wait(agent: RunningAgent, true: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """As `until`, with the agent's story where it does not come."""
    try:
        until(true, what, timeout_s)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{story(agent)}") from None


def _never(warning: str) -> None:
    raise AssertionError(warning)


def _usual(agent: RunningAgent) -> bool:
    found = why(agent, WEB)
    inputs = (i for r in found.reasons if r.name == "signs" for i in r.inputs) if found else ()
    return any(i.name in (Sign.CPU_STALL, Sign.RUN_DELAY) and i.source.startswith("usual") for i in inputs)
