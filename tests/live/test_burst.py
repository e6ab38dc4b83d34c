"""Bursts on the real kernel: what it takes in which order, and what they do for a bursty LS pod."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.core.diff import diff
from nodeagent.kernel.knobs import Knobs
from nodeagent.model.errors import Refused
from nodeagent.model.plan import Kind, Knob, Setting, one_owner
from nodeagent.originals import Originals
from nodeagent.restore import give_back
from tests.live.cpu_place import Place, cpu_place
from tests.live.running import (
    SLOWNESS,
    SPIN,
    cpu_file,
    executed,
    quota_cores,
    running,
    throttling,
    unique,
    until,
    used_s,
)

pytestmark = pytest.mark.live

# Half as much again as a period's quota, then rest for two periods: within the limit on average. An emulated
# machine counts as used what its host takes from it, which is little only in a long period.
PERIOD_S, MOST_RATIO = (0.1, 0.5) if SLOWNESS == 1.0 else (1.0, 0.8)
LIMIT = 0.1
WORK_S = 1.5 * LIMIT * PERIOD_S
BURSTY = f"""
import time
while True:
    end = time.thread_time() + {WORK_S}
    while time.thread_time() < end:
        pass
    time.sleep({2 * PERIOD_S})
"""
SAMPLE_CORE_S = (40 if SLOWNESS == 1.0 else 15) * WORK_S


@pytest.fixture
def place() -> Iterator[Place]:
    with cpu_place() as made:
        if not any("burst" in name for name in made.texts()):
            pytest.skip("no CPU burst here: Linux before 5.14")
        yield made


def burst_us(path: str) -> int:
    v1 = cpu_file(f"{path}/cpu.cfs_burst_us")
    return int((v1 if v1.exists() else cpu_file(f"{path}/cpu.max.burst")).read_text())


def test_the_kernel_refuses_a_burst_above_its_quota_and_a_quota_below_its_burst(place: Place) -> None:
    cgroup = place.dialect()
    cgroup.burst_us = 200_000  # without a quota any burst is taken
    cgroup.burst_us = 0
    cgroup.write(Kind.CPU_QUOTA, 0.5)
    with pytest.raises(Refused, match="EINVAL"):
        cgroup.burst_us = 50_001
    cgroup.write(Kind.CPU_BURST, 0.5)
    assert cgroup.read(Kind.CPU_BURST).actual == 0.5
    with pytest.raises(Refused, match="EINVAL"):
        cgroup.set_bandwidth(49_999.0, 100_000)


def test_no_write_of_two_hundred_random_plans_is_refused_and_all_is_given_back(
    place: Place, tmp_path: Path
) -> None:
    luck = random.Random(5)
    paths = [place.target, *(place.make(name) for name in ("b", "c", "b/d"))]
    targets = [Knob(kind, path) for path in paths for kind in (Kind.CPU_QUOTA, Kind.CPU_BURST)]
    before = place.texts()
    knobs, originals = Knobs(place.hierarchies), Originals(str(tmp_path), "boot")
    written = 0
    for _ in range(200):
        wanted = [knob for knob in targets if luck.random() < 0.7]
        plan = one_owner(Setting(knob, _value(luck, knob), "t", "") for knob in wanted)
        changes = originals.intend(diff(plan, knobs.read(targets, originals.held)), knobs.inode)
        outcomes = knobs.apply(changes)
        assert [o.error for o in outcomes if not o.ok] == []
        originals.confirm(outcomes)
        written += len(outcomes)
    assert written > 200
    assert give_back(originals, knobs).failed == ()
    knobs.close()
    assert place.texts() == before


def _value(luck: random.Random, knob: Knob) -> float:
    if knob.kind is Kind.CPU_QUOTA and luck.random() < 0.2:
        return math.inf
    return luck.randint(1, 400) / 100


def test_a_limit_is_there_before_the_command_and_the_kernels_burst_while_an_agent_runs(
    tmp_path: Path,
) -> None:
    name = unique("limited")
    path = f"nodeagent/ls/{name}"
    with (
        running(tmp_path) as agent,
        executed(agent.runtime, "ls", name, SPIN, "--cpu-limit", "0.3"),
    ):
        until(lambda: quota_cores(path) is not None, "the limit")
        until(lambda: burst_us(path) == 30_000, "the kernel's burst")
        agent.stop()
        assert burst_us(path) == 0
        assert quota_cores(path) == 0.3


def test_a_throttled_pod_gets_more_quota_until_its_budget_is_used_up(tmp_path: Path) -> None:
    name = unique("burst")
    path = f"nodeagent/ls/{name}"
    with (
        running(tmp_path, burst__budget_s=10, capacity__cpu_ceiling_ratio=1.0) as agent,
        executed(agent.runtime, "ls", name, SPIN, "--cpu-limit", "0.1"),
    ):
        until(lambda: (quota_cores(path) or 0.0) > 0.1, "more quota: is there room on this node?", 120.0)
        until(lambda: bool(agent.named("burst.began")), "the event")
        assert agent.named("burst.began")[0]["cgroup"] == path
        until(lambda: bool(agent.named("burst.ended")), "its end")
        until(lambda: quota_cores(path) == 0.1, "its own quota again")
    refused = [e for e in agent.named("knob.refused") if path in e["knob"]]
    assert refused == []


def test_a_batch_pod_with_a_limit_never_gets_a_burst_nor_more_than_its_limit(tmp_path: Path) -> None:
    name = unique("nobatch")
    path = f"nodeagent/batch/{name}"
    with (
        executed(tmp_path / "run", "batch", name, SPIN, "--cpu-limit", "0.2"),
        running(tmp_path) as agent,
    ):
        until(lambda: throttling(path)[0] > 10, "it is throttled")
        assert burst_us(path) == 0
        assert (quota_cores(path) or 9.0) <= 0.2
        agent.stop()
        assert quota_cores(path) == 0.2


def _set_period(path: str) -> None:
    """The same limit over PERIOD_S."""
    period_us = round(PERIOD_S * 1e6)
    quota_us = round(LIMIT * period_us)
    if cpu_file(f"{path}/cpu.max").exists():
        cpu_file(f"{path}/cpu.max").write_text(f"{quota_us} {period_us}")
    else:
        cpu_file(f"{path}/cpu.cfs_period_us").write_text(str(period_us))
        cpu_file(f"{path}/cpu.cfs_quota_us").write_text(str(quota_us))


def _throttled(home: Path, name: str, ratio: float) -> tuple[int, float]:
    """Throttling of the bursty pod while it works SAMPLE_CORE_S, with this share of its quota as burst."""
    home.mkdir()
    path = f"nodeagent/ls/{name}"
    command = f"exec {sys.executable} -c '{BURSTY}'"
    with executed(home / "run", "ls", name, command, "--cpu-limit", str(LIMIT)):
        until(lambda: quota_cores(path) == LIMIT, "the limit")
        _set_period(path)
        with running(home, burst__kernel_ratio=ratio, burst__max_ratio=1.0):
            until(lambda: throttling(path)[0] > 0 or burst_us(path) > 0, "it runs")
            until(lambda: burst_us(path) == round(ratio * LIMIT * PERIOD_S * 1e6), "the burst")
            begin, before = used_s(path), throttling(path)
            until(lambda: used_s(path) - begin >= SAMPLE_CORE_S, "its work", 60.0)
            after = throttling(path)
    return after[0] - before[0], after[1] - before[1]


def test_a_bursty_pod_is_throttled_far_less_with_the_kernels_burst(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without, saved = (
        _throttled(tmp_path / "0", unique("b0"), 0.0),
        _throttled(tmp_path / "1", unique("b1"), 1.0),
    )
    with capsys.disabled():
        sys.stdout.write(
            f"\nthrottled without burst: {without[0]} periods, {without[1]:.2f} s; "
            f"with: {saved[0]} periods, {saved[1]:.2f} s; ratio {saved[1] / max(without[1], 1e-9):.2f}\n"
        )
    assert without[0] > 10
    assert saved[0] <= without[0] * MOST_RATIO
    assert saved[1] <= without[1] * MOST_RATIO


def test_a_limit_that_somebody_sets_during_a_burst_is_the_pods_own_from_then_on(tmp_path: Path) -> None:
    name = unique("theirs")
    path = f"nodeagent/ls/{name}"
    with (
        running(tmp_path, burst__budget_s=600, capacity__cpu_ceiling_ratio=1.0) as agent,
        executed(agent.runtime, "ls", name, SPIN, "--cpu-limit", "0.1"),
    ):
        until(lambda: (quota_cores(path) or 0.0) > 0.1, "more quota: is there room on this node?", 120.0)
        v1 = cpu_file(f"{path}/cpu.cfs_quota_us")
        (v1 if v1.exists() else cpu_file(f"{path}/cpu.max")).write_text("30000")
        until(lambda: (quota_cores(path) or 0.0) > 0.3, "a burst from the new limit", 120.0)
        assert agent.stop() == 0
        assert quota_cores(path) == 0.3
        assert burst_us(path) == 0
