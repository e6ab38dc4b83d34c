"""What tests of a throw-away machine share: they change the machine itself, so they run nowhere else."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from nodeagent.model.cpuset import CpuSet
from tests.live.running import RunningAgent, held_set, until

NODES = Path("/sys/devices/system/node")
QUIET_TICKS = 4

ONLY_HERE = [
    pytest.mark.live,
    pytest.mark.skipif(
        os.environ.get("NODEAGENT_TEST_VM") != "1",
        reason="changes the machine itself (units, CPUs): only in a throw-away one, by make vm-test",
    ),
]


def output(*command: str) -> str:
    """What a command says; CalledProcessError when it fails."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def online() -> CpuSet:
    """The CPUs that are there now."""
    return CpuSet.parse(Path("/sys/devices/system/cpu/online").read_text())


def ticks_of(page: str) -> float:
    """How many ticks an agent tells in its metrics."""
    return sum(map(float, re.findall(r"ticks_total\{woken_by=.*\} (\S+)", page)))


def siblings(cpu: int) -> CpuSet:
    """The online threads of its core."""
    topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    return (
        CpuSet.parse((topology / "thread_siblings_list").read_text()) if topology.exists() else CpuSet({cpu})
    )


@contextlib.contextmanager
def unplugged(cpu: int) -> Iterator[None]:
    """The machine without this CPU; it is back afterwards."""
    file = Path(f"/sys/devices/system/cpu/cpu{cpu}/online")
    file.write_text("0")
    try:
        yield
    finally:
        file.write_text("1")


def settled(agent: RunningAgent) -> None:
    """Wait until the agent, which serves metrics, has written no set in QUIET_TICKS ticks from now on."""
    since = (-1, 0.0)

    def quiet() -> bool:
        nonlocal since
        writes = sum(event["knob"].startswith("cpuset") for event in agent.named("knob.written"))
        ticks = ticks_of(agent.get("/metrics"))
        if writes != since[0]:
            since = (writes, ticks)
        return ticks - since[1] > QUIET_TICKS

    until(quiet, "no set is written any more", 60.0)


def sets_of(paths: Sequence[str]) -> list[CpuSet]:
    """CPUs and memory nodes that hold for these cgroups."""
    return [held_set(path, name) for path in paths for name in ("cpus", "mems")]


def apart(bound: Sequence[str], batch: Sequence[str]) -> None:
    """AssertionError unless bound pods have whole cores that nobody else has, and no set is empty."""
    owned = [held_set(path) for path in bound]
    others = [held_set(path) for path in batch]
    assert all(owned) and all(others)
    assert CpuSet().union(*owned, *others) <= online()
    cores = [CpuSet().union(*map(siblings, cpus)) for cpus in owned]
    for number, core in enumerate(cores):
        assert not any(core & cpus for cpus in (*owned[:number], *owned[number + 1 :], *others))
