"""The series of the node: the offer with its terms, what bounds Batch, and what the agent has noticed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from math import floor, isfinite

from nodeagent.model.capacity import Amount, Capacity
from nodeagent.model.cpuset import size
from nodeagent.model.decision import Decision, Tick
from nodeagent.model.directive import State
from nodeagent.model.kubernetes import ListState
from nodeagent.model.placement import Placement
from nodeagent.model.plan import BURST, Kind
from nodeagent.model.pod import Qos
from nodeagent.model.settings import Mode
from nodeagent.model.snapshot import Pod, Snapshot
from nodeagent.report.interference_metrics import interference_text
from nodeagent.report.nics import nic_text
from nodeagent.report.pages import left_bytes
from nodeagent.report.text import Label, family

DIRECTIVES = ("observe", "enforce", "hold", "lend", "recall")
CEILING = "ceiling_ratio"
SHRINK = "interference_ratio"  # core.formula.SHRINK


def node_text(tick: Tick) -> str:
    """All node families of one tick."""
    seen, decision = tick.snapshot, tick.decision
    pods = Counter(pod.spec.qos for pod in seen.pods)
    families = [
        *_offer(decision.capacity),
        *_zones(decision.capacity),
        *_memory(seen),
        _gauge("numa_pages_left_bytes", "Pages that are to follow their pods", {None: left_bytes(tick)}),
        *_batch(decision),
        _gauge("bursting_pods", "LS pods with more than their CPU quota for now", {None: _bursting(tick)}),
        interference_text(tick),
        *_directed(tick),
        *_placement(decision.placement),
        nic_text(tick),
        *_pod_list(seen),
        _gauge("pods", "Pods by QoS class", {("qos", qos.value): pods[qos] for qos in Qos}),
        _gauge(
            "last_tick_timestamp_seconds", "When the inputs of the last tick were read", {None: seen.unix}
        ),
    ]
    return "".join(families)


def _offer(offer: Capacity) -> Iterator[str]:
    yield _gauge("offline_available_cores", "CPU offered to Batch", {None: offer.cpu.available})
    yield _gauge("offline_available_bytes", "Memory offered to Batch", {None: offer.memory.available})
    yield _gauge(
        "offline_computed_cores", "CPU by the formula, before rate limits", {None: offer.cpu.computed}
    )
    yield _gauge(
        "offline_computed_bytes", "Memory by the formula, before rate limits", {None: offer.memory.computed}
    )
    yield _gauge("offline_cpu_term_cores", "Inputs of the CPU formula", _terms(offer.cpu))
    yield _gauge("offline_memory_term_bytes", "Inputs of the memory formula", _terms(offer.memory))
    yield _gauge(
        "offline_cpu_ceiling_ratio",
        "Share of the cores that may be in use in all",
        _ratio(offer.cpu, CEILING),
    )
    yield _gauge(
        "offline_memory_ceiling_ratio",
        "Share of memory that may be in use in all",
        _ratio(offer.memory, CEILING),
    )
    left = _ratio(offer.cpu, SHRINK) or {None: 1.0}
    yield _gauge("offline_interference_ratio", "Share of the CPU offer that interference leaves", left)
    withdrawn = float(bool(offer.withdrawn))
    yield _gauge("offline_withdrawn", "1 while nothing is offered for want of good inputs", {None: withdrawn})
    yield _gauge("offline_confidence_ratio", "Confidence in the offer", {None: offer.confidence})
    yield _total("lent_core_seconds_total", "CPU time that Batch used", offer.lent.used_core_s)
    yield _total("offered_core_seconds_total", "CPU time that Batch was offered", offer.lent.offered_core_s)


def _zones(offer: Capacity) -> Iterator[str]:
    cpu: dict[Label | None, float] = {
        ("numa_node", str(zone.numa_node)): zone.cpu.available for zone in offer.zones
    }
    memory: dict[Label | None, float] = {
        ("numa_node", str(zone.numa_node)): zone.memory.available for zone in offer.zones
    }
    yield _gauge("numa_offline_available_cores", "CPU offered to Batch per NUMA node", cpu)
    yield _gauge("numa_offline_available_bytes", "Memory offered to Batch per NUMA node", memory)


def _memory(seen: Snapshot) -> Iterator[str]:
    """Memory of each NUMA node; pages of pods only where memory.numa_stat tells them."""
    rows = {("numa_node", str(row.numa_node)): row for row in seen.node.numa_memory}
    total: dict[Label | None, float] = {label: row.total_bytes for label, row in rows.items()}
    free: dict[Label | None, float] = {label: row.free_bytes for label, row in rows.items()}
    dropped: dict[Label | None, float] = {
        label: (row.inactive_file_bytes or 0) + (row.reclaimable_bytes or 0) for label, row in rows.items()
    }
    yield _gauge("numa_memory_total_bytes", "Memory of the NUMA node", total)
    yield _gauge("numa_memory_free_bytes", "Free memory of the NUMA node", free)
    yield _gauge("numa_memory_reclaimable_bytes", "Inactive file pages and slab that can be dropped", dropped)
    online, batch = (pod for pod in seen.pods if pod.spec.online), (p for p in seen.pods if not p.spec.online)
    yield _gauge("numa_online_pages_bytes", "Pages of LS and MID pods on the NUMA node", _pages(online))
    yield _gauge("numa_batch_pages_bytes", "Pages of Batch pods on the NUMA node", _pages(batch))


def _pages(pods: Iterable[Pod]) -> dict[Label | None, float]:
    found: Counter[int] = Counter()
    for pod in pods:
        found.update(dict(pod.reading.pages_by_node or ()))
    return {("numa_node", str(node)): size for node, size in sorted(found.items())}


def _batch(decision: Decision) -> Iterator[str]:
    limit = decision.batch_limit_cores
    signals = Counter(signal.name for signal in decision.signals)
    yield _gauge("batch_limit_cores", "What Batch as a whole may use", {} if limit is None else {None: limit})
    yield _gauge(
        "signals", "Signals that are on, by name", {("signal", name): signals[name] for name in signals}
    )
    yield _gauge("knobs_planned", "Knobs for which the agent wants a value", {None: len(decision.plan)})
    yield _gauge("knobs_yielded", "Knobs left to another writer for now", {None: len(decision.yielded)})


def _directed(tick: Tick) -> Iterator[str]:
    """1 for each kind of directive, so that a kind that ends does not leave its last value behind."""
    in_force = {s.directive.kind for s in tick.snapshot.directives if s.state is State.IN_FORCE}
    kinds: dict[Label | None, float] = {("kind", kind): float(kind in in_force) for kind in DIRECTIVES}
    yield _gauge("directives_in_force", "1 while a directive of this kind is in force", kinds)
    mode = tick.decision.mode
    enforcing: dict[Label | None, float] = {} if mode is None else {None: float(mode is Mode.ENFORCE)}
    yield _gauge("enforcing", "1 while the agent writes, 0 while it observes", enforcing)


def _bursting(tick: Tick) -> int:
    quotas = {s.knob.target for s in tick.decision.plan if s.by == BURST and s.knob.kind is Kind.CPU_QUOTA}
    return len(quotas.intersection(pod.spec.cgroup for pod in tick.snapshot.pods)) if quotas else 0


def _placement(found: Placement | None) -> Iterator[str]:
    """CPUs by pool and pods by how they are placed; nothing while pods are not placed."""
    if found is None:
        return
    cpus: dict[Label | None, float] = {("pool", "bound"): sum(size(placed.cpus) for placed in found.bound)}
    pools = {"shared": found.shared, "mid": found.mid, "batch": found.batch, "hands_off": found.hands_off}
    cpus |= {("pool", name): size(text) for name, text in pools.items()}
    pods = {"bound": found.bound, "unplaced": found.unplaced, "left_alone": found.left_alone}
    yield _gauge("placement_cpus", "CPUs by pool; batch is within shared and mid", cpus)
    yield _gauge(
        "placement_pods", "Pods by how they are placed", {("state", s): len(who) for s, who in pods.items()}
    )


def _pod_list(seen: Snapshot) -> Iterator[str]:
    """How old Kubernetes' list of pods is; nothing where nobody is asked for it."""
    found = seen.pod_list
    if found is None:
        return
    source = ("source", found.source)
    age: dict[Label | None, float] = {} if found.at is None else {source: max(0.0, seen.at - found.at)}
    yield _gauge("pod_list_age_seconds", "Age of Kubernetes' list of pods, by who gave it", age)
    yield _gauge(
        "pod_list_state",
        "1 for the state that the list is in",
        {("state", state.value): float(state is found.state) for state in ListState},
    )


def _terms(amount: Amount) -> dict[Label | None, float]:
    """Those in the unit of the formula."""
    return {("term", term.name): term.value for term in amount.terms if not term.name.endswith("_ratio")}


def _ratio(amount: Amount, name: str) -> dict[Label | None, float]:
    found = next((term.value for term in amount.terms if term.name == name), None)
    return {} if found is None else {None: found}


def _gauge(name: str, text: str, samples: Mapping[Label | None, float]) -> str:
    if name.endswith("_bytes"):
        samples = {label: floor(value) if isfinite(value) else value for label, value in samples.items()}
    return family(f"nodeagent_{name}", "gauge", text, samples)


def _total(name: str, text: str, value: float) -> str:
    return family(f"nodeagent_{name}", "counter", text, {None: value})
