"""When an LS pod counts as hurt: over which time, whose fault, and however short the ticks are."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from nodeagent.core.decide import decide
from nodeagent.model.decision import Decision, Memory
from nodeagent.model.pod import Qos
from nodeagent.model.policy import Policy
from nodeagent.model.snapshot import Stall
from tests.unit import samples


def _fold(
    ticks: list[tuple[float, float]], *, throttled_ratio: float = 0.0, psi: bool = True
) -> list[Decision]:
    """Decisions in ticks of (seconds, share of them that the LS pod waited), after a calm one of 1 s."""
    decisions: list[Decision] = []
    at, waited_us, throttled_us, memory = 1000.0, 0.0, 0.0, Memory()
    for seq, (dt_s, share) in enumerate([(0.0, 0.0), (1.0, 0.0), *ticks]):
        at, waited_us = at + dt_s, waited_us + dt_s * share * 1e6
        throttled_us += dt_s * throttled_ratio * 1e6 if seq > 1 else 0.0
        unsupported = () if psi else ("cpu_stall",)
        pod = samples.pod(0, at, qos=Qos.LS, containers=0, unsupported=unsupported)
        reading = replace(
            pod.reading,
            cpu_stall=Stall(int(waited_us)) if psi else None,
            run_delay_us=None if psi else int(waited_us),
            throttled_us=int(throttled_us),
        )
        seen = samples.snapshot(seq, at, pods=(replace(pod, reading=reading),))
        decision, memory = decide(seen, Policy(), memory)
        decisions.append(decision)
    return decisions[2:]


@pytest.mark.parametrize("psi", [True, False])
def test_waiting_above_the_policys_share_is_told_in_the_same_tick(psi: bool) -> None:
    (decision,) = _fold([(1.0, 0.5)], psi=psi)
    (signal,) = decision.signals
    assert signal.level == pytest.approx(0.5, abs=0.01)
    assert ("PSI" if psi else "run-queue delay") in signal.evidence


def test_one_bad_moment_in_a_tick_that_came_early_is_no_pressure_but_standing_still_is() -> None:
    assert _fold([(0.1, 0.3)])[-1].signals == ()
    assert _fold([(0.1, 1.0)])[-1].signals != ()


def test_short_ticks_add_up() -> None:
    decisions = _fold([(0.1, 0.4)] * 6)
    assert decisions[0].signals == ()
    assert decisions[1].signals != ()


def test_time_that_its_own_quota_stopped_it_is_not_held_against_batch() -> None:
    assert _fold([(1.0, 0.6)], throttled_ratio=0.5)[-1].signals == ()
    assert _fold([(1.0, 0.6)], throttled_ratio=0.1)[-1].signals != ()


def test_pressure_that_lasts_cuts_no_faster_than_its_effect_can_be_seen() -> None:
    decisions = _fold([(0.1, 1.0)] * 4)
    limits = [decision.batch_limit_cores for decision in decisions]
    assert limits[0] == limits[1] == limits[2]
