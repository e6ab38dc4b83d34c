"""A modelled node: the counters and knobs that the kernel would show, for one Batch pod and the trace's pods.

It has one NUMA node, cgroup v2 and PSI; each online pod is an LS pod without a limit. The trace tells CPU
alone: PSI is derived from the model (what waits for CPU beside Batch), and memory counts as free.
Invariant: a reading is missing (None) in each step whose use is not known; counters do not go on in it.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from nodeagent.core.diff import diff
from nodeagent.model.decision import Decision
from nodeagent.model.plan import Kind, Knob, KnobReading, numeric, one_owner
from nodeagent.model.pod import OWN_LS, OWN_TIER, PodSpec, Qos
from nodeagent.model.snapshot import CpuTimes, Node, NodeMemory, Pod, Reading, Snapshot, Stall
from nodeagent.model.topology import Cpu, NumaNode, Topology
from nodeagent.simulate.fluid import Share, waited

BOOT_ID = "simulated"
BOOTED_S = 1000.0  # before the trace begins
BATCH = f"{OWN_TIER}/all"
QUOTAS = (Knob(Kind.CPU_QUOTA, OWN_TIER), Knob(Kind.CPU_QUOTA, BATCH))
TIER_WEIGHT = Knob(Kind.CPU_WEIGHT, OWN_TIER)


class ModelNode:
    """Begins at `at` seconds with all counters at 0 and no limit anywhere."""

    def __init__(self, cores: int, memory_bytes: int, pods: Sequence[str], at: float) -> None:
        self._topology = _topology(cores, memory_bytes)
        self._memory = NodeMemory(memory_bytes, memory_bytes, memory_bytes, 0, 0)
        self._specs = [_spec(f"{OWN_LS}/{n}", name, Qos.LS) for n, name in enumerate(pods)]
        self._batch = _spec(BATCH, "batch", Qos.BATCH)
        self._used_us = [0] * (len(pods) + 1)  # the last one is Batch's
        self._waited_us = [0] * len(pods)
        self._known = [True] * (len(pods) + 1)
        self._knobs = {r.knob: r for target in (OWN_TIER, BATCH) for r in _knobs(target)}
        self._at, self._began, self._seq = at, at, -1

    @property
    def limit_cores(self) -> float:
        """What the quotas let Batch use; inf: not limited."""
        return min(numeric(self._knobs[knob].actual) for knob in QUOTAS)

    @property
    def batch_weight(self) -> float:
        return numeric(self._knobs[TIER_WEIGHT].actual)

    def spend(self, share: Share) -> None:
        """One step has passed."""
        self._at = share.at
        span_us = share.span_s * 1e6
        sure = share.batch is not None
        self._known = [got is not None for got in (*share.online, share.batch)]
        for n, got in enumerate((*share.online, share.batch)):
            self._used_us[n] += round((got or 0.0) * span_us)
        for n, (want, got) in enumerate(zip(share.wanted, share.online, strict=True)):
            if sure and want is not None and got is not None:
                self._waited_us[n] += round(waited(want, got) * span_us)

    def read(self) -> Snapshot:
        """What the agent sees now."""
        self._seq += 1
        at = BOOTED_S + self._at - self._began
        last = len(self._specs)
        waited = enumerate(zip(self._specs, self._waited_us, strict=True))
        pods = [Pod(spec, self._reading(n, waited_us, at)) for n, (spec, waited_us) in waited]
        batch = Pod(self._batch, self._reading(last, 0, at))
        memory = replace(self._memory, available_bytes=None, numa_node=0)
        cpus = self._cpus() if self._known[last] else None
        return Snapshot(
            seq=self._seq,
            at=at,
            unix=at,
            boot_id=BOOT_ID,
            topology=self._topology,
            node=Node(cpus=cpus, memory=self._memory, numa_memory=(memory,), watermark_bytes=0),
            pods=(*pods, batch),
            tiers=(OWN_TIER,),
            knobs=tuple(self._knobs.values()),
        )

    def obey(self, decision: Decision) -> None:
        """Write what is decided, as the kernel would take it."""
        for change in diff(one_owner(decision.plan), self._knobs.values(), decision.yielded):
            found = self._knobs[change.knob]
            original = change.old if found.original is None else found.original
            self._knobs[change.knob] = replace(
                found,
                actual=change.new,
                original=None if change.gives_back else original,
                written=None if change.gives_back else change.new,
            )

    def _reading(self, n: int, waited_us: int, at: float) -> Reading:
        """Of pod `n`; where the step's use is not known in all, nobody's waiting is known."""
        return Reading(
            cpu_us=self._used_us[n] if self._known[n] else None,
            throttled_us=0,
            cpu_stall=Stall(waited_us, 0) if self._known[-1] else None,
            memory_bytes=0,
            slow_at=at,
            inactive_file_bytes=0,
        )

    def _cpus(self) -> tuple[CpuTimes, ...]:
        """All use spread evenly over the CPUs."""
        cores = self._topology.cores
        each_us, rest_us = divmod(sum(self._used_us), cores)
        whole_us = round((self._at - self._began) * 1e6)
        rows = []
        for cpu in range(cores):
            busy_us = each_us + (cpu < rest_us)
            rows.append(CpuTimes(cpu, busy_us, 0, 0, max(0, whole_us - busy_us), 0, 0, 0, 0))
        return tuple(rows)


def _spec(cgroup: str, name: str, qos: Qos) -> PodSpec:
    tier = OWN_TIER if qos is Qos.BATCH else None
    return PodSpec(uid=cgroup, name=name, cgroup=cgroup, inode=1, qos=qos, source="rule", tier=tier)


def _knobs(target: str) -> tuple[KnobReading, KnobReading]:
    quota = KnobReading(Knob(Kind.CPU_QUOTA, target), float("inf"), 100_000, 0.01, 1e6)
    return quota, KnobReading(Knob(Kind.CPU_WEIGHT, target), 1.0, 100, 0.01, 100.0, has_idle=True)


def _topology(cores: int, memory_bytes: int) -> Topology:
    cpus = tuple(Cpu(cpu, cpu, 0, 0, 0, (cpu,)) for cpu in range(cores))
    return Topology(cpus, (NumaNode(0, tuple(range(cores)), memory_bytes, (10,)),))
