"""Tick to message: nothing is lost, nothing is made up, and nothing that a kernel can say breaks it."""

from __future__ import annotations

from math import inf, nan

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.model.capacity import Amount, Capacity, Term
from nodeagent.model.decision import Drift, Signal, Tick
from nodeagent.model.plan import Change, Kind, Knob, Outcome, Setting
from nodeagent.model.snapshot import Load, MemoryEvents, Node, Reading, Stall
from nodeagent.model.topology import Device
from nodeagent.rpc.convert import capacity_message, report_message
from nodeagent.rpc.posted import differs, withdraw
from nodeagent.rpc.scalars import U64, timestamp
from nodeagent.v1 import nodeagent_pb2 as pb
from tests.unit import samples

QUOTA = Knob(Kind.CPU_QUOTA, "nodeagent/batch")
WEIGHT = Knob(Kind.CPU_WEIGHT, "nodeagent/batch/a")


def seen(tick: Tick, reading: Reading) -> Tick:
    first = replace(tick.snapshot.pods[0], reading=reading)
    return replace(tick, snapshot=replace(tick.snapshot, pods=(first, *tick.snapshot.pods[1:])))


def offer(cpu: float = 3.0, memory: float = 4e9) -> Capacity:
    return samples.capacity(samples.snapshot(1, numa_nodes=2), cpu, memory)


def test_a_capacity_carries_every_term_with_source_and_age() -> None:
    cpu = Amount(
        2.5, 2.75, (Term("total", 8.0, "topology", 0.0), Term("online_peak", 1.25, "histogram", 0.5))
    )
    memory = Amount(5.0e9, 6.0e9, (Term("watermark", 67e6, "/proc/zoneinfo", 3.0),))
    message = capacity_message(replace(offer(), cpu=cpu, memory=memory, confidence=0.75))
    terms = [(term.name, term.cores, term.source, term.age_s) for term in message.cpu.terms]
    assert terms == [("total", 8.0, "topology", 0.0), ("online_peak", 1.25, "histogram", 0.5)]
    assert (message.cpu.available_cores, message.cpu.computed_cores) == (2.5, 2.75)
    assert (message.memory.available_bytes, message.memory.computed_bytes) == (5_000_000_000, 6_000_000_000)
    assert message.memory.terms[0] == pb.MemoryTerm(
        name="watermark", bytes=67_000_000, source="/proc/zoneinfo", age_s=3.0
    )
    assert message.confidence_ratio == 0.75
    assert [zone.numa_node for zone in message.zones] == [0, 1]
    assert sum(zone.cpu.available_cores for zone in message.zones) == 3.0


def test_a_ratio_among_the_terms_is_said_to_be_one() -> None:
    amount = Amount(
        1.0, 1.0, (Term("ceiling_ratio", 0.9, "policy", 0.0), Term("reserved", 0.0, "policy", 0.0))
    )
    message = capacity_message(replace(offer(), cpu=amount, memory=amount))
    assert [term.WhichOneof("value") for term in message.cpu.terms] == ["ratio", "cores"]
    assert [term.WhichOneof("value") for term in message.memory.terms] == ["ratio", "bytes"]
    assert message.cpu.terms[0].ratio == message.memory.terms[0].ratio == 0.9


def test_the_age_of_a_capacity_can_be_told_from_its_times() -> None:
    capacity = offer()
    message = capacity_message(capacity)
    assert message.observed_at.ToNanoseconds() / 1e9 == pytest.approx(capacity.observed_unix, abs=1e-6)
    assert message.valid_until.ToNanoseconds() - message.observed_at.ToNanoseconds() == 10_000_000_000


def test_a_report_holds_the_whole_tick() -> None:
    tick = samples.tick(4, pods=8)
    report = report_message(tick, "node-7", "0.1")
    first, pod = tick.snapshot.pods[0], report.pods[0]
    assert (pod.uid, pod.name, pod.cgroup, pod.inode) == (
        first.spec.uid,
        first.spec.name,
        first.spec.cgroup,
        first.spec.inode,
    )
    assert (pod.qos, pod.priority) == (pb.QOS_LS, pb.PRIORITY_MEDIUM)
    assert pod.reading.cpu_us == first.reading.cpu_us
    assert pod.reading.working_set_bytes == first.reading.working_set_bytes
    assert pod.reading.slow_age_s == tick.snapshot.at - (first.reading.slow_at or 0.0)
    assert [each.cgroup for each in pod.containers] == [each.cgroup for each in first.containers]
    assert [setting.knob.target for setting in report.plan] == [
        each.knob.target for each in tick.decision.plan
    ]
    assert len(report.changes) == len(report.outcomes) == len(tick.changes) > 0
    assert all(outcome.found == outcome.change.new for outcome in report.outcomes)
    assert report.capacity == capacity_message(tick.decision.capacity)
    assert report.batch_limit_cores == 2.0


def test_the_node_is_summed_up() -> None:
    tick = samples.tick(4)
    node = report_message(tick, "node-7").node
    assert (node.topology.online_cpus, node.topology.online_cpu_count) == ("0-7", 8)
    assert (node.topology.physical_core_count, node.topology.socket_count) == (8, 1)
    assert [(numa.id, numa.cpus) for numa in node.topology.numa_nodes] == [(0, "0-7")]
    assert node.topology.numa_nodes[0].memory.free_bytes > 0
    assert node.cpu.idle_us == sum(row.idle_us for row in tick.snapshot.node.cpus or ())
    assert node.cpu_stall.some_us == int(tick.snapshot.at * 5000)
    assert not node.topology.offline_cpus


def test_smt_siblings_are_one_physical_core() -> None:
    tick = samples.tick(1)
    topology = tick.snapshot.topology
    cpus = tuple(replace(cpu, siblings=(cpu.id // 2 * 2, cpu.id // 2 * 2 + 1)) for cpu in topology.cpus)
    smt = replace(
        tick, snapshot=replace(tick.snapshot, topology=replace(topology, cpus=cpus, offline=(8, 9)))
    )
    message = report_message(smt, "").node.topology
    assert (message.physical_core_count, message.online_cpu_count, message.offline_cpus) == (4, 8, "8-9")


def test_the_machine_s_devices_distances_and_isolated_cpus_are_told() -> None:
    tick = samples.tick(1)
    devices = (Device("eth0", "nic", 0), Device("0000:3b:00.0", "gpu", None))
    topology = replace(samples.topology(8, 2), isolated=(2, 3, 7), devices=devices)
    told = report_message(replace(tick, snapshot=replace(tick.snapshot, topology=topology)), "").node.topology
    assert told.isolated_cpus == "2-3,7"
    assert [list(numa.distances) for numa in told.numa_nodes] == [[10, 21], [21, 10]]
    assert [(each.name, each.kind) for each in told.devices] == [
        ("eth0", pb.DEVICE_KIND_NIC),
        ("0000:3b:00.0", pb.DEVICE_KIND_GPU),
    ]
    assert [each.HasField("numa_node") for each in told.devices] == [True, False]


def test_what_a_pod_asks_of_numa_and_where_its_pages_are_is_told() -> None:
    tick = seen(samples.tick(1), Reading(pages_by_node=((0, 4096), (2, 0))))
    (pod, *_) = tick.snapshot.pods
    asks = replace(pod, spec=replace(pod.spec, numa_bind=True, exclusive=True, near="eth1"))
    told = report_message(replace(tick, snapshot=replace(tick.snapshot, pods=(asks,))), "").pods[0]
    assert (told.numa_bind, told.exclusive, told.near) == (True, True, "eth1")
    assert [(each.numa_node, each.bytes) for each in told.reading.pages_by_node] == [(0, 4096), (2, 0)]


def test_what_is_not_known_is_absent_and_zero_is_not() -> None:
    reading = report_message(seen(samples.tick(1), Reading(cpu_us=0)), "").pods[0].reading
    assert reading.HasField("cpu_us")
    assert reading.cpu_us == 0
    for name in ("periods", "cpu_stall", "memory_bytes", "working_set_bytes", "memory_events", "slow_age_s"):
        assert not reading.HasField(name), name


def test_a_blind_node_still_makes_a_report() -> None:
    tick = samples.tick(1)
    snapshot = replace(tick.snapshot, node=Node(), pods=(), misses={"gone": 3})
    decision = replace(tick.decision, batch_limit_cores=None)
    report = report_message(Tick(snapshot, decision), "")
    assert not report.HasField("batch_limit_cores")
    assert not any(report.node.HasField(name) for name in ("cpu", "memory", "cpu_stall", "load"))
    assert dict(report.misses) == {"gone": 3}


def test_values_of_knobs_have_their_unit_and_no_limit_is_said_so() -> None:
    tick = samples.tick(1)
    plan = (Setting(QUOTA, inf, "quota", "calm"), Setting(WEIGHT, 0.0, "weight", "idle"))
    change = Change(QUOTA, inf, 1.5, "LS waits", "quota")
    outcomes = (Outcome(change, 1.5), Outcome(change, None, "EINVAL"))
    drift = Drift(QUOTA, 2, tick.snapshot.at - 3.0, tick.snapshot.at + 4.0, 2.0)
    signal = Signal("ls_hurt", "uid-1", 0.4, tick.snapshot.at - 2.0, "cpu stall 40 %")
    decision = replace(
        tick.decision, plan=plan, drifts=(drift,), signals=(signal,), yielded=(WEIGHT,), batch_limit_cores=inf
    )
    report = report_message(Tick(tick.snapshot, decision, (change,), outcomes), "")
    assert [each.value.WhichOneof("value") for each in report.plan] == ["unlimited", "weight_ratio"]
    assert (report.changes[0].old.unlimited, report.changes[0].new.cores) == (True, 1.5)
    assert [each.HasField("found") for each in report.outcomes] == [True, False]
    assert report.outcomes[1].error == "EINVAL"
    assert (report.drifts[0].age_s, report.drifts[0].quiet_s, report.drifts[0].found.cores) == (3.0, 4.0, 2.0)
    assert (report.signals[0].duration_s, report.signals[0].subject) == (2.0, "uid-1")
    assert (report.yielded[0].kind, report.yielded[0].target) == (pb.KNOB_KIND_CPU_WEIGHT, WEIGHT.target)


def test_a_name_that_is_not_utf8_is_escaped() -> None:
    tick = samples.tick(1)
    pod = tick.snapshot.pods[0]
    odd = replace(pod, spec=replace(pod.spec, name=b"caf\xc3\xa9-\xff".decode("utf-8", "surrogateescape")))
    report = report_message(replace(tick, snapshot=replace(tick.snapshot, pods=(odd,))), "h\udcffst")
    assert report.pods[0].name == "café-\\udcff"
    assert report.SerializeToString()


counters = st.none() | st.integers(-(2**80), 2**80)
stalls = st.none() | st.builds(Stall, st.integers(0, 2**80), counters)
readings = st.builds(
    Reading,
    cpu_us=counters,
    periods=counters,
    cpu_stall=stalls,
    memory_bytes=counters,
    inactive_file_bytes=counters,
    slow_at=st.none() | st.floats(0, 1e9),
    memory_events=st.none() | st.builds(MemoryEvents, counters, counters, counters, counters, counters),
    io_stall=stalls,
    pids=counters,
    pages_by_node=st.none() | st.lists(st.tuples(st.integers(0, 9999), st.integers(-1, 2**80))).map(tuple),
)


@given(readings)
def test_no_number_breaks_a_report_and_those_that_fit_are_exact(reading: Reading) -> None:
    message = report_message(seen(samples.tick(1), reading), "").pods[0].reading
    for name in ("cpu_us", "periods", "memory_bytes", "pids"):
        value = getattr(reading, name)
        assert message.HasField(name) == (value is not None)
        assert getattr(message, name) == min(max(value or 0, 0), U64)


@given(st.floats(), st.floats(), st.floats())
def test_no_float_breaks_a_capacity(available: float, value: float, age_s: float) -> None:
    amount = Amount(available, value, (Term("total", value, "", age_s),))
    message = capacity_message(replace(offer(), cpu=amount, memory=amount))
    assert pb.Capacity.FromString(message.SerializeToString()).memory.available_bytes >= 0


def test_a_garbled_load_average_is_bounded() -> None:
    tick = samples.tick(1)
    node = replace(tick.snapshot.node, load=Load(0.0, nan, inf, 2**40, -1))
    load = report_message(replace(tick, snapshot=replace(tick.snapshot, node=node)), "").node.load
    assert (load.runnable, load.tasks) == (2**32 - 1, 0)


def test_a_report_is_valid_json_for_tools() -> None:
    text = json_format.MessageToJson(report_message(samples.tick(2), "node-7"))
    assert json_format.Parse(text, pb.NodeReport()) == report_message(samples.tick(2), "node-7")


@given(st.floats(0, 4e9))
def test_a_timestamp_is_exact_to_the_microsecond(unix: float) -> None:
    assert abs(timestamp(unix).ToNanoseconds() / 1e9 - unix) <= 2e-6


def test_a_withdrawn_offer_offers_nothing_anywhere() -> None:
    gone = withdraw(offer())
    amounts = [
        gone.cpu,
        gone.memory,
        *(zone.cpu for zone in gone.zones),
        *(zone.memory for zone in gone.zones),
    ]
    assert all(amount.available == 0.0 for amount in amounts)
    assert gone.withdrawn
    assert gone.cpu.terms == offer().cpu.terms  # it still explains itself
    assert withdraw(replace(offer(), withdrawn="blind")).withdrawn == "blind"


@pytest.mark.parametrize(
    ("cpu", "memory", "told"),
    [
        (3.0, 4e9, False),
        (3.02, 4e9, False),
        (3.04, 4e9, True),
        (2.9, 4e9, True),
        (3.0, 4e9 + 17e6, False),
        (3.0, 4.1e9, True),
        (0.0, 4e9, True),
        (3.0, 0.0, True),
    ],
)
def test_a_change_is_what_is_beyond_noise(cpu: float, memory: float, told: bool) -> None:
    assert differs(offer(), offer(cpu, memory)) is told
    assert differs(offer(cpu, memory), offer()) is told


def test_a_small_offer_changes_when_it_goes_to_nothing() -> None:
    assert differs(offer(0.005), offer(0.0))
    assert not differs(offer(0.005), offer(0.014))


def test_a_change_is_also_another_reason_or_another_zone() -> None:
    base = offer()
    assert differs(base, replace(base, withdrawn="stale"))
    assert differs(base, replace(base, zones=base.zones[:1]))
    assert differs(base, replace(base, zones=(base.zones[0], replace(base.zones[1], numa_node=7))))
    moved = replace(base.zones[1], cpu=Amount(base.zones[1].cpu.available / 2, 0.0))
    assert differs(base, replace(base, zones=(base.zones[0], moved)))
    assert not differs(base, replace(base, seq=99, observed_unix=1.0))
