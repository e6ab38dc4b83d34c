"""What is remembered for attribution: complete, small, and no longer than the window."""

from __future__ import annotations

from msgspec.structs import replace

from nodeagent.core import rates
from nodeagent.core.interference.frame import sampled, used
from nodeagent.core.interference.history import CORES, FAULTS, IO, SYSTEM, remember
from nodeagent.core.interference.measures import Measures
from nodeagent.model.history import History
from nodeagent.model.policy import Policy
from nodeagent.model.snapshot import Pod, Snapshot
from nodeagent.model.symptom import DeviceUse, Sign, Symptoms
from tests.unit import samples

POLICY = Policy()


def _snapshot(
    seq: int, cores: float = 0.5, symptoms: Symptoms | None = None, at: float | None = None
) -> Snapshot:
    at = 1000.0 + seq if at is None else at
    pod = samples.pod(1, at, cores=cores)
    exact = replace(pod.reading, cpu_us=int(at * cores * 1e6))
    return samples.snapshot(seq, at, pods=(replace(pod, reading=exact, symptoms=symptoms),), cores=2)


def _told(pods: tuple[Pod, ...], **values: float) -> dict[str, Measures]:
    known = {Sign[name.upper()]: value for name, value in values.items()}
    return {pod.spec.uid: Measures(known, frozenset()) for pod in pods}


def _folded(seen: list[Snapshot], stalls: list[float | None], policy: Policy = POLICY) -> History:
    history, previous = History(), None
    for snapshot, stall in zip(seen, stalls, strict=True):
        told = {} if stall is None else _told(snapshot.pods, cpu_stall=stall)
        history = remember(history, rates.view(snapshot, previous), told, policy)
        previous = snapshot
    return history


def test_use_and_signs_come_back_as_they_were() -> None:
    history = _folded([_snapshot(n) for n in range(6)], [0.0, 0.0, 0.25, 0.5, 0.0, 0.125])
    slot = history.slots["nodeagent/ls/pod1"]
    told = sampled(history, Sign.CPU_STALL, slot)
    assert told.felt == (0.0, 0.25, 0.5, 0.0, 0.125), "the first tick has no rates"
    assert used(history, told, CORES, [slot]) == ((0.5,) * 5,)


def test_what_is_not_known_makes_no_sample_and_use_beside_it_is_averaged() -> None:
    history = _folded([_snapshot(n) for n in range(5)], [None, 0.5, None, None, 0.25])
    told = sampled(history, Sign.CPU_STALL, history.slots["nodeagent/ls/pod1"])
    assert told.felt == (0.5, 0.25)
    assert told.spans == ((0, 1), (1, 4))


def test_early_ticks_add_up_to_one_sample() -> None:
    times = [1000.0, 1001.0, 1001.2, 1001.5, 1002.0, 1003.0]
    seen = [_snapshot(n, at=at) for n, at in enumerate(times)]
    told = sampled(_folded(seen, [0.0, 0.1, 0.0, 1.0, 0.0, 0.1]), Sign.CPU_STALL, 1)
    assert [round(x, 3) for x in told.felt] == [0.1, 0.3, 0.1], (
        "over one second: a third of it all of the time"
    )


def test_nothing_is_kept_for_longer_than_the_window() -> None:
    policy = replace(POLICY, interference=replace(POLICY.interference, window_s=60.0))
    history = _folded([_snapshot(n) for n in range(200)], [0.0] * 200, policy)
    assert history.moments[0].at == history.moments[-1].at - 60.0
    frequent = [_snapshot(n, at=1000.0 + n / 10) for n in range(400)]
    assert len(_folded(frequent, [0.0] * 400, policy).moments) <= 60 * 4 + 1


def test_slow_readings_are_kept_when_they_are_new() -> None:
    def symptoms(at: float, n: int) -> Symptoms:
        return Symptoms(at=at, refaults=100 * n, major_faults=0, devices=(DeviceUse("8:0", n << 20, n),))

    seen = [_snapshot(n, symptoms=symptoms(1000.0 + n - n % 5, n - n % 5)) for n in range(13)]
    history = _folded(seen, [0.0] * 13)
    slot = history.slots["nodeagent/ls/pod1"]
    told = sampled(history, Sign.CPU_STALL, slot)
    assert [FAULTS in moment.uses for moment in history.moments] == [n % 5 == 0 for n in range(1, 13)]
    assert used(history, told, FAULTS, [slot])[0] == (0.0,) * 4 + (100.0,) * 8
    assert used(history, told, f"{IO} 8:0", [slot])[0][-1] == float(1 << 20)


def test_what_no_pod_accounts_for_is_remembered_too() -> None:
    history = _folded([_snapshot(n) for n in range(4)], [0.0] * 4)
    told = sampled(history, Sign.CPU_STALL, history.slots["nodeagent/ls/pod1"])
    (system,) = used(history, told, CORES, [history.slots[SYSTEM]])
    assert all(abs(cores - (0.8 - 0.5)) < 0.05 for cores in system), "the node is busy with 2 x 0.4 cores"


def test_pods_that_come_and_go_are_forgotten() -> None:
    history, previous = History(), None
    for n in range(1200):
        seen = samples.snapshot(n, pods=(samples.pod(n // 2, 1000.0 + n),))
        history = remember(history, rates.view(seen, previous), {}, POLICY)
        previous = seen
    assert len(history.slots) < 300
    assert history.next_slot >= 600, "no number is given twice"
