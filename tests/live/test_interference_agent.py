"""Whole episodes with a real agent: who hurts is found, tried, held and let go, whatever comes between."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.core.formula import SHRINK
from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.kernel.place import remove_pod_cgroup
from nodeagent.model.decision import Tick
from nodeagent.model.interference import Rung, State, TrialResult
from nodeagent.model.policy import CapacityPolicy
from nodeagent.model.symptom import Sign
from nodeagent.rpc.happened import watched
from tests.live.episode_place import (
    ANSWER_S,
    EATER,
    GREEDY,
    HOG,
    WEB,
    Stage,
    learned,
    memory_stage,
    seen,
    story,
    target,
    ticks,
    told,
    wait,
    why,
)
from tests.live.restrained_place import held_pods
from tests.live.running import NODEAGENT, SLOWNESS, RunningAgent, cpu_file, quota_cores

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif("cpu" not in find_hierarchies("/").roots, reason="no cpu controller"),
    pytest.mark.timeout(420 * SLOWNESS),
]
episode = pytest.mark.skipif(
    "NODEAGENT_TEST_EPISODES" not in os.environ,
    reason="whole episodes take ten minutes of a quiet machine: make test-episodes",
)
FREE_CORES = 0.5  # the fair share of who is not held is more


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state directory of an agent that has learned what is usual here."""
    home = tmp_path_factory.mktemp("past")
    with held_pods() as pods, Stage(pods, home).agent() as agent:
        learned(agent)
    return agent.state


@pytest.fixture
def stage(past: Path, tmp_path: Path) -> Iterator[Stage]:
    """Everybody, an agent's memory from another day, and nothing left of it afterwards."""
    shutil.copytree(past, tmp_path / "state", ignore=shutil.ignore_patterns("journal"))
    with held_pods() as pods:
        made = Stage(pods, tmp_path)
        first = pods.texts()
        yield made
        assert {path: text for path, text in pods.texts().items() if path in first} == {
            path: text for path, text in first.items() if Path(path).exists()
        }


def attacked(stage: Stage, agent: RunningAgent) -> None:
    """Calm for some time, then the burner; until the agent tries whether it is the one."""
    learned(agent)
    time.sleep(20.0)  # to compare with
    stage.go.touch()
    wait(agent, lambda: seen(agent, "interference.trial_began", suspect=HOG), "a trial", 60)


def capped(stage: Stage) -> bool:
    cores = quota_cores(stage.hog)
    return cores is not None and cores < FREE_CORES


def free(stage: Stage) -> bool:
    cores = quota_cores(stage.hog)
    return cores is None or cores > FREE_CORES


def command(agent: RunningAgent, *words: str) -> str:
    """What a command says, asked of this agent; AssertionError where it fails."""
    address = ("--address", target(agent).address)
    done = subprocess.run(
        [*NODEAGENT, words[0], *address, *words[1:]],
        capture_output=True,
        text=True,
        timeout=ANSWER_S + 60 * SLOWNESS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def names(events: list[dict[str, object]]) -> list[str]:
    return [str(each["event"]) for each in events if str(each["event"]).startswith("interference.")]


@episode
def test_an_episode_from_the_first_harm_to_the_last_value_given_back(stage: Stage) -> None:
    relax_s = 15.0 * min(SLOWNESS, 4.0)  # so that commands can be asked meanwhile
    with stage.agent(interference__relax_after_s=relax_s, http__address="127.0.0.1:0") as agent:
        attacked(stage, agent)
        tried = time.monotonic()
        hurting = why(agent, WEB)
        assert hurting is not None and any(
            HOG in r.result for r in hurting.reasons if r.name[:7] == "episode"
        )
        wait(agent, lambda: seen(agent, "interference.trial_ended", result="kept"), "a trial that is kept")
        wait(agent, lambda: seen(agent, "interference.closed", victim=WEB), "the victim is well", 60)
        well = time.monotonic()
        time.sleep(3.0)
        assert stage.go.exists() and capped(stage), "it is well because the burner is held, which goes on"
        alone = stage.took_s(tried - 20.0, tried - 10.0)
        hurt = stage.took_s(tried - 2.0, tried)
        held = stage.took_s(well - 3.0, well + 3.0)
        assert hurt > 1.5 * alone and held < (alone + hurt) / 2, (alone, hurt, held)
        assert quota_cores(stage.lamb) is None or (quota_cores(stage.lamb) or 0.0) > 0.1, (
            "no innocent is held"
        )
        stage.go.unlink()
        said_while_held(stage, agent)
        wait(agent, lambda: free(stage) and not told(agent).restraints, "all given back", 300)
        said_afterwards(agent)
    recorded(agent)


def said_while_held(stage: Stage, agent: RunningAgent) -> None:
    """In every place the same: the burner, a trial that was kept, a quota."""
    found = told(agent)
    assert [each.cgroup for each in found.restraints] == [stage.hog], story(agent)
    (episode,) = (e for e in found.episodes if any(t.result is TrialResult.KEPT for t in e.trials))
    assert (episode.victim_name, episode.state) == (WEB, State.CALM)
    assert episode.cleared_unix is not None and episode.suspects[0].name == HOG
    assert all(t.uid == episode.suspects[0].uid for t in episode.trials), "nobody else was tried"
    reasons = why(agent, HOG)
    assert reasons is not None and any(r.name == f"restraint {stage.hog}" for r in reasons.reasons)
    text = command(agent, "interference")
    assert f"{WEB} was slowed from " in text and f"because {HOG} took CPU time; I capped it" in text
    assert "held back now:" in text and stage.hog in text
    listed = json.loads(command(agent, "interference", "-o", "json", WEB))
    assert [HOG] in [each["antagonists"] for each in listed["episodes"]]
    explained = command(agent, "explain", HOG)
    assert f"restraint {stage.hog}" in explained and WEB in explained
    assert 'nodeagent_interference_restraints{rung="quota"} 1' in agent.get("/metrics")


def said_afterwards(agent: RunningAgent) -> None:
    """The log, the events and the counts agree, and there is one line for each step."""
    logged = [e for e in agent.events() if e["event"].startswith("interference.") and e["level"] != "debug"]
    heard = watched(target(agent), ["interference"], debug=False, follow=False, timeout_s=ANSWER_S)
    assert [event.name for each in heard for event in each.events] == names(logged)
    count = {name: names(logged).count(name) for name in names(logged)}
    assert count["interference.opened"] == count["interference.closed"] >= 1
    page = agent.get("/metrics")
    assert f'nodeagent_interference_episodes_total{{channel="cpu"}} {count["interference.opened"]}.0' in page
    assert f"nodeagent_interference_duration_seconds_count {count['interference.closed']}.0" in page
    kept = sum(e.get("result") == "kept" for e in logged)
    assert kept >= 1 and f'nodeagent_interference_trials_total{{result="kept"}} {kept}.0' in page
    assert 'nodeagent_interference_restraints{rung="quota"} 0' in page
    assert 'nodeagent_interference_open{state="confirmed"} 0' in page


def recorded(agent: RunningAgent) -> None:
    """The journal decides the same again, has the episode, and a smaller offer in the very ticks of it."""
    done = subprocess.run(
        [*NODEAGENT, "replay", str(agent.state), "-o", "json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert HOG in [
        s["name"] for e in json.loads(done.stdout)["episodes"] for s in e["suspects"] if s["named"]
    ]
    found = ticks(agent)
    for last, tick in itertools.pairwise(found):
        assert has_shrunk(tick) is hurting(tick)
        if hurting(tick) and not hurting(last):
            cores, seconds = tick.snapshot.topology.cores, tick.snapshot.at - last.snapshot.at
            calm = last.decision.capacity.cpu.available + CapacityPolicy().raise_ratio_per_s * cores * seconds
            assert tick.decision.capacity.cpu.available <= 0.5 * calm + 1e-9
    assert sum(map(hurting, found)) >= 2


def hurting(tick: Tick) -> bool:
    return any(e.state is State.CONFIRMED for e in tick.decision.interference.episodes)


def has_shrunk(tick: Tick) -> bool:
    return any(term.name == SHRINK for term in tick.decision.capacity.cpu.terms)


@episode
def test_after_a_kill_in_mid_trial_the_next_start_lets_the_tried_one_go(stage: Stage) -> None:
    with stage.agent(interference__trial_s=60) as agent:
        attacked(stage, agent)
        wait(agent, lambda: capped(stage), "the cap of the trial")
        agent.stop(signal.SIGKILL)
        assert capped(stage), "nobody was there to take it off"
    stage.go.unlink()
    with stage.agent() as agent:
        wait(agent, lambda: free(stage), "its fair share")
        assert not told(agent).restraints


@episode
def test_after_a_kill_in_mid_trial_restore_gives_the_first_values_back(stage: Stage) -> None:
    first = {path: text for path, text in stage.pods.texts().items() if stage.hog in path}
    with stage.agent(interference__trial_s=60) as agent:
        attacked(stage, agent)
        wait(agent, lambda: capped(stage), "the cap of the trial")
        agent.stop(signal.SIGKILL)
    words = (f"agent.state_dir={agent.state}", f"agent.run_dir={agent.runtime}")
    sets = [word for each in words for word in ("--set", each)]
    done = subprocess.run([*NODEAGENT, "restore", *sets], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path: text for path, text in stage.pods.texts().items() if stage.hog in path} == first


@episode
@pytest.mark.parametrize("who", [WEB, HOG])
def test_when_victim_or_suspect_is_gone_in_mid_trial_it_is_over_and_nobody_is_held(
    stage: Stage, who: str
) -> None:
    with stage.agent(interference__trial_s=60) as agent:
        attacked(stage, agent)
        wait(agent, lambda: capped(stage), "the cap of the trial")
        remove_pod_cgroup(stage.pods.hierarchies, f"{stage.pods.top}/{who}", grace_s=0.1)
        wait(
            agent, lambda: seen(agent, "interference.trial_ended", result="cut-short"), "the end of the trial"
        )
        wait(agent, lambda: not told(agent).restraints, "nobody is held")
        if who == WEB:
            wait(agent, lambda: free(stage), "its fair share")
            assert seen(agent, "interference.closed", victim=WEB)
        stage.go.unlink()
        wait(agent, lambda: seen(agent, "interference.closed", victim=WEB), "the end of the episode", 60)
        assert agent.process.poll() is None and not told(agent).restraints


class Rival(threading.Thread):
    """Another writer, who gives a pod all that there is whenever it has less."""

    def __init__(self, cgroup: str) -> None:
        super().__init__(daemon=True)
        self._ended = threading.Event()
        v1 = cpu_file(f"{cgroup}/cpu.cfs_quota_us")
        self._file, self._none = (v1, "-1") if v1.exists() else (cpu_file(f"{cgroup}/cpu.max"), "max 100000")

    def run(self) -> None:
        while not self._ended.wait(0.02):
            if self._file.read_text().strip() != self._none:
                self._file.write_text(self._none)

    def end(self) -> None:
        self._ended.set()
        self.join()


@episode
def test_when_another_writer_undoes_the_cap_the_trial_proves_nothing_and_ends(stage: Stage) -> None:
    with stage.agent(interference__trial_s=30) as agent:
        attacked(stage, agent)
        rival = Rival(stage.hog)
        rival.start()
        try:
            wait(agent, lambda: seen(agent, "interference.trial_ended", result="cut-short"), "its end", 60)
            assert not seen(agent, "interference.trial_ended", result="kept"), story(agent)
            assert any("does not hold" in str(e.get("why")) for e in agent.named("interference.step"))
        finally:
            rival.end()
        stage.go.unlink()
        wait(agent, lambda: seen(agent, "interference.closed", victim=WEB), "the end of the episode", 60)
        assert agent.process.poll() is None


# I/O waits depend on the device, networks on the pod
CERTAIN = (
    Sign.CPU_STALL, Sign.RUN_DELAY, Sign.MEMORY_STALL, Sign.REFAULTS, Sign.DIRECT_RECLAIM, Sign.IO_STALL,
    Sign.CPI, Sign.MPKI, Sign.LLC_OCCUPANCY, Sign.MEMORY_BANDWIDTH,
)  # fmt: skip


def test_the_doctor_promises_the_signs_that_the_agent_then_has(stage: Stage) -> None:
    done = subprocess.run([*NODEAGENT, "doctor", "-o", "json"], capture_output=True, text=True, check=False)
    found = [f["found"].partition("not ") for f in json.loads(done.stdout) if f["name"].startswith("signs: ")]
    promised = {sign.strip(" ;") for has, _, _ in found for sign in has.split(",")}
    with stage.agent() as agent:
        learned(agent)
        known = why(agent, WEB)
        assert known is not None
        values = {i.name: i.value for r in known.reasons if r.name == "signs" for i in r.inputs}
    assert {s for s in CERTAIN if values[s] != "not supported"} == {s for s in CERTAIN if s.value in promised}


@pytest.fixture(params=[EATER])
def short_of_memory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    with held_pods() as pods:
        if "memory" not in pods.hierarchies.roots:
            pytest.skip("no memory controller")
        made = memory_stage(pods, tmp_path, request.param)
        first = pods.texts()
        yield made
        assert {path: text for path, text in pods.texts().items() if path in first} == first


@episode
def test_harm_by_lack_of_memory_is_told_as_such_and_is_over_when_there_is_enough_again(
    short_of_memory: Stage,
) -> None:
    stage = short_of_memory
    with stage.agent(agent__slow_tick_s=1.0) as agent:
        learned(agent)
        time.sleep(20.0)
        stage.go.touch()
        wait(agent, lambda: seen(agent, "interference.opened", victim=WEB), "an episode")
        time.sleep(10.0)
        assert seen(agent, "interference.opened", victim=WEB, resource="memory"), story(agent)
        assert not seen(agent, "interference.resource", victim=WEB), (
            "that pages are read is not the disk's fault"
        )
        (episode, *_) = (each for each in told(agent).episodes if each.victim_name == WEB)
        assert Sign.REFAULTS in {alarm.sign for alarm in episode.evidence}
        assert {each.name for each in episode.suspects if each.named} <= {HOG}, "nobody else, if anybody"
        stage.go.unlink()
        wait(agent, lambda: seen(agent, "interference.closed", victim=WEB), "its end", 60)
        wait(agent, lambda: not told(agent).restraints, "nobody is held", 300)


@episode
@pytest.mark.parametrize("short_of_memory", [GREEDY], indirect=True)
def test_who_takes_the_page_cache_is_tried_and_held_by_its_memory_until_the_victim_has_its_own_again(
    short_of_memory: Stage,
) -> None:
    stage = short_of_memory
    bound = stage.pods.file(stage.hog, "memory.high", "memory.soft_limit_in_bytes")
    if bound.name != "memory.high":
        pytest.skip("cgroup v1 has no memory.high")
    with stage.agent(agent__slow_tick_s=1.0, interference__relax_after_s=15.0) as agent:
        learned(agent)
        time.sleep(20.0)
        stage.go.touch()
        wait(agent, lambda: seen(agent, "interference.trial_began", suspect=HOG), "a trial", 60)
        wait(agent, lambda: bound.read_text() != "max\n", "memory.high of ours")
        wait(agent, lambda: seen(agent, "interference.trial_ended", result="kept"), "its end", 60)
        held = [each for each in told(agent).restraints if each.cgroup == stage.hog]
        assert [(each.rung, each.quota_cores) for each in held] == [(Rung.SHRINK, None)], story(agent)
        wait(agent, lambda: seen(agent, "interference.closed", victim=WEB), "the victim is well", 60)
        assert stage.go.exists(), "it is well because the other is held, which goes on"
        stage.go.unlink()
        wait(agent, lambda: not told(agent).restraints, "nobody is held", 300)
        wait(agent, lambda: bound.read_text() == "max\n", "all given back")
