"""`nodeagent once`: one tick of the loop without its hands, shown to a person."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from nodeagent.config import Config
from nodeagent.core.decide import decide
from nodeagent.core.diff import diff
from nodeagent.core.rates import PodRates, view
from nodeagent.core.usage import SYSTEM_SPAN_S
from nodeagent.host import Host
from nodeagent.model.capacity import Amount, Term
from nodeagent.model.decision import Memory, Tick
from nodeagent.model.plan import Change, Kind, shown
from nodeagent.model.units import format_bytes
from nodeagent.report.nic_lines import nic_lines


class Look(msgspec.Struct, frozen=True):
    """The tick that would be, and the rates it was decided on."""

    tick: Tick
    rates: tuple[PodRates, ...]


def look(config: Config) -> Look:
    """Read twice, one tick apart (or what a rate takes, if that is longer), and decide.

    Nothing is written, not even in the state directory.
    """
    settings = config.settings
    host = Host(settings.agent, config.rules, config.policy, settings.kubernetes)
    try:
        if host.kubernetes is not None:
            host.kubernetes.first()
        first = host.read(0, {}, "timer", full=True)
        _, memory = decide(first, config.policy, Memory())
        time.sleep(max(config.settings.agent.tick_s, SYSTEM_SPAN_S))
        snapshot = host.read(1, {}, "timer", full=True)
    finally:
        host.close()
    decision, _ = decide(snapshot, config.policy, memory)
    changes = diff({s.knob: s for s in decision.plan}, snapshot.knobs, decision.yielded)
    return Look(Tick(snapshot, decision, changes), view(snapshot, first).pods)


def as_json(seen: Look) -> str:
    """The whole tick; "not limited" is null."""
    return msgspec.json.encode(seen.tick).decode()


def as_text(seen: Look) -> str:
    """Node, pods, offer with its terms, and the writes with their reasons."""
    tick = seen.tick
    lines = [
        *_node(tick),
        "",
        *_pods(seen.rates),
        "",
        *_offer(tick),
        "",
        *_places(tick),
        *_nics(tick),
        *_writes(tick),
    ]
    return "\n".join(lines)


def _node(tick: Tick) -> list[str]:
    topology, node = tick.snapshot.topology, tick.snapshot.node
    numa = len(topology.nodes)
    total = format_bytes(node.memory.total_bytes) if node.memory else "?"
    load = f"{node.load.load1:.2f}" if node.load else "?"
    return [
        f"node     {topology.cores} CPUs, {numa} NUMA node{'s'[: numa != 1]}, {total} memory, load {load}"
    ]


def _pods(rates: tuple[PodRates, ...]) -> list[str]:
    if not rates:
        return ["pods     none known; start one: nodeagent exec --qos batch -- COMMAND"]
    width = max(3, *(len(r.pod.spec.name) for r in rates))
    head = f"{'class':<8} {'pod':<{width}} {'cores':>6} {'waits':>6} {'working set':>12}  cgroup"
    return [head, *(_pod(r, width) for r in sorted(rates, key=lambda r: (r.pod.spec.qos, r.pod.spec.name)))]


def _pod(r: PodRates, width: int) -> str:
    spec, size = r.pod.spec, r.pod.reading.working_set_bytes
    waits = r.stall_ratio if r.stall_ratio is not None else r.run_delay_ratio
    return (
        f"{spec.qos.value:<8} {spec.name:<{width}} {_number(r.cores, '.2f'):>6} {_number(waits, '.0%'):>6}"
        f" {'?' if size is None else format_bytes(size):>12}  {spec.cgroup}"
    )


def _offer(tick: Tick) -> list[str]:
    capacity = tick.decision.capacity
    lines = [
        "offer    OfflineAvailable = max(0, (total - steal) * ceiling - max(reserved, system) - online peak)"
    ]
    if capacity.withdrawn:
        lines.append(f"         withdrawn: {capacity.withdrawn}")
    cpu, memory = capacity.cpu, capacity.memory
    lines.append(f"  cpu    {cpu.computed:.2f} cores = {_terms(cpu, lambda v: f'{v:.2f}')}")
    lines.append(f"  memory {format_bytes(memory.computed)} = {_terms(memory, format_bytes)}")
    lines += [
        f"  NUMA {z.numa_node} {z.cpu.computed:.2f} cores, {format_bytes(z.memory.computed)}"
        for z in capacity.zones
    ]
    return [*lines, "         a running agent raises its offer slowly, by 1 % of the node per second"]


def _terms(amount: Amount, show: Callable[[float], str]) -> str:
    def one(term: Term) -> str:
        value = f"{term.value:g}" if term.name.endswith("_ratio") else show(term.value)
        return f"{term.name} {value}"

    return ", ".join(map(one, amount.terms))


def _places(tick: Tick) -> list[str]:
    """The pools, who has CPUs of its own, and who has not and why; nothing while pods are not placed."""
    found, names = tick.decision.placement, {p.spec.uid: p.spec.name for p in tick.snapshot.pods}
    unknown = [f"places   not known who else owns CPUs: {why}" for why in tick.snapshot.foreign.unknown]
    if found is None:
        return [*unknown, ""] if unknown else []
    lines = [f"places   CPUs shared {found.shared or 'none'}, Batch {found.batch or 'none'}"]
    lines += [f"  {names[b.uid]}: CPUs {b.cpus} of its own, memory {b.mems}" for b in found.bound]
    lines += [f"  {names[uid]}: no CPUs of its own: {why}" for uid, why in found.unplaced]
    told = dict(found.unplaced)
    lines += [f"  {names[uid]}: left alone: {why}" for uid, why in found.left_alone if uid not in told]
    if found.hands_off:
        lines.append(f"  CPUs {found.hands_off} are in no pool: isolated, or somebody else's")
    return [*unknown, *lines, ""]


def _nics(tick: Tick) -> list[str]:
    told = nic_lines(tick)
    return [*(f"nic      {line}" for line in told), ""] if told else []


def _writes(tick: Tick) -> list[str]:
    decision = tick.decision
    if decision.batch_limit_cores is None:
        lines = [f"batch    no limit decided: {decision.limit_why}"]
    else:
        lines = [f"batch    may use {decision.batch_limit_cores:.2f} cores: {decision.limit_why}"]
    writes = [change for change in tick.changes if change.new != change.old]
    if not writes:
        return [*lines, "writes   none: no batch pod or tier in scope, or all is as wanted"]
    return [*lines, "writes   (not done: this is `once`)", *map(_change, writes)]


def _change(change: Change) -> str:
    kind = change.knob.kind
    unit = " cores" if kind in {Kind.CPU_QUOTA, Kind.CPU_BURST} else ""
    step = f"{shown(change.old, kind)} -> {shown(change.new, kind)}{unit}"
    return f"  {change.knob}: {step}  [{change.by}: {change.why}]"


def _number(value: float | None, form: str) -> str:
    return "?" if value is None else format(value, form)
