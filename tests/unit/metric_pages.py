"""Ticks with pods of any name, and pages of /metrics read back."""

from __future__ import annotations

from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from nodeagent.model.decision import Drift, Signal, Tick
from nodeagent.model.plan import Change, Kind, Knob, Outcome
from nodeagent.model.pod import Qos
from nodeagent.model.snapshot import Pod, Reading
from nodeagent.report.metrics import Metrics, OwnCost
from tests.unit import samples
from tests.unit.nic_samples import nic_tick

OWN = OwnCost(1.5, 40 << 20)
QUOTA = Knob(Kind.CPU_QUOTA, samples.TIER)


def page(*ticks: Tick, max_series: int = 20_000) -> str:
    metrics = Metrics("0.1", revision="abc", max_series=max_series)
    text = b""
    for tick in ticks:
        metrics.observe_tick(tick, 0.004, OWN)
        text = metrics.render()
    return text.decode()


def values(text: str, name: str) -> dict[str, float]:
    """The samples called `name`: their labels as text, and their values."""
    return {
        ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def with_pods(*pods: Pod, seq: int = 1) -> Tick:
    tick = samples.tick(seq)
    return replace(tick, snapshot=replace(tick.snapshot, pods=pods))


def named(name: str, number: int = 0, reading: Reading | None = None, qos: Qos = Qos.LS) -> Pod:
    pod = samples.pod(number, 1000.0, qos=qos)
    reading = pod.reading if reading is None else reading
    return replace(pod, spec=replace(pod.spec, name=name, uid=f"uid-{number}"), reading=reading)


def busy_tick() -> Tick:
    """A tick in which everything that can be shown is there."""
    tick = nic_tick(2)
    signal = Signal("ls_hurt", "uid", 0.5, tick.snapshot.at - 1, "waits")
    drift = Drift(QUOTA, 2, tick.snapshot.at, tick.snapshot.at, 1.0)
    failed = Outcome(Change(QUOTA, 1.0, 2.0, "more"), None, "EINVAL")
    return replace(
        tick,
        snapshot=replace(tick.snapshot, misses={"gone": 2}),
        decision=replace(tick.decision, signals=(signal,), drifts=(drift,), yielded=(QUOTA,)),
        outcomes=(*tick.outcomes, failed),
    )
