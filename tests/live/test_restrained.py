"""Restraints on the real kernel: each step bites, is undone to the byte, and nobody is left frozen."""

from __future__ import annotations

import math
import mmap
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.core import interference
from nodeagent.kernel.memory import MemoryV1
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.errors import AgentError
from nodeagent.model.interference import Rung
from nodeagent.model.plan import Kind, Knob, Plan, Setting, numeric, one_owner
from nodeagent.model.settings import Actuator
from tests.live.kills import kill_and_restore
from tests.live.restrained_place import Held, Pods, course, held_pods, hold, holding
from tests.live.running import NODEAGENT, SLOWNESS, SPIN, running, until

pytestmark = pytest.mark.live
MIB = 1 << 20


@pytest.fixture
def pods() -> Iterator[Pods]:
    with held_pods() as made:
        yield made


@pytest.fixture
def held(pods: Pods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    first = pods.texts()
    with holding(pods, tmp_path, monkeypatch) as made:
        yield made
    assert {path: text for path, text in pods.texts().items() if path in first} == first


def _quota(held: Held, cgroup: str) -> float:
    knob = Knob(Kind.CPU_QUOTA, cgroup)
    found = {r.knob: r.actual for r in held.host.knobs.read([knob], held.originals.held)}
    return numeric(found[knob])


def _used_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_capped_pod_runs_at_its_cap_and_the_others_get_the_rest(pods: Pods, held: Held) -> None:
    noisy, other = pods.make("noisy", SPIN), pods.make("other", SPIN)
    for _ in range(3):
        held.tick()
        time.sleep(0.3)
    before = _quota(held, other)
    tick = held.tick(hold(noisy, quota_cores=0.1))
    begun, used = time.monotonic(), _used_s(pods.pid(1))
    while time.monotonic() - begun < 2.0 * SLOWNESS:
        tick = held.tick(hold(noisy, quota_cores=0.1))
        time.sleep(0.25)
    ran = (_used_s(pods.pid(1)) - used) / (time.monotonic() - begun)
    assert _quota(held, noisy) == pytest.approx(0.1, abs=1e-5)
    assert ran < 0.2, "a tenth of a core, and what it ran before the first write"
    limit = tick.decision.batch_limit_cores
    assert limit is not None
    assert _quota(held, other) >= 0.8 * (limit - 0.1 - _quota(held, f"{pods.top}/probe"))
    assert _quota(held, other) > 0.9 * before
    held.tick()
    assert _quota(held, noisy) > 0.2


def test_cpus_are_left_and_come_back_and_what_is_inside_the_pod_goes_along(pods: Pods, held: Held) -> None:
    if "cpuset" not in pods.hierarchies.roots or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("no cpuset controller, or one CPU alone")
    pods.make("noisy/app")  # on cgroup v2 no process can be in a cgroup around others
    noisy = f"{pods.top}/noisy"
    everywhere = os.sched_getaffinity(pods.pid(1))
    away = min(everywhere)
    held.ticks(hold(noisy, Rung.CPUSET, away_from=str(CpuSet({away}))))
    assert os.sched_getaffinity(pods.pid(1)) == everywhere - {away}
    held.tick(hold(noisy, Rung.CPUSET, away_from=str(CpuSet(everywhere))))
    assert os.sched_getaffinity(pods.pid(1)) == everywhere, "there would be nowhere left to go"
    held.ticks(hold(noisy, Rung.CPUSET, away_from=str(CpuSet({max(everywhere)}))))
    assert os.sched_getaffinity(pods.pid(1)) == everywhere - {max(everywhere)}
    held.tick()
    assert os.sched_getaffinity(pods.pid(1)) == everywhere


def test_without_a_restraint_no_set_is_read_nor_anything_else_of_these(pods: Pods, held: Held) -> None:
    noisy = pods.make("noisy")
    held.tick()
    few = {r.knob.kind for r in held.tick().snapshot.knobs if r.knob.target.startswith(pods.top)}
    assert few == {Kind.CPU_QUOTA, Kind.CPU_WEIGHT}
    held.tick(hold(noisy, Rung.FREEZE, memory_high_bytes=MIB, io_weight=0.5, away_from="0"))
    seen = held.tick(hold(noisy, Rung.FREEZE, memory_high_bytes=MIB, io_weight=0.5, away_from="0")).snapshot
    kinds = {r.knob.kind for r in seen.knobs} | {knob.kind for knob in seen.absent}
    assert kinds >= {Kind.CPUS, Kind.MEMORY_HIGH, Kind.IO_WEIGHT, Kind.FREEZE}


EATER = f"""
import mmap, sys, time
pages = mmap.mmap(-1, 96 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, {64 * MIB}, 4096): pages[at] = 1
print("eaten", flush=True)
sys.stdin.readline()
for at in range({64 * MIB}, {96 * MIB}, 4096): pages[at] = 1
print("more", flush=True)
time.sleep(300)
"""


def _eater(pods: Pods, cgroup: str) -> subprocess.Popen[str]:
    """A process of 64 MiB in the pod, that takes 32 more when it is told to."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", f"input()\n{EATER}"], stdin=pipe, stdout=pipe, text=True
    )
    for hierarchy in pods.hierarchies.all:
        Path(hierarchy.root, cgroup, "cgroup.procs").write_text(str(process.pid))
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "eaten\n"
    return process


def test_memory_is_bounded_without_a_kill_and_the_bound_is_taken_off(pods: Pods, held: Held) -> None:
    noisy = pods.make("noisy")
    file = pods.file(noisy, "memory.high", "memory.soft_limit_in_bytes")
    first = file.read_text()
    eater = _eater(pods, noisy)
    try:
        began = time.monotonic()
        held.ticks(hold(noisy, Rung.SHRINK, memory_high_bytes=8 * MIB))
        assert time.monotonic() - began < 2.0 * SLOWNESS, "no write waits for reclaim"
        bound = int(file.read_text())
        assert 60 * MIB <= bound <= 90 * MIB, "what cannot be had back without swap is let be"
        assert eater.stdin is not None and eater.stdout is not None
        if file.name == "memory.soft_limit_in_bytes":  # v2 slows it down for long
            eater.stdin.write("\n")
            eater.stdin.flush()
            assert eater.stdout.readline() == "more\n"
            held.tick(hold(noisy, Rung.SHRINK, memory_high_bytes=8 * MIB))
            assert int(file.read_text()) == bound, "who grows is not given more"
        assert eater.poll() is None
        held.tick()
        assert file.read_text() == first
    finally:
        eater.kill()
        eater.communicate()


def test_v1s_hard_limit_is_no_means_it_is_refused_or_kills(pods: Pods) -> None:
    """Why kernel.memory takes the soft one."""
    if pods.hierarchies.roots["memory"].version != 1 or _swap_bytes() > 0:
        pytest.skip("of cgroup v1 without swap")
    noisy = pods.make("noisy")
    limit = pods.file(noisy, "memory.limit_in_bytes")
    eater = _eater(pods, noisy)
    try:
        with pytest.raises(OSError, match="busy"):
            limit.write_text(str(32 * MIB))
        assert MemoryV1(str(limit.parent)).read(Kind.MEMORY_HIGH).actual == math.inf
        limit.write_text(str(80 * MIB))
        assert eater.stdin is not None
        eater.stdin.write("\n")
        eater.stdin.flush()
        until(lambda: eater.poll() is not None, "the kernel to kill who grows into the limit")
        assert eater.returncode == -signal.SIGKILL
    finally:
        eater.kill()
        eater.communicate()


def _swap_bytes() -> int:
    return sum(int(line.split()[2]) for line in Path("/proc/swaps").read_text().splitlines()[1:])


def test_io_weight_is_lowered_and_put_back(pods: Pods, held: Held) -> None:
    noisy = pods.make("noisy")
    file = pods.file(noisy, "io.weight", "io.bfq.weight", "blkio.bfq.weight", "blkio.weight")
    first = file.read_text()
    held.ticks(hold(noisy, Rung.IDLE, io_weight=0.01))
    assert file.read_text().split()[-1] == "1"
    held.tick()
    assert file.read_text() == first


def test_what_is_not_in_agent_enforce_is_not_touched(
    pods: Pods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = pods.make("noisy", SPIN)
    before = {p: t for p, t in pods.texts().items() if "cpu" not in Path(p).name}
    with holding(pods, tmp_path, monkeypatch, (Actuator.CPU,)) as held:
        held.ticks(
            hold(noisy, Rung.FREEZE, memory_high_bytes=MIB, io_weight=0.01, frozen=True, quota_cores=0.05)
        )
        assert {p: t for p, t in pods.texts().items() if "cpu" not in Path(p).name} == before
        assert _quota(held, noisy) == pytest.approx(0.05, abs=1e-5)


def _frozen(pods: Pods, cgroup: str) -> bool:
    file = pods.file(cgroup, "cgroup.freeze", "freezer.state")
    return file.read_text().strip() in ("1", "FROZEN", "FREEZING")


def test_a_frozen_pod_stands_still_and_goes_on(pods: Pods, held: Held) -> None:
    noisy = pods.make("noisy", SPIN)
    held.ticks(hold(noisy, Rung.FREEZE, frozen=True))
    assert _frozen(pods, noisy)
    time.sleep(0.1)  # those on a CPU stop at their next way into the kernel
    used = _used_s(pods.pid(1))
    time.sleep(0.5)
    assert _used_s(pods.pid(1)) == used
    held.tick(hold(noisy, Rung.FREEZE, frozen=False))
    assert not _frozen(pods, noisy)
    until(lambda: _used_s(pods.pid(1)) > used, "it to run on")
    held.tick(hold(noisy, Rung.FREEZE, frozen=True))
    held.tick()
    assert not _frozen(pods, noisy)
    assert Knob(Kind.FREEZE, noisy) not in held.originals.held


def test_who_cannot_see_the_node_thaws(pods: Pods, held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = pods.make("noisy")
    held.ticks(hold(noisy, Rung.FREEZE, frozen=True))
    assert _frozen(pods, noisy)

    def blind(*_: object, **__: object) -> None:
        raise AgentError("nothing to be seen")

    with monkeypatch.context() as patched:
        patched.setattr(held.host, "read", blind)
        assert held.loop.tick("test") is None
    assert not _frozen(pods, noisy)


def test_the_pod_of_the_agent_itself_is_never_frozen(pods: Pods) -> None:
    """Tried by a process of its own: were it frozen, it would be for good."""
    noisy = pods.make("noisy")
    procs = [str(Path(h.root, noisy, "cgroup.procs")) for h in pods.hierarchies.all]
    text = (
        "import os, sys\n"
        "from nodeagent.kernel.knobs import Knobs\n"
        "from nodeagent.kernel.mounts import find_hierarchies\n"
        "from nodeagent.model.plan import Change, Kind, Knob\n"
        "for path in sys.argv[2:]: open(path, 'w').write(str(os.getpid()))\n"
        "knobs = Knobs(find_hierarchies())\n"
        "(done,) = knobs.apply([Change(Knob(Kind.FREEZE, sys.argv[1]), 0.0, 1.0, '')])\n"
        "print(done.error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", text, noisy, *procs],
        check=False,
        capture_output=True,
        text=True,
        timeout=60 * SLOWNESS,
    )
    assert "the agent itself is in it" in done.stdout
    assert not _frozen(pods, noisy)


@pytest.fixture
def killed(pods: Pods, tmp_path: Path) -> str:
    """The cgroup of a pod that a loop has frozen, capped and bounded before it was killed."""
    noisy = pods.make("noisy", SPIN)
    pid = os.fork()
    if pid == 0:
        try:
            held = Held(pods, tmp_path)
            interference.watch = course(lambda: held.restraints)
            while True:
                held.tick(hold(noisy, Rung.FREEZE, frozen=True, quota_cores=0.1, memory_high_bytes=0))
        finally:
            os._exit(1)
    try:
        until(lambda: _frozen(pods, noisy), "the pod to be frozen")
    finally:
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status)
    assert _frozen(pods, noisy)
    return noisy


def test_after_kill_9_restore_thaws_and_puts_all_back(pods: Pods, killed: str, tmp_path: Path) -> None:
    words = [*NODEAGENT, "restore", "--set", f"agent.state_dir={tmp_path / 'state'}", "--keep-nics"]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60 * SLOWNESS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"cgroup.freeze {killed}: frozen -> running" in done.stdout
    assert not _frozen(pods, killed)
    used = _used_s(pods.pid(1))
    until(lambda: _used_s(pods.pid(1)) > used, "it to run on")


def test_after_kill_9_the_next_agent_thaws_whatever_it_may_write(
    pods: Pods, killed: str, tmp_path: Path
) -> None:
    config = tmp_path / "na.toml"
    config.write_text(f'scope = ["{pods.top}/**"]\n[[pods]]\nmatch = "{pods.top}/*"\nqos = "batch"\n')
    with running(tmp_path, config, agent__enforce='["cpu"]') as agent:
        until(lambda: not _frozen(pods, killed), "the pod to go on")
        assert agent.stop() == 0


def test_an_agent_that_keeps_its_values_thaws_on_its_way_in_and_out(
    pods: Pods, killed: str, tmp_path: Path
) -> None:
    config = tmp_path / "na.toml"
    config.write_text(f'scope = ["{pods.top}/**"]\n[[pods]]\nmatch = "{pods.top}/*"\nqos = "batch"\n')
    values = {"agent__enforce": '["cpu", "memory", "io", "freeze"]', "agent__on_exit": "keep"}
    with running(tmp_path, config, **values) as agent:
        until(lambda: not _frozen(pods, killed), "the pod to go on")
        assert agent.stop() == 0
    assert not _frozen(pods, killed)


def test_after_kill_9_at_random_instants_restore_puts_every_file_back(pods: Pods, tmp_path: Path) -> None:
    noisy, other = pods.make("noisy"), pods.make("other")
    kinds = (Kind.MEMORY_HIGH, Kind.IO_WEIGHT, Kind.FREEZE, Kind.CPU_QUOTA)
    knobs = tuple(Knob(kind, path) for kind in kinds for path in (noisy, other))

    def value(rng: random.Random, kind: Kind) -> float:
        choices = {
            Kind.MEMORY_HIGH: (math.inf, float(rng.randrange(64, 512) * MIB)),
            Kind.IO_WEIGHT: (1.0, rng.randrange(1, 1000) / 100),
            Kind.FREEZE: (0.0, 1.0),
            Kind.CPU_QUOTA: (math.inf, rng.uniform(0.1, 2.0)),
        }
        return rng.choice(choices[kind])

    def wild(rng: random.Random) -> Plan:
        chosen = (knob for knob in knobs if rng.random() < 0.7)
        return one_owner(Setting(knob, value(rng, knob.kind), "test", "") for knob in chosen)

    assert mmap.PAGESIZE <= MIB
    kill_and_restore(pods, tmp_path, knobs, wild, 20)
