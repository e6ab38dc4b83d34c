"""A node with an LS pod and three Batch pods whose restraints a test says: scene, plan, diff, write."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from msgspec.structs import replace

from nodeagent.core import seats, share
from nodeagent.core.diff import diff
from nodeagent.core.rates import view
from nodeagent.core.scene import Scene
from nodeagent.enforce import ENFORCERS
from nodeagent.model.decision import Memory
from nodeagent.model.interference import Restraint, Rung
from nodeagent.model.plan import Kind, Knob, KnobReading, Setting, Value, one_owner
from nodeagent.model.pod import Qos
from nodeagent.model.policy import Policy
from nodeagent.model.snapshot import Pod, Snapshot
from tests.unit import samples
from tests.unit.world import Kernel

NOISY, OTHER, THIRD = (f"{samples.TIER}/pod{number}" for number in (1, 2, 3))
VICTIM = "nodeagent/ls/pod0"
MIB = 1 << 20
WHY = "search-7 is disturbed"


def restraint(
    cgroup: str = NOISY, *, until: float = math.inf, rung: Rung = Rung.QUOTA, **held: object
) -> Restraint:
    """What holds a pod of the node."""
    whole: dict[str, object] = {
        "uid": cgroup,
        "cgroup": cgroup,
        "rung": rung,
        "episode": "e1",
        "until": until,
    }
    return Restraint(**{**whole, "why": WHY, **held})  # type: ignore[arg-type]  # the test names the fields


def sets(path: str, cpus: str = "0-7", *, version: int = 1, effective: str = "0-7") -> KnobReading:
    """The CPUs of a cgroup as nobody has touched them."""
    if version == 1:
        return KnobReading(Knob(Kind.CPUS, path), cpus, nested=True, effective=cpus, allowed="0-7")
    return KnobReading(Knob(Kind.CPUS, path), cpus, effective=effective)


def high(path: str = NOISY, actual: float = math.inf) -> KnobReading:
    return KnobReading(Knob(Kind.MEMORY_HIGH, path), actual, high=2.0**62)


def io_weight(path: str = NOISY, actual: float = 1.0) -> KnobReading:
    return KnobReading(Knob(Kind.IO_WEIGHT, path), actual, 100, 0.01, 100.0)


def freezer(path: str = NOISY, actual: float = 0.0, inhabited: bool = True) -> KnobReading:
    return KnobReading(Knob(Kind.FREEZE, path), actual, high=float(inhabited))


class Node:
    """8 CPUs; each `step` is a second in which the three Batch pods are throttled at what they may use."""

    def __init__(self, *extra: KnobReading, policy: Policy | None = None, limit: float | None = 6.0) -> None:
        self.policy, self.limit, self.seq = policy or Policy(), limit, 0
        self.scope = frozenset({samples.TIER, NOISY, OTHER, THIRD, *(r.knob.target for r in extra)})
        self.memory_bytes: int | None = 1000 * MIB
        self.anon_bytes: int | None = 500 * MIB
        self.change: Callable[[Pod], Pod] = lambda pod: pod
        knobs = (*samples.batch_knobs(self.pods()), *extra)
        self.kernel = Kernel({r.knob: replace(r, has_idle=r.knob.kind is Kind.CPU_WEIGHT) for r in knobs})

    def step(self, *held: Restraint) -> dict[Knob, Setting]:
        """One tick; its plan, which is written."""
        scene = self.scene(*held)
        plan = one_owner(s for enforce in ENFORCERS for s in enforce(scene, self.policy))
        self.kernel.run(diff(plan, self.kernel.knobs.values()))
        assert diff(plan, self.kernel.knobs.values()) == (), "the second diff is empty"
        return plan

    def scene(self, *held: Restraint) -> Scene:
        """What the enforcers of this tick see."""
        before, now = self.snapshot(), self.snapshot()
        knobs = {r.knob: r for r in now.knobs}
        seen, restraints = view(now, before), {r.cgroup: r for r in held}
        shares = None
        if self.limit is not None:
            shares = share.split(seen, self.limit, 0.1, self.scope, knobs, restraints)
        scene = Scene(seen, (), knobs, self.scope, shares, "ceiling", restraints=restraints)
        return seats.seated(scene, self.policy.numa, Memory(), self.limit)[0]

    def found(self, kind: Kind, path: str = NOISY) -> Value:
        return self.kernel.knobs[Knob(kind, path)].actual

    def held(self, kind: Kind, path: str = NOISY) -> bool:
        return self.kernel.knobs[Knob(kind, path)].held

    def drift(self, kind: Kind, value: Value, path: str = NOISY) -> None:
        """Somebody else writes."""
        knob = Knob(kind, path)
        self.kernel.knobs[knob] = replace(self.kernel.knobs[knob], actual=value)

    def snapshot(self) -> Snapshot:
        self.seq += 1
        seen = samples.snapshot(self.seq, 1000.0 + self.seq, pods=self.pods(), cores=8)
        knobs: Iterable[KnobReading] = self.kernel.knobs.values()
        return replace(seen, tiers=(samples.TIER,), knobs=tuple(knobs))

    def pods(self) -> tuple[Pod, ...]:
        at = 1000.0 + self.seq
        victim = samples.pod(0, at, qos=Qos.LS, containers=0)
        batch = [samples.pod(n, at, qos=Qos.BATCH, containers=0, request_cores=1.0) for n in (1, 2, 3)]
        return (victim, *(self.change(self._busy(pod)) for pod in batch))

    def _busy(self, pod: Pod) -> Pod:
        reading = replace(pod.reading, throttled_us=500_000 * self.seq)
        reading = replace(reading, memory_bytes=self.memory_bytes, anon_bytes=self.anon_bytes)
        return replace(pod, reading=reading)
