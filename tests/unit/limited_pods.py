"""A node with LS pods that have a CPU quota, in values: what they want, what the kernel lets them have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from nodeagent.core.decide import decide
from nodeagent.core.diff import diff
from nodeagent.model.decision import Decision, Memory
from nodeagent.model.plan import Kind, Knob, KnobReading, Setting, numeric
from nodeagent.model.pod import OWN_TIER, Qos
from nodeagent.model.policy import Policy
from nodeagent.model.snapshot import Container, CpuTimes, Pod, Snapshot, Stall
from tests.unit import samples
from tests.unit.world import Kernel

UNKNOWN = -1.0  # a demand of a pod whose use and throttling are not told in this tick
APP = "app"


def burst_knob(target: str, quota: float) -> KnobReading:
    """A v1 cpu.cfs_burst_us: any of n/100000 cores up to the quota."""
    return KnobReading(Knob(Kind.CPU_BURST, target), 0.0, 100_000, high=quota)


class Limited:
    """LS pods "pod0"... with these quotas, an unlimited LS pod and a Batch pod, on `cores` CPUs; 1 s a tick.

    `inner`: the quota of a container that does all the work of pod 0.
    """

    def __init__(
        self,
        quotas: Sequence[float],
        policy: Policy | None = None,
        cores: int = 16,
        inner: float | None = None,
        qos: Qos = Qos.LS,
    ) -> None:
        self.policy, self.cores, self.seq, self.qos = policy or Policy(), cores, 0, qos
        self.memory = Memory()
        self.used_us, self.throttled_us = [0] * (len(quotas) + 2), [0] * len(quotas)
        self.inner_us = 0
        self.paths = [f"nodeagent/{qos.value}/pod{n}" for n in range(len(quotas))]
        own = dict(zip(self.paths, quotas, strict=True))
        if inner is not None:
            own[f"{self.paths[0]}/{APP}"] = inner
        self.own = own
        batch = samples.batch_knobs((samples.pod(99, 1.0, qos=Qos.BATCH),))
        readings = [*batch, *(samples.quota_knob(p, q) for p, q in own.items())]
        readings += [burst_knob(p, q) for p, q in own.items()]
        self.kernel = Kernel({r.knob: r for r in readings})

    def quota(self, path: str) -> float:
        return numeric(self.kernel.knobs[Knob(Kind.CPU_QUOTA, path)].actual)

    def extra(self, number: int) -> float:
        """What a pod has on top of its own quota now."""
        return self.quota(self.paths[number]) - self.own[self.paths[number]]

    def settings(self, decision: Decision, kind: Kind) -> Mapping[str, Setting]:
        return {s.knob.target: s for s in decision.plan if s.knob.kind is kind}

    def step(self, demands: Sequence[float], web: float = 0.5) -> Decision:
        """One tick in which each pod wants so many cores, and the unlimited LS pod uses `web`."""
        decision, self.memory = decide(self.snapshot(demands, web), self.policy, self.memory)
        plan = {s.knob: s for s in decision.plan}
        self.kernel.run(diff(plan, self.kernel.knobs.values(), decision.yielded))
        assert diff(plan, self.kernel.knobs.values(), decision.yielded) == (), "the second diff is empty"
        return decision

    def snapshot(self, demands: Sequence[float], web: float) -> Snapshot:
        at = 1000.0 + self.seq
        pods = [self._pod(n, at, demand) for n, demand in enumerate(demands)]
        self.used_us[-1] += round(web * 1e6)
        web_pod = samples.pod(50, at, containers=0)
        pods.append(_with(web_pod, self.used_us[-1], 0))
        self.used_us[-2] += 100_000
        pods.append(_with(samples.pod(99, at, qos=Qos.BATCH, containers=0), self.used_us[-2], 0))
        seen = samples.snapshot(self.seq, at, pods=tuple(pods), cores=self.cores, knobs=())
        each = sum(self.used_us) // self.cores
        rows = tuple(CpuTimes(c, each, 0, 0, 0, 0, 0, 0, 0) for c in range(self.cores))
        self.seq += 1
        return replace(
            seen,
            node=replace(seen.node, cpus=rows),
            tiers=(OWN_TIER,),
            knobs=tuple(self.kernel.knobs.values()),
        )

    def _pod(self, number: int, at: float, demand: float) -> Pod:
        """It uses what it wants within its quota, and is throttled for the rest, by the tighter quota."""
        path = self.paths[number]
        inner = self.quota(f"{path}/{APP}") if f"{path}/{APP}" in self.own else math.inf
        roof = min(self.quota(path), inner)
        known = demand != UNKNOWN
        wanted = max(0.0, demand)
        self.used_us[number] += round(min(wanted, roof) * 1e6)
        held_back_us = round(max(0.0, wanted - roof) * 1e6)
        if inner < self.quota(path):
            self.inner_us += held_back_us
        else:
            self.throttled_us[number] += held_back_us
        pod = samples.pod(number, at, qos=self.qos, containers=0)
        pod = _with(
            pod, self.used_us[number] if known else None, self.throttled_us[number] if known else None
        )
        if math.isinf(inner):
            return pod
        reading = replace(pod.reading, throttled_us=self.inner_us if known else None)
        return replace(pod, containers=(Container(APP, f"{path}/{APP}", 7, reading),))


def _with(pod: Pod, used_us: int | None, throttled_us: int | None) -> Pod:
    reading = replace(pod.reading, cpu_us=used_us, throttled_us=throttled_us, cpu_stall=Stall(0, 0))
    return replace(pod, reading=reading)
