"""The trouble of search-7 with transcode-3, step by step, as the agent has it tick by tick."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from nodeagent.model.decision import Tick
from nodeagent.model.interference import (
    Action,
    Alarm,
    Episode,
    Gate,
    Interference,
    Rejection,
    Restraint,
    Rung,
    State,
    Suspect,
    Trial,
    TrialResult,
    Verdict,
)
from nodeagent.model.pod import Qos
from nodeagent.model.symptom import Channel
from tests.unit import samples
from tests.unit.metric_pages import named

VICTIM, ANTAGONIST, OTHER = "uid-7", "uid-3", "uid-2"
STALL = Alarm("cpu.stall", Channel.CPU, 0.41, 0.03, 6.0, 12.0)
DELAY = Alarm("cpu.run_delay", Channel.CPU, 1.2, 0.1, 4.0, 8.0)
TRANSCODE = Suspect(
    ANTAGONIST, "transcode-3", "b/3", {"rho": 0.91, "lift": 0.42}, 0.006, 0.8, 0.9, named=True
)
BUILD = Suspect(OTHER, "build-2", "b/2", {"rho": 0.2, "lift": 0.01}, 0.4, 0.2)
PODS = (
    named("search-7", 7),
    named("transcode-3", 3, qos=Qos.BATCH),
    named("build-2", 2, qos=Qos.BATCH),
)


def at(seq: int) -> float:
    """The wall clock of tick `seq`."""
    return samples.snapshot(seq).unix


def episode(seq: int, **more: object) -> Episode:
    """Opened in tick `seq`."""
    given: dict[str, object] = {"state": State.SUSPECT, "evidence": (STALL,), **more}
    return Episode(
        id="cpu-1", victim=VICTIM, victim_name="search-7", victim_cgroup="nodeagent/ls/search-7",
        channel=Channel.CPU, opened_at=samples.snapshot(seq).at, opened_unix=at(seq), **given,  # type: ignore[arg-type]
    )  # fmt: skip


def with_interference(seq: int, found: Interference) -> Tick:
    """Tick `seq` with the three pods."""
    tick = samples.tick(seq, pods=PODS)
    return replace(tick, decision=replace(tick.decision, interference=found))


def rejection(gate: Gate = Gate.OWN_QUOTA, sign: str = "cpu.stall") -> Rejection:
    return Rejection(replace(STALL, sign=sign), gate, "throttled in 35 % of its periods")


def stopped(*rejections: Rejection) -> Interference:
    return Interference(verdicts=(Verdict(VICTIM, State.SUSPECT, 0.4, None, (), rejections),))


def restraint(seq: int, rung: Rung = Rung.QUOTA) -> Restraint:
    return Restraint(
        uid=ANTAGONIST, cgroup="b/3", rung=rung, episode="cpu-1", until=samples.snapshot(seq).at + 20.0,
        why="search-7 waits for CPU", quota_cores=0.5,
    )  # fmt: skip


def course() -> Iterator[Interference]:
    """Ten ticks: calm, suspected, confirmed and named, tried, kept, well again, closed, calm."""
    yield Interference()
    yield Interference(episodes=(episode(1),))
    yield Interference(episodes=(episode(1),))
    hurt = episode(1, state=State.CONFIRMED, suspects=(TRANSCODE, BUILD), evidence=(STALL, DELAY))
    yield Interference(episodes=(hurt,))
    began = samples.snapshot(4).at
    capped = replace(
        hurt,
        trials=(Trial(ANTAGONIST, began, began + 10.0, 0.38, sign="cpu.stall"),),
        actions=(Action(at(4), ANTAGONIST, Rung.QUOTA, "0.5 cores on trial"),),
    )
    yield Interference(episodes=(capped,), restraints=(restraint(4),))
    yield Interference(episodes=(capped,), restraints=(restraint(5),))
    kept = replace(capped, trials=(replace(capped.trials[0], during=0.04, result=TrialResult.KEPT),))
    yield Interference(episodes=(kept,), restraints=(restraint(6),), directed=(VICTIM,))
    yield Interference(episodes=(replace(kept, state=State.CALM),), restraints=(restraint(7),))
    yield Interference(episodes=(replace(kept, state=State.CALM, cleared_unix=at(8)),))
    yield Interference()


def ticks() -> list[Tick]:
    return [with_interference(seq, found) for seq, found in enumerate(course())]
