"""A node of two NUMA nodes whose pods are placed: decide, diff, write, and pages that move or do not."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from nodeagent.core.decide import decide
from nodeagent.core.diff import diff
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.decision import Decision, Memory
from nodeagent.model.pages import PageMove, PagesMoving
from nodeagent.model.plan import Kind, Knob, KnobReading
from nodeagent.model.pod import Qos
from nodeagent.model.policy import NumaPolicy, Policy
from nodeagent.model.snapshot import Pod, Snapshot
from tests.unit import samples
from tests.unit.world import Kernel

ON = Policy(numa=NumaPolicy(placement=True))
ALL = "0-7"


Mover = Callable[[PageMove], PagesMoving | None]


def moved(move: PageMove) -> PagesMoving:
    """All pages are there by the next tick."""
    return PagesMoving(move, 1000.0, 64 << 20, 0, settled=True)


def _pod(number: int, at: float, qos: Qos, *, bind: bool = False, cpus: float = 2.0) -> Pod:
    pod = samples.pod(number, at, qos=qos, cores=0.2, containers=0, request_cores=cpus)
    return replace(pod, spec=replace(pod.spec, numa_bind=bind))


class Node:
    """A node of 8 CPUs on two NUMA nodes: one LS pod that may bind, one that does not, a Batch pod."""

    def __init__(self, *, bind: bool = True, cpus: float = 2.0, exclusive: bool = False) -> None:
        self.seq, self.bind, self.cpus, self.memory = 0, bind, cpus, Memory()
        self.exclusive = exclusive
        self.mover: Mover = moved
        self.moving: tuple[PagesMoving, ...] = ()
        paths = (samples.TIER, *(p.spec.cgroup for p in self._pods(1000.0)))
        sets = [
            KnobReading(Knob(kind, path), text, nested=True, effective=text, allowed=text)
            for path in paths
            for kind, text in ((Kind.CPUS, ALL), (Kind.MEMS, "0-1"))
        ]
        quotas = samples.batch_knobs(self._pods(1000.0))
        self.kernel = Kernel({r.knob: r for r in (*quotas, *sets)})

    def step(self, policy: Policy = ON) -> Decision:
        decision, self.memory = decide(self._snapshot(), policy, self.memory)
        plan = {s.knob: s for s in decision.plan}
        self.kernel.run(diff(plan, self.kernel.knobs.values(), decision.yielded))
        assert diff(plan, self.kernel.knobs.values(), decision.yielded) == ()
        found = map(self.mover, decision.moves)
        self.moving = tuple(each for each in found if each is not None)
        return decision

    def run(self, ticks: int) -> Decision:
        """So many ticks; the last decision."""
        return [self.step() for _ in range(ticks)][-1]

    def cpus_of(self, path: str) -> CpuSet:
        return CpuSet.parse(str(self.kernel.knobs[Knob(Kind.CPUS, path)].actual))

    def mems_of(self, path: str) -> str:
        return str(self.kernel.knobs[Knob(Kind.MEMS, path)].actual)

    def _pods(self, at: float) -> tuple[Pod, ...]:
        bound = _pod(1, at, Qos.LS, bind=self.bind, cpus=self.cpus)
        bound = replace(bound, spec=replace(bound.spec, exclusive=self.exclusive))
        return (bound, _pod(2, at, Qos.LS), _pod(3, at, Qos.BATCH))

    def _snapshot(self) -> Snapshot:
        self.seq += 1
        at = 1000.0 + self.seq
        seen = samples.snapshot(self.seq, at, pods=self._pods(at), numa_nodes=2)
        return replace(
            seen, tiers=(samples.TIER,), knobs=tuple(self.kernel.knobs.values()), moving=self.moving
        )
