"""A node in literals for the course of interference: verdicts and suspects are said, restraints looked at.

Nothing is simulated: what a victim's sign is, and who is suspected, is what the test says in each tick.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from nodeagent.core.interference.course import advance
from nodeagent.core.interference.cpus import CpusOf
from nodeagent.core.interference.facts import facts
from nodeagent.core.interference.measures import Measures
from nodeagent.core.rates import PodRates, View
from nodeagent.model.course import Course
from nodeagent.model.interference import Alarm, Episode, Interference, Restraint, State, Suspect, Verdict
from nodeagent.model.interference_policy import InterferencePolicy
from nodeagent.model.plan import Kind, Knob, KnobReading
from nodeagent.model.pod import PodSpec, Qos
from nodeagent.model.policy import Policy
from nodeagent.model.settings import Actuator, Mode
from nodeagent.model.snapshot import Pod, Reading, Snapshot
from nodeagent.model.symptom import AppReading, Channel, Sign
from nodeagent.model.topology import Topology
from tests.unit import samples

SIGN_OF = {
    Channel.CPU: Sign.CPU_STALL,
    Channel.LLC: Sign.CPI,
    Channel.MEMORY: Sign.MEMORY_STALL,
    Channel.IO: Sign.IO_STALL,
    Channel.NET: Sign.RETRANSMITS,
    Channel.APP: Sign.LATENCY,
}
VICTIM, OTHER, HOG, SHARK, LAMB = "web", "search", "hog", "shark", "lamb"
STATES = {"calm": State.CALM, "bad": State.CONFIRMED, "odd": State.SUSPECT, "blind": State.UNKNOWN}


def spec(name: str, qos: Qos = Qos.BATCH, inode: int = 0) -> PodSpec:
    """Its uid is its name."""
    path = f"nodeagent/{qos.value}/{name}"
    tier = samples.TIER if qos is Qos.BATCH else None
    return PodSpec(
        uid=name,
        name=name,
        cgroup=path,
        inode=inode or zlib.crc32(path.encode()),
        qos=qos,
        source="exec",
        tier=tier,
    )


def suspect(name: str, *, named: bool = True, contribution: float = 0.5, qos: Qos = Qos.BATCH) -> Suspect:
    cgroup = spec(name, qos).cgroup
    return Suspect(name, name, cgroup, {"rho": 0.9}, 0.01, 0.5, contribution, named)


def verdict(
    uid: str, how: str, channel: Channel = Channel.CPU, value: float = 0.5, baseline: float | None = 0.0
) -> Verdict:
    """`how`: calm, odd, bad or blind."""
    state = STATES[how]
    if state in (State.CALM, State.UNKNOWN):
        return Verdict(uid, state)
    alarm = Alarm(SIGN_OF[channel].value, channel, value, baseline, 4.0, 9.0)
    return Verdict(uid, state, 0.9, channel, (alarm,))


@dataclass
class TroubledNode:
    """`uses` are the cores of each pod, `suspects` the ranking that is given for each victim."""

    pods: dict[str, PodSpec]
    policy: InterferencePolicy = field(default_factory=InterferencePolicy)
    uses: dict[str, float] = field(default_factory=dict)
    suspects: dict[str, tuple[Suspect, ...]] = field(default_factory=dict)
    readings: dict[str, Reading] = field(default_factory=dict)
    cpus: dict[str, str] = field(default_factory=dict)
    limit_cores: float | None = None
    mode: Mode | None = Mode.ENFORCE
    enforce: tuple[Actuator, ...] | None = None
    topology: Topology | None = None
    apps: dict[str, AppReading] = field(default_factory=dict)
    baseline: float | None = 0.0
    cores: int = 4
    scope: frozenset[str] | None = None
    at: float = 1000.0
    absent: tuple[Knob, ...] = ()
    obeys: bool = True  # what was decided in a tick is found in the next
    shrinks_by: float = math.inf  # bytes by which a memory.high goes down in a tick, from what the pod uses
    highs: dict[str, float] = field(default_factory=dict)
    boot_id: str = samples.BOOT_ID
    course: Course = field(default_factory=Course)
    told: Interference = field(default_factory=Interference)
    cleared: list[Episode] = field(default_factory=list)
    ranked: int = 0

    def tick(
        self,
        how: str | Mapping[str, str],
        value: float | None = 0.0,
        channel: Channel = Channel.CPU,
        *,
        dt_s: float = 1.0,
        stall: float | None = None,
    ) -> Interference:
        """One tick later: `how` VICTIM (or each of these) is, and its sign; `stall`: its wait for CPU."""
        each = {VICTIM: how} if isinstance(how, str) else how
        verdicts = tuple(
            verdict(uid, state, channel, value or 0.0, self.baseline)
            for uid, state in each.items()
            if uid in self.pods
        )
        known: dict[Sign, float] = {} if value is None else {SIGN_OF[channel]: value}
        return self.tick_with(verdicts, known, dt_s=dt_s, stall=stall)

    def tick_with(
        self,
        verdicts: tuple[Verdict, ...],
        values: Mapping[Sign, float] | None = None,
        *,
        dt_s: float = 1.0,
        stall: float | None = None,
    ) -> Interference:
        """The same with these verdicts, and these values of each pod that has one."""
        self.at += dt_s
        known = {v.uid: Measures(dict(values or {}), frozenset()) for v in verdicts}
        view = self.view(dt_s, stall)
        every = frozenset(s.cgroup for s in self.pods.values())
        scope = every if self.scope is None else self.scope
        knobs = {r.knob: r for r in view.snapshot.knobs}
        policy = Policy(interference=self.policy)
        now = facts(view, knobs, scope, policy, verdicts, known, CpusOf(view, knobs))
        self.told, self.course = advance(now, self._rank, self.course)
        self.cleared += [e for e in self.told.episodes if e.cleared_unix is not None]
        return self.told

    def ticks(self, count: int, how: str, value: float | None = 0.0, **more: object) -> Interference:
        for _ in range(count):
            self.tick(how, value, **more)  # type: ignore[arg-type]  # as tick() takes them
        return self.told

    def restraint(self, name: str) -> Restraint | None:
        return next((r for r in self.told.restraints if r.uid == name), None)

    def quota(self, name: str) -> float | None:
        found = self.restraint(name)
        return None if found is None else found.quota_cores

    @property
    def episode(self) -> Episode:
        """The one of VICTIM that is open, or else the last that was cleared."""
        return [e for e in (*self.cleared, *self.told.episodes) if e.victim == VICTIM][-1]

    @property
    def results(self) -> list[str]:
        """How the trials of that episode came out."""
        return [t.result.value for t in self.episode.trials]

    def view(self, dt_s: float, stall: float | None) -> View:
        specs = list(self.pods.values())
        pods = tuple(Pod(s, self.readings.get(s.uid, Reading()), app=self.apps.get(s.uid)) for s in specs)
        rates = tuple(
            PodRates(
                pod, self.uses.get(pod.spec.uid, 0.5), stall if pod.spec.uid == VICTIM else None, None, None
            )
            for pod in pods
        )
        return View(self._snapshot(pods), dt_s, rates, None, None, {})

    def _snapshot(self, pods: tuple[Pod, ...]) -> Snapshot:
        seen = samples.snapshot(int(self.at), self.at, pods=(), cores=self.cores)
        return replace(
            seen,
            boot_id=self.boot_id,
            topology=seen.topology if self.topology is None else self.topology,
            pods=pods,
            knobs=tuple(self._knobs()),
            mode=self.mode,
            enforce=self.enforce,
            absent=self.absent,
            tiers=(samples.TIER,),
        )

    def _knobs(self) -> Iterable[KnobReading]:
        for each in self.pods.values():
            capped = self.quota(each.uid) if self.obeys else None
            yield samples.quota_knob(each.cgroup, math.inf if capped is None else capped)
            found = self.restraint(each.uid)
            idle = found is not None and found.idle and self.obeys
            yield samples.weight_knob(each.cgroup, 0.0 if idle else 1.0)
            if found is not None and found.memory_high_bytes is not None and self.obeys:
                used = float(self.readings[each.uid].memory_bytes or 0)
                size = max(found.memory_high_bytes, self.highs.get(each.uid, used) - self.shrinks_by)
                self.highs[each.uid] = size
                yield KnobReading(Knob(Kind.MEMORY_HIGH, each.cgroup), size, original=math.inf, written=size)
            if each.uid in self.cpus:
                cpus = self.cpus[each.uid]
                yield KnobReading(Knob(Kind.CPUS, each.cgroup), cpus, effective=cpus)
        if self.limit_cores is not None:
            yield replace(samples.quota_knob(samples.TIER), actual=self.limit_cores)

    def _rank(self, found: Verdict) -> tuple[Suspect, ...]:
        self.ranked += 1
        return self.suspects.get(found.uid, ())


def node(*batch: str, **more: object) -> TroubledNode:
    """One LS victim, and these Batch pods, each of which uses 1 core."""
    specs = {VICTIM: spec(VICTIM, Qos.LS), **{name: spec(name) for name in batch}}
    uses = {VICTIM: 0.5, **dict.fromkeys(batch, 1.0)}
    return TroubledNode(specs, uses=uses, **more)  # type: ignore[arg-type]  # fields of TroubledNode
