"""Every sign from two readings, in its unit; and what gives none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.core import rates
from nodeagent.core.interference.measures import Measures, measured
from nodeagent.model.interference import State, Verdict
from nodeagent.model.pod import PodSpec, Qos
from nodeagent.model.senses import PodSense, Senses, Served
from nodeagent.model.snapshot import Container, CpuTimes, Pod, Reading, Snapshot, Stall
from nodeagent.model.symptom import AppReading, DeviceUse, Disk, Pmu, Rdt, Sign, Slo, Symptoms
from tests.unit import samples

SPEC = PodSpec(uid="u", name="web", cgroup="ls/web", inode=1, qos=Qos.LS, source="exec")
BEFORE = Pod(
    SPEC,
    Reading(
        cpu_us=1_000_000, periods=100, throttled_periods=10, throttled_us=5000,
        cpu_stall=Stall(100_000, 50_000), slow_at=95.0, memory_stall=Stall(0, 0),
        io_stall=Stall(1_000_000, 0),
    ),
    symptoms=Symptoms(
        at=95.0, run_delay_us=1_000_000, run_us=2_000_000, refaults=100, direct_scans=50,
        devices=(DeviceUse("8:0", 0, 10), DeviceUse("8:16", 0, 5)), tcp_out_segments=1000, tcp_retransmits=5,
        listen_drops=1, pmu=Pmu(90.0, 10.0, 5, 5), rdt=Rdt(100, 1000, 0),
    ),
    app=AppReading("grpc", 95.0, requests=1000),
)  # fmt: skip
AFTER = Pod(
    SPEC,
    Reading(
        cpu_us=1_500_000, periods=110, throttled_periods=12, throttled_us=5000,
        cpu_stall=Stall(350_000, 150_000), slow_at=100.0, memory_stall=Stall(500_000, 250_000),
        io_stall=Stall(3_000_000, 0),
    ),
    symptoms=Symptoms(
        at=100.0, run_delay_us=2_000_000, run_us=4_000_000, refaults=600, direct_scans=300,
        devices=(DeviceUse("8:0", 4096, 30), DeviceUse("8:16", 0, 5)), tcp_out_segments=2000,
        tcp_retransmits=25, listen_drops=11, pmu=Pmu(100.0, 10.0, 30_000_000, 10_000_000, 50_000),
        rdt=Rdt(4096, 51_000, 0),
    ),
    app=AppReading("grpc", 100.0, requests=1050, window_s=5.0, window_requests=1000,
                   latency_s=((0.99, 0.03), (0.95, 0.01)), slo=Slo(0.95, 0.02)),
)  # fmt: skip
DISKS = (Disk("8:0", "sda", 100, 1_000_000, 0), Disk("8:16", "sdb", 100, 0, 0)), (
    Disk("8:0", "sda", 300, 1_400_000, 0), Disk("8:16", "sdb", 200, 9_000_000, 0),
)  # fmt: skip
CPUS = (
    tuple(CpuTimes(n, 0, 0, 0, 0, 0, 0, 0, 0) for n in range(2)),
    (
        CpuTimes(0, 600_000, 0, 100_000, 100_000, 0, 0, 100_000, 100_000),
        CpuTimes(1, 0, 0, 0, 1_000_000, 0, 0, 0, 0),
    ),
)
SERVED = Served("grpc", 95.0, 1000, 1_250_000.0)
SENSES = Senses(pods={"u": PodSense(1, "web", None, None, Verdict("u", State.CALM), served=SERVED)})


def snapshots(before: Pod | None, after: Pod) -> tuple[Snapshot, Snapshot]:
    made = []
    for n, (at, pod) in enumerate(((99.0, before), (100.0, after))):
        seen = samples.snapshot(n, at, pods=() if pod is None else (pod,), cores=2)
        made.append(replace(seen, node=replace(seen.node, cpus=CPUS[n], disks=DISKS[n])))
    return made[0], made[1]


def measure(
    before: Pod | None = BEFORE,
    after: Pod = AFTER,
    cpus: frozenset[int] | None = None,
    senses: Senses = SENSES,
) -> Measures:
    old, new = snapshots(before, after)
    return measured(rates.view(new, old), {} if cpus is None else {SPEC.cgroup: cpus}, senses)["u"]


def test_every_sign_in_its_unit() -> None:
    assert measure().values == pytest.approx(
        {
            Sign.CPU_STALL: 0.25,
            Sign.THROTTLED: 0.2,
            Sign.STEAL: 0.05,
            Sign.SOFTIRQ: 0.05,
            Sign.RUN_DELAY: 0.5,
            Sign.MEMORY_STALL: 0.1,
            Sign.IO_STALL: 0.4,
            Sign.REFAULTS: 100.0,
            Sign.DIRECT_RECLAIM: 50.0,
            Sign.LISTEN_DROPS: 2.0,
            Sign.RETRANSMITS: 0.02,
            Sign.IO_AWAIT: 0.002,
            Sign.CPI: 3.0,
            Sign.MPKI: 5.0,
            Sign.LLC_OCCUPANCY: 4096.0,
            Sign.MEMORY_BANDWIDTH: 10_000.0,
            Sign.LATENCY: 0.01,
            Sign.CPU_PER_REQUEST: 0.005,
        }
    )


def test_a_value_is_of_the_time_between_the_readings_of_its_source() -> None:
    found = measure()
    assert found.span_s == {
        **dict.fromkeys((Sign.MEMORY_STALL, Sign.IO_STALL, Sign.REFAULTS, Sign.DIRECT_RECLAIM), 5.0),
        **dict.fromkeys((Sign.LISTEN_DROPS, Sign.RETRANSMITS, Sign.IO_AWAIT, Sign.RUN_DELAY), 5.0),
        **dict.fromkeys((Sign.LLC_OCCUPANCY, Sign.MEMORY_BANDWIDTH, Sign.LATENCY, Sign.CPU_PER_REQUEST), 5.0),
        Sign.CPI: 10.0,
        Sign.MPKI: 10.0,
    }
    assert found.full == pytest.approx({Sign.CPU_STALL: 0.1, Sign.MEMORY_STALL: 0.05, Sign.IO_STALL: 0.0})


def test_what_was_carried_over_is_no_new_sample() -> None:
    old = replace(
        AFTER, reading=replace(AFTER.reading, cpu_us=0, cpu_stall=Stall(0, 0), throttled_periods=0, periods=0)
    )
    assert set(measure(before=old, senses=Senses()).values) == {
        Sign.CPU_STALL,
        Sign.THROTTLED,
        Sign.STEAL,
        Sign.SOFTIRQ,
    }


@pytest.mark.parametrize(
    "name", ["run_delay_us", "refaults", "direct_scans", "tcp_retransmits", "listen_drops"]
)
def test_a_counter_that_fell_or_is_missing_gives_nothing(name: str) -> None:
    sign = {
        "run_delay_us": Sign.RUN_DELAY, "refaults": Sign.REFAULTS, "direct_scans": Sign.DIRECT_RECLAIM,
        "tcp_retransmits": Sign.RETRANSMITS, "listen_drops": Sign.LISTEN_DROPS,
    }[name]  # fmt: skip
    assert AFTER.symptoms is not None
    for value in (0, None):
        after = replace(AFTER, symptoms=replace(AFTER.symptoms, **{name: value}))
        assert sign not in measure(after=after).values


def test_steal_and_softirq_are_of_the_cpus_that_the_pod_may_use() -> None:
    one, other = measure(cpus=frozenset({0})).values, measure(cpus=frozenset({1})).values
    assert (one[Sign.STEAL], one[Sign.SOFTIRQ]) == pytest.approx((0.1, 0.1))
    assert (other[Sign.STEAL], other[Sign.SOFTIRQ]) == (0.0, 0.0)


def test_own_throttling_is_taken_off_the_wait_of_threads() -> None:
    after = replace(AFTER, reading=replace(AFTER.reading, throttled_us=105_000))
    assert measure(after=after).values[Sign.RUN_DELAY] == pytest.approx(0.25)


def test_a_container_that_is_throttled_counts_for_its_pod() -> None:
    def inside(pod: Pod, throttled: int, periods: int) -> Pod:
        reading = Reading(periods=periods, throttled_periods=throttled)
        return replace(pod, containers=(Container("app", "ls/web/app", 2, reading),))

    found = measure(before=inside(BEFORE, 0, 0), after=inside(AFTER, 5, 10))
    assert found.values[Sign.THROTTLED] == 0.5


def test_a_pod_that_did_nothing_and_of_which_nothing_new_is_told_is_still() -> None:
    found = measure(before=AFTER)
    assert found.still
    assert found.values == {Sign.CPU_STALL: 0.0, Sign.THROTTLED: 0.0}
    assert measure(before=AFTER) is found or measure(before=AFTER) == found


def test_the_first_sight_of_a_pod_tells_only_what_began_at_nothing() -> None:
    assert set(measure(before=None).values) <= {Sign.CPU_STALL, Sign.STEAL, Sign.SOFTIRQ}
    old, new = snapshots(BEFORE, AFTER)
    assert measured(rates.view(new, None), {})["u"].values == {}
    assert measured(rates.view(old, new), {})["u"].values == {}


def test_too_few_segments_instructions_or_requests_tell_nothing() -> None:
    symptoms, app = AFTER.symptoms, AFTER.app
    assert symptoms is not None and app is not None
    few = replace(symptoms, tcp_out_segments=1010, pmu=Pmu(100.0, 10.0, 30_000, 10_000, 1))
    found = measure(
        after=replace(AFTER, symptoms=few, app=replace(app, requests=1010, window_requests=10))
    ).values
    assert found.keys().isdisjoint(
        {Sign.RETRANSMITS, Sign.CPI, Sign.MPKI, Sign.CPU_PER_REQUEST, Sign.LATENCY}
    )


def test_an_application_that_is_stale_tells_nothing() -> None:
    app = AFTER.app
    assert app is not None
    old = replace(app, at=95.0 + 1e-3, stale_after_s=1.0)
    assert Sign.LATENCY not in measure(after=replace(AFTER, app=old)).values


def test_a_device_that_the_pod_did_not_use_is_not_its_own() -> None:
    symptoms = AFTER.symptoms
    assert symptoms is not None
    still = replace(symptoms, devices=BEFORE.symptoms.devices if BEFORE.symptoms else None)
    assert Sign.IO_AWAIT not in measure(after=replace(AFTER, symptoms=still)).values


@given(st.integers(0, 2_000_000), st.integers(0, 2_000_000), st.integers(0, 2_000_000))
def test_shares_are_shares_whatever_the_counters_say(cpu_us: int, some_us: int, full_us: int) -> None:
    reading = replace(
        AFTER.reading, cpu_us=cpu_us, cpu_stall=Stall(some_us, full_us), memory_stall=Stall(some_us, full_us)
    )
    found = measure(after=replace(AFTER, reading=reading))
    for sign in (Sign.CPU_STALL, Sign.MEMORY_STALL, Sign.STEAL, Sign.SOFTIRQ, Sign.THROTTLED):
        assert 0.0 <= found.values.get(sign, 0.0) <= 1.0
    assert all(0.0 <= share <= 1.0 for share in found.full.values())
