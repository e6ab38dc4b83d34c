"""The line of `systemctl status`."""

from __future__ import annotations

from msgspec.structs import replace

from nodeagent.core.limit import LS_PRESSURE
from nodeagent.model.decision import Signal, Tick
from nodeagent.model.pod import Qos
from nodeagent.model.settings import Actuator, Mode
from nodeagent.model.snapshot import Pod
from nodeagent.report.status import PRESSURE, status_line
from tests.unit import samples
from tests.unit.metric_pages import named

CPU = (Actuator.CPU,)


def tick(*pods: Pod, hurt: tuple[str, ...] = ()) -> Tick:
    """3 of 8 cores are offered, and 4 GiB."""
    made = samples.tick(1)
    signals = tuple(Signal(LS_PRESSURE, uid, 0.5, 1.0, "waits") for uid in hurt)
    return replace(
        made,
        snapshot=replace(made.snapshot, pods=pods),
        decision=replace(made.decision, signals=signals),
    )


def test_a_calm_node_in_one_line() -> None:
    pods = [named(f"p{n}", n, qos=qos) for n, qos in enumerate([Qos.LS, Qos.LS, Qos.MID, Qos.BATCH])]
    line = "offers 3.0 of 8 cores, 4 GiB; 4 pods (2 LS, 1 MID, 1 BATCH); no pressure"
    assert status_line(tick(*pods), CPU) == f"enforcing cpu; {line}"
    assert status_line(tick(*pods), (Actuator.NIC, *CPU)) == f"enforcing cpu, nic; {line}"
    assert status_line(tick(*pods), ()) == f"observing; {line}"


def test_an_empty_node_and_a_single_pod() -> None:
    assert "; no pods; " in status_line(tick(), CPU)
    assert "; 1 pod (1 LS, 0 MID, 0 BATCH); " in status_line(tick(named("a")), CPU)


def test_who_waits_is_named_but_never_a_crowd() -> None:
    pods = [named(name, number) for number, name in enumerate("edcba")]
    uids = tuple(pod.spec.uid for pod in pods)
    assert status_line(tick(*pods, hurt=uids[:1]), CPU).endswith("; pressure on e")
    assert status_line(tick(*pods, hurt=uids), CPU).endswith("; pressure on a, b, c and 2 more")


def test_pressure_has_the_name_that_the_core_gives_it() -> None:
    assert PRESSURE == LS_PRESSURE


def test_an_offer_that_is_withdrawn_says_why_and_figures_are_coarse() -> None:
    made = tick()
    withdrawn = replace(made.decision.capacity, withdrawn="memory is not known")
    line = status_line(replace(made, decision=replace(made.decision, capacity=withdrawn)), CPU)
    assert "offers nothing: memory is not known; " in line
    big = samples.capacity(made.snapshot, cpu_cores=97.38, memory_bytes=11.3 * 2**30)
    line = status_line(replace(made, decision=replace(made.decision, capacity=big)), CPU)
    assert "offers 97 of 8 cores, 11 GiB; " in line


def test_who_may_enforce_and_is_told_to_observe_says_so() -> None:
    made = tick()
    for mode, begin in ((Mode.OBSERVE, "observing, as directed; "), (Mode.ENFORCE, "enforcing cpu; ")):
        directed = replace(made, decision=replace(made.decision, mode=mode))
        assert status_line(directed, CPU).startswith(begin)
        assert status_line(directed, ()).startswith("observing; ")
