"""Tick to message: pure, total, and the only place that knows both the model and the wire.

Invariant: no value that a kernel or a cgroup's name can hold makes it fail; what does not fit is bounded.
"""

from __future__ import annotations

from math import isinf

from nodeagent.model.capacity import Amount, Capacity, Term
from nodeagent.model.decision import Decision, Drift, Signal, Tick
from nodeagent.model.plan import Change, Kind, Knob, Outcome, Setting, Value
from nodeagent.rpc.directed import WIRE_MODE, status_message
from nodeagent.rpc.interference import add_interference
from nodeagent.rpc.nics import add_network
from nodeagent.rpc.placed import add_placement
from nodeagent.rpc.scalars import I64, U32, U64, text, timestamp, whole
from nodeagent.rpc.seen import node_message, pod_list_message, pod_message
from nodeagent.v1 import nodeagent_pb2 as pb

KIND = {
    Kind.CPU_QUOTA: pb.KNOB_KIND_CPU_QUOTA,
    Kind.CPU_WEIGHT: pb.KNOB_KIND_CPU_WEIGHT,
    Kind.CPU_BURST: pb.KNOB_KIND_CPU_BURST,
    Kind.CPUS: pb.KNOB_KIND_CPUS,
    Kind.MEMS: pb.KNOB_KIND_MEMS,
    Kind.MIGRATE: pb.KNOB_KIND_MEMORY_MIGRATE,
    Kind.MEMORY_HIGH: pb.KNOB_KIND_MEMORY_HIGH,
    Kind.IO_WEIGHT: pb.KNOB_KIND_IO_WEIGHT,
    Kind.FREEZE: pb.KNOB_KIND_FREEZE,
    Kind.NET_CLASS: pb.KNOB_KIND_NET_CLASS,
    Kind.NIC_RATE: pb.KNOB_KIND_NIC_RATE,
    Kind.NIC_CEIL: pb.KNOB_KIND_NIC_CEIL,
}
WEIGHTS = frozenset({Kind.CPU_WEIGHT, Kind.IO_WEIGHT})
SWITCHES = frozenset({Kind.MIGRATE, Kind.FREEZE})


def capacity_message(capacity: Capacity) -> pb.Capacity:
    """The offer with all its terms; values in cores and bytes."""
    return pb.Capacity(
        seq=capacity.seq,
        boot_id=text(capacity.boot_id),
        observed_at=timestamp(capacity.observed_unix),
        valid_until=timestamp(capacity.valid_until_unix),
        cpu=_cpu(capacity.cpu),
        memory=_memory(capacity.memory),
        zones=[
            pb.Zone(numa_node=zone.numa_node, cpu=_cpu(zone.cpu), memory=_memory(zone.memory))
            for zone in capacity.zones
        ],
        confidence_ratio=capacity.confidence,
        withdrawn=text(capacity.withdrawn),
        lent=pb.Lent(used_core_s=capacity.lent.used_core_s, offered_core_s=capacity.lent.offered_core_s),
    )


def report_message(tick: Tick, hostname: str, version: str = "") -> pb.NodeReport:
    """The whole tick; ages and durations in seconds at the time of the snapshot."""
    seen, decision = tick.snapshot, tick.decision
    report = pb.NodeReport(
        seq=seen.seq,
        observed_at=timestamp(seen.unix),
        woken_by=text(seen.woken_by),
        node=node_message(seen.node, seen.topology),
        pods=[pod_message(pod, seen.at) for pod in seen.pods],
        changes=[_change(change) for change in tick.changes],
        outcomes=[_outcome(outcome) for outcome in tick.outcomes],
        misses={text(kind): min(count, U32) for kind, count in seen.misses.items()},
        pod_list=None if seen.pod_list is None else pod_list_message(seen.pod_list, seen.at),
    )
    report.directives.extend(map(status_message, seen.directives))
    if decision.mode is not None:
        report.mode = WIRE_MODE[decision.mode]
    report.node.hostname = text(hostname)
    report.node.boot_id = text(seen.boot_id)
    report.node.agent_version = version
    _decide(report, decision, seen.at)
    add_placement(report, tick)
    add_network(report, tick)
    add_interference(report, tick)
    return report


def _decide(report: pb.NodeReport, decision: Decision, now: float) -> None:
    report.capacity.CopyFrom(capacity_message(decision.capacity))
    if decision.batch_limit_cores is not None:
        report.batch_limit_cores = decision.batch_limit_cores
    report.batch_limit_why = text(decision.limit_why)
    report.signals.extend(signal_message(signal, now) for signal in decision.signals)
    report.plan.extend(setting_message(setting) for setting in decision.plan)
    report.yielded.extend(_knob(knob) for knob in decision.yielded)
    report.drifts.extend(_drift(drift, now) for drift in decision.drifts)


def _cpu(amount: Amount) -> pb.CpuAmount:
    return pb.CpuAmount(
        available_cores=amount.available,
        computed_cores=amount.computed,
        terms=[_cpu_term(term) for term in amount.terms],
    )


def _cpu_term(term: Term) -> pb.CpuTerm:
    message = pb.CpuTerm(name=text(term.name), source=text(term.source), age_s=term.age_s)
    if term.name.endswith("_ratio"):
        message.ratio = term.value
    else:
        message.cores = term.value
    return message


def _memory(amount: Amount) -> pb.MemoryAmount:
    return pb.MemoryAmount(
        available_bytes=whole(amount.available, 0, U64),
        computed_bytes=whole(amount.computed, 0, U64),
        terms=[_memory_term(term) for term in amount.terms],
    )


def _memory_term(term: Term) -> pb.MemoryTerm:
    message = pb.MemoryTerm(name=text(term.name), source=text(term.source), age_s=term.age_s)
    if term.name.endswith("_ratio"):
        message.ratio = term.value
    else:
        message.bytes = whole(term.value, -I64, I64)
    return message


def signal_message(signal: Signal, now: float) -> pb.Signal:
    """One signal; `now` is the monotonic time, in seconds, at which its duration counts from."""
    return pb.Signal(
        name=text(signal.name),
        subject=text(signal.subject),
        level=signal.level,
        duration_s=now - signal.since,
        evidence=text(signal.evidence),
    )


def _knob(knob: Knob) -> pb.Knob:
    return pb.Knob(kind=KIND[knob.kind], target=text(knob.target))


def _value(kind: Kind, value: Value) -> pb.KnobValue:
    if isinstance(value, str):
        return pb.KnobValue(cpus=value) if kind is Kind.CPUS else pb.KnobValue(mems=value)
    if isinf(value):
        return pb.KnobValue(unlimited=True)
    if kind in SWITCHES:
        return pb.KnobValue(on=value != 0.0)
    if kind is Kind.MEMORY_HIGH:
        return pb.KnobValue(bytes=whole(value, 0, U64))
    if kind is Kind.NET_CLASS:
        return pb.KnobValue(classid=whole(value, 0, U32))
    if kind.of_nic:
        return pb.KnobValue(bps=value)
    return pb.KnobValue(weight_ratio=value) if kind in WEIGHTS else pb.KnobValue(cores=value)


def setting_message(setting: Setting) -> pb.Setting:
    """What the agent wants of one knob."""
    knob = setting.knob
    return pb.Setting(
        knob=_knob(knob), value=_value(knob.kind, setting.value), by=text(setting.by), why=text(setting.why)
    )


def _change(change: Change) -> pb.Change:
    knob = change.knob
    return pb.Change(
        knob=_knob(knob),
        old=_value(knob.kind, change.old),
        new=_value(knob.kind, change.new),
        by=text(change.by),
        why=text(change.why),
        gives_back=change.gives_back,
    )


def _outcome(outcome: Outcome) -> pb.Outcome:
    found, kind = outcome.found, outcome.change.knob.kind
    return pb.Outcome(
        change=_change(outcome.change),
        found=None if found is None else _value(kind, found),
        error=text(outcome.error),
    )


def _drift(drift: Drift, now: float) -> pb.Drift:
    return pb.Drift(
        knob=_knob(drift.knob),
        count=drift.count,
        age_s=now - drift.last,
        quiet_s=max(0.0, drift.quiet_until - now),
        found=_value(drift.knob.kind, drift.found),
    )
