"""SYNTHETIC: a simulated node of pods that share CPUs max-min fairly, for tests; nothing is measured.

Ticks of 10 ms: a pod demands d_i of CPU, its quota lets want_i = min(d_i, q_i) through, and the CPUs are
split by weighted max-min. What it wants and does not get is contention, what its quota keeps from it is
throttling; so every label is exact. Memory traffic may inflate the neighbours' CPU time per unit of work.

Same seed, same node. The counters are those that the kernel's readers give.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from msgspec.structs import replace

from nodeagent.core.diff import diff
from nodeagent.core.fair import max_min
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.plan import Kind, Knob, KnobReading, Setting, one_owner
from nodeagent.model.pod import PodSpec, Qos
from nodeagent.model.snapshot import CpuTimes, Pod, Snapshot, Stall
from nodeagent.model.symptom import AppReading, DeviceUse, Rdt, Slo, Symptoms
from nodeagent.model.topology import Topology
from nodeagent.simulate.fluid import kernel_weight, waited
from tests.unit import samples
from tests.unit.world import Kernel

TICK_S = 0.01
PERIOD_TICKS = 10  # of a CPU quota
PATIENCE_S = 1.0  # work that waits longer than this is given up
DRAIN_S = 0.1  # in which a server would like to have caught up

Course = Callable[[float], float]  # demand in cores at a time in seconds since the start


def constant(cores: float) -> Course:
    return lambda _: cores


def steps(*points: tuple[float, float]) -> Course:
    """(from second, cores), in order; 0 before the first."""
    return lambda t: next((cores for since, cores in reversed(points) if t >= since), 0.0)


def duty(cores: float, *, on_s: float, period_s: float, offset_s: float = 0.0, rest: float = 0.0) -> Course:
    """`cores` for the first `on_s` of each period from `offset_s` on, else `rest`."""
    return lambda t: cores if t >= offset_s and (t - offset_s) % period_s < on_s else rest


def turns(number: int, of: int, cores: float, *, each_s: float, since_s: float = 0.0) -> Course:
    """One of `of` pods that work one after the other, `each_s` long, from `since_s` on."""
    return duty(cores, on_s=each_s, period_s=of * each_s, offset_s=since_s + number * each_s)


UNDISTURBED = constant(0.0)


@dataclass(frozen=True)
class Actor:
    """A SYNTHETIC pod. `noise` is the spread of its demand (log-normal, mean 1, redrawn each second).

    With `requests_per_core` it serves: what it demands are requests, it tells latency, and what waits piles
    up. `traffic` is memory bandwidth (bytes/s) per core used; `sensitivity` how much more CPU its work takes
    per share of the node's bandwidth that others use. `io_bytes` are written per core-second.
    """

    name: str
    demand: Course
    qos: Qos = Qos.BATCH
    noise: float = 0.1
    weight: float = 1.0
    quota: float = math.inf
    cpus: str = ""  # "" = all
    threads: int = 8  # most that run at once
    requests_per_core: float = 0.0
    request_cores: float | None = None
    traffic: float = 0.0
    sensitivity: float = 0.0
    io_bytes: float = 0.0
    device: str = "8:0"
    slo: Slo | None = None
    since_s: float = 0.0
    until_s: float = math.inf
    jitter: float = 0.004  # mean share of wall time that it waits for no neighbour's sake, exponential


class Cause(enum.StrEnum):
    """What a pod suffered from, most, in one second."""

    CALM = "calm"
    CONTENTION = "contention"  # it would not have waited without the others
    BANDWIDTH = "bandwidth"  # the others' memory traffic
    OWN_QUOTA = "own-quota"
    OWN_LOAD = "own-load"  # it would have waited alone
    STEAL = "steal"


@dataclass(frozen=True)
class Label:
    """Exact, in core-seconds per second; `inflation` is CPU time per work, 1.0 = undisturbed."""

    contention: float
    own_load: float
    throttled: float
    stolen: float
    inflation: float

    @property
    def cause(self) -> Cause:
        """The largest part of at least 2 % of a core; memory traffic counts from 5 % more CPU time on."""
        parts = {
            Cause.OWN_QUOTA: self.throttled,
            Cause.STEAL: self.stolen,
            Cause.OWN_LOAD: self.own_load,
            Cause.CONTENTION: self.contention,
        }
        worst = max(parts, key=lambda cause: parts[cause])
        if parts[worst] >= 0.02:
            return worst
        return Cause.BANDWIDTH if self.inflation >= 1.05 else Cause.CALM


@dataclass
class _Life:
    """Counters and state of one Actor, seconds and core-seconds."""

    actor: Actor
    random: Random
    inode: int
    factor: float = 1.0
    backlog: float = 0.0
    used: float = 0.0
    wait: float = 0.0
    run_delay: float = 0.0
    throttled: float = 0.0
    throttled_periods: int = 0
    periods: int = 0
    hit: bool = False
    requests: float = 0.0
    bytes: float = 0.0
    io: float = 0.0
    second: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, amount: float) -> None:
        self.second[name] = self.second.get(name, 0.0) + amount


class Synthetic:
    """A SYNTHETIC node: `second()` is one more second; `labels[-1]` what each pod suffered in it, by uid."""

    def __init__(
        self,
        actors: Iterable[Actor],
        *,
        cores: int = 4,
        topology: Topology | None = None,
        bandwidth: float = 10e9,  # of each L3 domain
        steal: Course = UNDISTURBED,  # share of each CPU
        psi: bool = True,
        seed: int = 0,
        tick_s: float = TICK_S,
    ) -> None:
        self.topology = samples.topology(cores) if topology is None else topology
        self.bandwidth, self.steal, self.psi, self.seed, self.tick_s = bandwidth, steal, psi, seed, tick_s
        self.ticks = self.seq = 0
        self.lives = [_Life(a, Random(f"{seed}/{a.name}"), 1000 + n) for n, a in enumerate(actors)]
        self.labels: list[dict[str, Label]] = []
        self.cpu_us = dict.fromkeys((c.id for c in self.topology.cpus), (0.0, 0.0))
        self.kernel = Kernel({r.knob: r for life in self.lives for r in self._knobs(path(life.actor))})
        whole = {r.knob: r for r in self._knobs(samples.TIER)}
        self.kernel.knobs.update(whole)
        for life in self.lives:
            self._begin(life.actor)

    def run(self, seconds: int) -> list[Snapshot]:
        return [self.second() for _ in range(seconds)]

    def obey(self, plan: Iterable[Setting], yielded: tuple[Knob, ...] = ()) -> None:
        """Write what a plan says to the knobs that this node has: quotas, weights and CPUs."""
        self.kernel.run(diff(one_owner(plan), self.kernel.knobs.values(), yielded))

    def write(self, kind: Kind, target: str, value: float | str) -> None:
        """As an operator writes one knob."""
        knob = Knob(kind, target)
        text = value if isinstance(value, str) else ""
        self.kernel.knobs[knob] = replace(self.kernel.knobs[knob], actual=value, effective=text)

    def second(self) -> Snapshot:
        """Simulate one second and read the counters."""
        for life in self.lives:
            life.second = {}
            spread = life.actor.noise
            life.factor = math.exp(life.random.gauss(-spread * spread / 2, spread))
        for _ in range(round(1.0 / self.tick_s)):
            self._tick()
        present = [life for life in self.lives if self._here(life)]
        for life in present:
            calm = max(0.0, 1.0 - life.second.get("waited", 0.0))
            more = calm * min(1.0, life.random.expovariate(1.0) * life.actor.jitter)
            life.wait += more
            life.run_delay += more
        self.labels.append({path(life.actor): _label(life) for life in present})
        self.seq += 1
        return self._snapshot(present)

    def _here(self, life: _Life) -> bool:
        now = self.ticks * self.tick_s
        return life.actor.since_s <= now < life.actor.until_s or life.second != {}

    def _tick(self) -> None:
        now, dt = self.ticks * self.tick_s, self.tick_s
        lives = [x for x in self.lives if x.actor.since_s <= now < x.actor.until_s]
        inflation = self._inflation(lives)
        fresh = [
            life.actor.demand(now) * life.factor * slower
            for life, slower in zip(lives, inflation, strict=True)
        ]
        demands = [
            min(float(life.actor.threads), work + life.backlog / DRAIN_S)
            for life, work in zip(lives, fresh, strict=True)
        ]
        quotas = [self._number(Kind.CPU_QUOTA, path(life.actor)) for life in lives]
        wants = self._within_tier(lives, list(map(min, demands, quotas)))
        stolen = self.steal(now)
        got = self._split(lives, wants, 1.0 - stolen)
        for n, life in enumerate(lives):
            self._account(life, demands[n], wants[n], got[n], inflation[n], fresh[n])
            need, cpus = min(fresh[n], wants[n]), float(len(self._cpus(life)))  # what piled up is not its own
            own, lost = max(0.0, need - cpus), max(0.0, min(need, cpus) - cpus * (1.0 - stolen))
            life.add("own_load", own * dt)
            life.add("stolen", lost * dt)
            life.add("contention", max(0.0, wants[n] - got[n] - own - lost) * dt)
        self.ticks += 1

    def _account(
        self, life: _Life, demand: float, want: float, got: float, slower: float, fresh: float
    ) -> None:
        dt = self.tick_s
        life.used += got * dt
        missed = demand - got
        life.wait += waited(demand, got) * dt
        life.add("waited", waited(demand, got) * dt)
        life.run_delay += missed * dt
        life.throttled += (demand - want) * dt
        life.hit = life.hit or demand > want + 1e-9
        if self.ticks % PERIOD_TICKS == PERIOD_TICKS - 1:
            limited = math.isfinite(self._number(Kind.CPU_QUOTA, path(life.actor)))
            life.periods += limited
            life.throttled_periods += limited and life.hit
            life.hit = False
        if life.actor.requests_per_core:
            life.backlog = min(life.backlog + (fresh - got) * dt, PATIENCE_S * fresh)
            life.backlog = max(0.0, life.backlog)
            served = got * dt / slower * life.actor.requests_per_core
            life.requests += served
            life.add("requests", served)
            late = 0.005 * slower + life.backlog / max(got, 0.01)
            life.second["latency"] = max(late, life.second.get("latency", 0.0))
        life.bytes += got * life.actor.traffic * dt
        life.io += got * life.actor.io_bytes * dt
        life.add("used", got * dt)
        life.add("throttled", (demand - want) * dt)
        life.add("inflation", slower * dt)

    def _inflation(self, lives: list[_Life]) -> list[float]:
        """By what the others moved through memory in the second until now; a domain is one L3."""
        domains = {life.inode: self._domains(life) for life in lives}
        moved = {life.inode: self._using(life) * life.actor.traffic for life in lives}
        slower = []
        for life in lives:
            others = (
                moved[o.inode] for o in lives if o is not life and domains[o.inode] & domains[life.inode]
            )
            pressed = min(1.0, sum(others) / self.bandwidth) if life.actor.sensitivity else 0.0
            slower.append(1.0 + life.actor.sensitivity * pressed)
        return slower

    def _using(self, life: _Life) -> float:
        elapsed = self.ticks * self.tick_s % 1.0
        if elapsed > self.tick_s / 2:
            return life.second.get("used", 0.0) / elapsed
        demand = life.actor.demand(self.ticks * self.tick_s) * life.factor
        return min(demand, float(len(self._cpus(life))), self._number(Kind.CPU_QUOTA, path(life.actor)))

    def _within_tier(self, lives: list[_Life], wants: list[float]) -> list[float]:
        quota = self._number(Kind.CPU_QUOTA, samples.TIER)
        inside = [n for n, life in enumerate(lives) if life.actor.qos is Qos.BATCH]
        if not math.isfinite(quota) or not inside:
            return wants
        weights = [self._weight(lives[n]) for n in inside]
        parts = max_min(quota, weights, [wants[n] for n in inside])
        wants = list(wants)
        for n, part in zip(inside, parts, strict=True):
            wants[n] = part
        return wants

    def _split(self, lives: list[_Life], wants: list[float], capacity: float) -> list[float]:
        """Weighted max-min over groups of CPUs with the same users, in rounds: exact for one set of CPUs."""
        sets = [self._cpus(life) for life in lives]
        groups: dict[tuple[int, ...], list[int]] = {}
        for cpu in self.cpu_us:
            groups.setdefault(tuple(n for n, cpus in enumerate(sets) if cpu in cpus), []).append(cpu)
        left = {users: capacity * len(cpus) for users, cpus in groups.items() if users}
        got = [0.0] * len(lives)
        for _ in range(1 if len(left) == 1 else 4):
            for users, free in left.items():
                room = [sum(left[g] for g in left if n in g) for n in users]
                asked = [
                    max(0.0, wants[n] - got[n]) * (free / r if r > 0 else 0.0)
                    for n, r in zip(users, room, strict=True)
                ]
                parts = max_min(free, [self._weight(lives[n]) for n in users], asked)
                for n, part in zip(users, parts, strict=True):
                    got[n] += part
                left[users] = max(0.0, free - sum(parts))
        for users, cpus in groups.items():
            busy = capacity - left.get(users, capacity * len(cpus)) / len(cpus)
            for cpu in cpus:
                used, stolen = self.cpu_us[cpu]
                self.cpu_us[cpu] = (used + busy * self.tick_s, stolen + (1 - capacity) * self.tick_s)
        return got

    def _cpus(self, life: _Life) -> CpuSet:
        text = self.kernel.knobs[Knob(Kind.CPUS, path(life.actor))].effective
        own = CpuSet.parse(text)
        if life.actor.qos is not Qos.BATCH:
            return own
        return CpuSet(own & CpuSet.parse(self.kernel.knobs[Knob(Kind.CPUS, samples.TIER)].effective)) or own

    def _domains(self, life: _Life) -> set[int]:
        cpus = self._cpus(life)
        return {(c.socket or 0) if c.l3 is None else c.l3 for c in self.topology.cpus if c.id in cpus}

    def _number(self, kind: Kind, target: str) -> float:
        found = self.kernel.knobs[Knob(kind, target)].actual
        assert isinstance(found, float)
        return found

    def _weight(self, life: _Life) -> float:
        return kernel_weight(self._number(Kind.CPU_WEIGHT, path(life.actor)))

    def _knobs(self, target: str) -> tuple[KnobReading, ...]:
        every = str(CpuSet(c.id for c in self.topology.cpus))
        cpus = KnobReading(Knob(Kind.CPUS, target), every, allowed=every, effective=every)
        quota = replace(samples.quota_knob(target), nested=False)
        return (quota, replace(samples.weight_knob(target), has_idle=True), cpus)

    def _begin(self, actor: Actor) -> None:
        self.write(Kind.CPU_QUOTA, path(actor), actor.quota)
        self.write(Kind.CPU_WEIGHT, path(actor), actor.weight)
        if actor.cpus:
            self.write(Kind.CPUS, path(actor), actor.cpus)

    def _snapshot(self, present: list[_Life]) -> Snapshot:
        at = 1000.0 + self.seq
        seen = samples.snapshot(self.seq, at, pods=(), cores=len(self.topology.cpus))
        rows = tuple(
            CpuTimes(cpu, _us(used), 0, 0, _us(self.seq - used - stolen), 0, 0, 0, _us(stolen))
            for cpu, (used, stolen) in sorted(self.cpu_us.items())
        )
        return replace(
            seen,
            topology=self.topology,
            node=replace(seen.node, cpus=rows),
            pods=tuple(self._pod(life, at) for life in present),
            tiers=(samples.TIER,),
            knobs=tuple(self.kernel.knobs.values()),
        )

    def _pod(self, life: _Life, at: float) -> Pod:
        actor = life.actor
        cgroup = path(actor)
        spec = PodSpec(
            uid=cgroup,
            name=actor.name,
            cgroup=cgroup,
            inode=life.inode,
            qos=actor.qos,
            source="exec",
            tier=samples.TIER if actor.qos is Qos.BATCH else None,
            cpu_request_cores=actor.request_cores,
        )
        reading = replace(
            samples.reading(life.inode, at, age_s=at),
            cpu_us=_us(life.used),
            periods=life.periods,
            throttled_periods=life.throttled_periods,
            throttled_us=_us(life.throttled),
            cpu_stall=Stall(_us(life.wait), None) if self.psi else None,
            run_delay_us=None if self.psi else _us(life.run_delay),
        )
        symptoms = Symptoms(
            at=at,
            run_delay_us=_us(life.run_delay),
            run_us=_us(life.used),
            devices=(DeviceUse(actor.device, int(life.io), int(life.io / 4096)),) if actor.io_bytes else (),
            rdt=Rdt(bandwidth_bytes=int(life.bytes)) if actor.traffic else None,
        )
        blind = () if self.psi else ("cpu_stall",)
        return Pod(spec, reading, (), blind, symptoms, _told(life, at))


def path(actor: Actor) -> str:
    """Its cgroup, which is its uid, too."""
    return f"{samples.TIER}/{actor.name}" if actor.qos is Qos.BATCH else f"nodeagent/{actor.qos}/{actor.name}"


def _us(seconds: float) -> int:
    return round(seconds * 1e6)


def _label(life: _Life) -> Label:
    told = life.second
    names = ("contention", "own_load", "throttled", "stolen", "inflation")
    return Label(*(told.get(name, 0.0) for name in names))


def _told(life: _Life, at: float) -> AppReading | None:
    if not life.actor.requests_per_core:
        return None
    late = life.second.get("latency", 0.0)
    return AppReading(
        source="grpc",
        at=at,
        requests=int(life.requests),
        window_s=1.0,
        window_requests=int(life.second.get("requests", 0.0)),
        latency_s=((0.5, late / 2), (0.99, late)),
        slo=life.actor.slo,
    )
