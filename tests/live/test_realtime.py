"""A loop that was late is first in line when it is due, for moments, where it may; else it goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.kernel.own_sched import BUDGET_US, refusal
from tests.live.running import RunningAgent, running, until

pytestmark = pytest.mark.live
RESET_ON_FORK = 0x40000000
FIFO = os.SCHED_FIFO | RESET_ON_FORK
# Prints policies: before; when woken and after a busy moment; of a thread and a child; at the end.
ALONE = """
import os, resource, signal, subprocess, sys, threading, time
from nodeagent.kernel.own_sched import FirstInLine

def told(): print(os.sched_getscheduler(0), flush=True)
def busy(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end: pass

limit = resource.getrlimit(resource.RLIMIT_RTTIME)
first = FirstInLine()
told()
first.begin()
first.renew(time.monotonic())
told()
for late_s in (0.006, 0.006):
    first.woke(late_s, time.monotonic())
for _ in range(3):
    first.renew(time.monotonic())
    time.sleep(0.01); told()
    busy(0.1); told()
first.renew(time.monotonic())
other = []
thread = threading.Thread(target=lambda: other.append(os.sched_getscheduler(0)))
thread.start(); thread.join()
print(other[0], flush=True)
subprocess.run([sys.executable, "-c", "import os; print(os.sched_getscheduler(0))"])
first.end(); told()
print(resource.getrlimit(resource.RLIMIT_RTTIME) == limit, signal.getsignal(signal.SIGXCPU) == signal.SIG_DFL)
"""


@pytest.fixture(autouse=True)
def _allowed() -> None:
    if why := refusal():
        pytest.skip(f"SCHED_FIFO is refused here: {why} (CAP_SYS_NICE; v1: cpu.rt_runtime_us of the cgroup)")


def ran(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return done.stdout.split()


def test_it_is_first_for_a_moment_then_as_everybody_and_nothing_that_it_starts_is() -> None:
    before, in_time, *turns, thread, child, end, limit, handler = ran(ALONE)
    assert (before, in_time) == (str(os.SCHED_OTHER), str(os.SCHED_OTHER | RESET_ON_FORK))
    assert turns == [str(FIFO), str(os.SCHED_OTHER | RESET_ON_FORK)] * 3
    assert (thread, child) == (str(os.SCHED_OTHER), str(os.SCHED_OTHER))
    assert end == str(os.SCHED_OTHER | RESET_ON_FORK)
    assert (limit, handler) == ("True", "True")


# The policy after waits that ended late by so much (s), after so long (s).
WAITS = """
import os
from nodeagent.kernel.own_sched import FirstInLine

first = FirstInLine()
first.begin()
now = 1000.0
for late_s, after_s in {waits}:
    now += after_s
    first.woke(late_s, now)
    first.renew(now)
    print(os.sched_getscheduler(0) & 3, flush=True)
first.end()
"""


def after(*waits: tuple[float, float]) -> list[int]:
    return [int(policy) for policy in ran(WAITS.format(waits=waits))]


def test_it_is_first_in_line_only_after_two_waits_that_ended_late_and_for_ten_minutes() -> None:
    assert after((0.1, 0.0), (0.1, 11.0), (0.0, 1.0)) == [0, 0, 0]  # each late one has been forgotten
    assert after((0.004, 0.0), (0.004, 0.1), (0.004, 0.1)) == [0, 0, 0]  # not late enough
    assert after((0.006, 0.0), (0.0, 5.0), (0.006, 4.0), (0.0, 599.0), (0.0, 2.0)) == [0, 0, 1, 1, 0]


# The policies after two `renew`, where the moment of the first one is spent before it has returned.
SPENT_WITHIN = """
import os, signal
from nodeagent.kernel import own_sched

schedule, sent = own_sched._schedule, []

def spent(policy, priority):
    schedule(policy, priority)
    if priority and not sent:
        sent.append(os.kill(os.getpid(), signal.SIGXCPU))

first = own_sched.FirstInLine()
first.begin()
own_sched._schedule = spent
for _ in range(2):
    first.woke(1.0, 1000.0)
for now in (1001.0, 1002.0):
    first.renew(now)
    print(os.sched_getscheduler(0) & 3, flush=True)
first.end()
"""


def test_a_moment_that_is_spent_while_it_begins_is_not_the_last_one() -> None:
    assert ran(SPENT_WITHIN) == ["0", "1"]


def test_where_the_kernel_would_end_the_process_for_it_it_is_not_asked() -> None:
    program = f"""
import resource
from nodeagent.kernel.own_sched import FirstInLine
from nodeagent.model.errors import Refused
resource.setrlimit(resource.RLIMIT_RTTIME, ({BUDGET_US}, {BUDGET_US}))
try:
    FirstInLine().begin()
except Refused as refused:
    print(refused.hint)
"""
    assert ran(program)[0] == "LimitRTTIME=infinity"


def policies(agent: RunningAgent) -> dict[int, int]:
    """Of each thread."""
    threads = map(int, os.listdir(f"/proc/{agent.process.pid}/task"))
    return {thread: os.sched_getscheduler(thread) for thread in threads}


@contextlib.contextmanager
def crowded() -> Iterator[None]:
    """Many more threads than CPUs, for a minute at most: who does not come first has to wait."""
    program = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"
    busy = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(8 * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for each in busy:
            each.kill()
            each.wait()


def test_of_an_agent_the_loop_alone_is_first_in_line_and_a_reload_ends_it(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text("")
    with (
        running(tmp_path, config, (), agent__mode="observe", http__address="127.0.0.1:0") as agent,
        crowded(),
    ):
        pid = agent.process.pid
        until(lambda: policies(agent)[pid] == FIFO, "the loop's thread is first in line")
        until(lambda: "nodeagent_realtime 1.0" in agent.get("/metrics"), "and says so")
        others = {policy & ~RESET_ON_FORK for thread, policy in policies(agent).items() if thread != pid}
        assert others == {os.SCHED_OTHER}
        config.write_text("[agent]\nrealtime = false\n")
        agent.process.send_signal(signal.SIGHUP)
        until(lambda: "nodeagent_realtime 0.0" in agent.get("/metrics"), "it is as everybody")
        assert policies(agent)[pid] & ~RESET_ON_FORK == os.SCHED_OTHER
        assert agent.named("config.reloaded")[-1]["restart_needed_for_the_rest"] is False
        config.write_text("")
        agent.process.send_signal(signal.SIGHUP)
        until(lambda: policies(agent)[pid] == FIFO, "it is first in line again")


def test_moments_that_are_over_are_not_taken_for_a_call(tmp_path: Path) -> None:
    """With ticks that take longer than a moment there are no more of them than are due."""
    with (
        running(tmp_path, None, (), agent__mode="observe", http__address="127.0.0.1:0") as agent,
        crowded(),
    ):
        pid = agent.process.pid
        until(lambda: policies(agent)[pid] == FIFO, "the loop's thread is first in line")
        before = woken(agent, "signal")
        for _ in range(3):
            until(lambda: policies(agent)[pid] == FIFO, "it is first in line again")
            os.kill(pid, signal.SIGXCPU)
            time.sleep(0.1)
        until(lambda: policies(agent)[pid] == FIFO, "it is first in line again")
        assert woken(agent, "signal") == before
        assert agent.process.poll() is None


def woken(agent: RunningAgent, what: str) -> float:
    line = next(
        line
        for line in agent.get("/metrics").splitlines()
        if line.startswith(f'nodeagent_ticks_total{{woken_by="{what}"}}')
    )
    return float(line.split()[-1])


def test_in_a_cgroup_without_real_time_it_goes_on_and_says_why(tmp_path: Path) -> None:
    """v1 with RT_GROUP_SCHED: a new cgroup has none."""
    place = find_hierarchies().roots.get("cpu")
    if place is None or not Path(place.root, "cpu.rt_runtime_us").exists():
        pytest.skip("real-time threads are not grouped here (RT_GROUP_SCHED, cgroup v1)")
    group = Path(place.root, f"na-test-{os.getpid()}-realtime")
    group.mkdir()
    try:
        through = ("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh")
        with running(tmp_path, None, through, agent__mode="observe", http__address="127.0.0.1:0") as agent:
            until(lambda: bool(agent.named("realtime.refused")), "it is said")
            (said,) = agent.named("realtime.refused")
            assert "SCHED_FIFO" in said["why"]
            assert "cpu.rt_runtime_us" in said["hint"]
            until(lambda: "nodeagent_realtime 0.0" in agent.get("/metrics"), "ticks go on")
    finally:
        group.rmdir()
