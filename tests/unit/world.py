"""A node in values: knobs that accept what cgroup v1 accepts, and the loop of decide, diff and write.

The kernel's rules are asserted at every single write, so every prefix of every diff is checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from nodeagent.core.decide import decide
from nodeagent.core.diff import diff
from nodeagent.model.cpuset import within
from nodeagent.model.decision import Decision, Memory
from nodeagent.model.plan import Change, Kind, Knob, KnobReading, Setting, Value, listed, numeric
from nodeagent.model.pod import Qos
from nodeagent.model.policy import Policy
from nodeagent.model.snapshot import CpuTimes, Pod, Snapshot, Stall
from tests.unit import samples

TIER = Knob(Kind.CPU_QUOTA, samples.TIER)


@dataclass
class Kernel:
    """Knobs by name, with what the agent's ledger would say of them."""

    knobs: dict[Knob, KnobReading] = field(default_factory=dict)

    def write(self, change: Change) -> None:
        """Take one write as cgroup v1 does: AssertionError where the kernel would say EINVAL."""
        found = self.knobs[change.knob]
        assert found.actual == change.old, "a change starts from what is there"
        assert acceptable(found, change.new), f"{change.knob}: {change.new}"
        after = replace(
            found,
            actual=change.new,
            original=None if change.gives_back else first(found, change),
            written=None if change.gives_back else change.new,
        )
        self.knobs[change.knob] = after
        self.tie(change.knob.target)
        assert valid(self.knobs), f"after {change}"

    def tie(self, target: str) -> None:
        """A quota's reading tells the burst, and the burst's its quota."""
        quota, burst = Knob(Kind.CPU_QUOTA, target), Knob(Kind.CPU_BURST, target)
        if quota in self.knobs and burst in self.knobs:
            q, b = self.knobs[quota], self.knobs[burst]
            self.knobs[quota] = replace(q, burst=numeric(b.actual))
            self.knobs[burst] = replace(b, high=numeric(q.actual))

    def run(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self.write(change)

    def apply(self, plan: Mapping[Knob, Value], yielded: tuple[Knob, ...] = ()) -> tuple[Change, ...]:
        wanted = {k: Setting(k, v, "test", "") for k, v in plan.items()}
        changes = diff(wanted, self.knobs.values(), yielded)
        self.run(changes)
        return changes


def first(found: KnobReading, change: Change) -> Value:
    """What the ledger keeps as the original."""
    if found.original is not None:
        return found.original
    return found.actual if change.inherited is None else change.inherited


def acceptable(knob: KnobReading, value: Value) -> bool:
    """What the kernel takes: no limit, idle where it exists, a whole number of units in range, a set."""
    if isinstance(value, str):
        return not knob.nested or (value != "" and within(value, knob.allowed or value))
    if value == math.inf or (value == 0.0 and knob.has_idle):
        return True
    units = value * knob.scale
    return knob.low <= value <= knob.high and abs(units - round(units)) < 1e-6


def valid(knobs: Mapping[Knob, KnobReading]) -> bool:
    """cgroup v1: a limited quota is within its nearest limited ancestor's, a set within its parent's.

    Everywhere: a burst is within its quota.
    """
    for knob, found in knobs.items():
        quota = knobs.get(Knob(Kind.CPU_QUOTA, knob.target))
        if knob.kind is Kind.CPU_BURST and quota is not None and not _fits(found.actual, quota.actual):
            return False
        if not found.nested or found.actual == math.inf:
            continue
        parts = knob.target.split("/")
        above = [Knob(knob.kind, "/".join(parts[:n])) for n in range(1, len(parts))]
        if not all(_fits(found.actual, knobs[p].actual) for p in above if p in knobs):
            return False
    return True


def _fits(inner: Value, outer: Value) -> bool:
    if isinstance(inner, str):
        return within(inner, listed(outer))
    return inner <= numeric(outer) + 1e-9


@dataclass
class Load:
    """What each pod does from now on: cores used, share of time waited; None = the reading is missing."""

    ls_cores: float | None = 0.5
    batch_cores: float | None = 0.5
    stall_ratio: float | None = 0.0
    steal_cores: float = 0.0


class World:
    """One LS pod, `batch` Batch pods and the tier on a node of `cores` CPUs; `step` is one tick of 1 s."""

    def __init__(
        self, cores: int = 8, batch: int = 2, policy: Policy | None = None, numa_nodes: int = 1
    ) -> None:
        self.policy = policy or Policy()
        self.cores, self.numa_nodes, self.seq = cores, numa_nodes, 0
        self.used = {"ls": 0, **{f"b{n}": 0 for n in range(batch)}}
        self.stalled = self.busy = self.stolen = 0
        self.memory = Memory()
        pods = self._pods(Load())
        self.kernel = Kernel({r.knob: r for r in samples.batch_knobs(pods)})

    def step(self, load: Load) -> Decision:
        decision, self.memory = decide(self.snapshot(load), self.policy, self.memory)
        plan = {s.knob: s for s in decision.plan}
        self.kernel.run(diff(plan, self.kernel.knobs.values(), decision.yielded))
        assert diff(plan, self.kernel.knobs.values(), decision.yielded) == (), "the second diff is empty"
        return decision

    def run(self, *loads: Load) -> list[Decision]:
        return [self.step(load) for load in loads]

    @property
    def quota(self) -> float:
        return numeric(self.kernel.knobs[TIER].actual)

    def snapshot(self, load: Load) -> Snapshot:
        self._advance(load)
        at = 1000.0 + self.seq
        seen = samples.snapshot(
            self.seq, at, pods=self._pods(load), cores=self.cores, numa_nodes=self.numa_nodes
        )
        self.seq += 1
        each, stolen = self.busy // self.cores, self.stolen // self.cores
        rows = tuple(CpuTimes(c, each, 0, 0, 0, 0, 0, 0, stolen) for c in range(self.cores))
        return replace(
            seen,
            node=replace(seen.node, cpus=rows),
            tiers=(samples.TIER,),
            knobs=tuple(self.kernel.knobs.values()) if hasattr(self, "kernel") else (),
        )

    def _advance(self, load: Load) -> None:
        batch = [name for name in self.used if name != "ls"]
        self.used["ls"] += round((load.ls_cores or 0.0) * 1e6)
        for name in batch:
            self.used[name] += round((load.batch_cores or 0.0) * 1e6)
        self.busy += round(((load.ls_cores or 0.0) + len(batch) * (load.batch_cores or 0.0)) * 1e6)
        self.stalled += round((load.stall_ratio or 0.0) * 1e6)
        self.stolen += round(load.steal_cores * 1e6)

    def _pods(self, load: Load) -> tuple[Pod, ...]:
        at = 1000.0 + self.seq
        out = []
        for number, (name, used_us) in enumerate(self.used.items()):
            online = name == "ls"
            pod = samples.pod(
                number, at, qos=Qos.LS if online else Qos.BATCH, containers=0, request_cores=None
            )
            seen = load.ls_cores if online else load.batch_cores
            stall = load.stall_ratio if online else 0.0
            reading = replace(
                pod.reading,
                cpu_us=None if seen is None else used_us,
                cpu_stall=None if stall is None else Stall(self.stalled if online else 0),
            )
            out.append(replace(pod, reading=reading))
        return tuple(out)
