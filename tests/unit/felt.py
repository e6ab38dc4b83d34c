"""Online pods whose counters go on from tick to tick, and a detector that watches them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from msgspec.structs import replace

from nodeagent.core import rates
from nodeagent.core.interference.judge import judge
from nodeagent.core.interference.measures import Measures, measured
from nodeagent.model.interference import Verdict
from nodeagent.model.pod import PodSpec, Qos
from nodeagent.model.policy import Policy
from nodeagent.model.senses import Senses
from nodeagent.model.snapshot import CpuTimes, Pod, Reading, Snapshot, Stall
from nodeagent.model.symptom import AppReading, Slo, Symptoms
from tests.unit import samples

WEB = "nodeagent/ls/web"
POLICY = Policy()


@dataclass
class Life:
    """What one pod does in the next tick (shares and cores), and its counters."""

    name: str = "web"
    qos: Qos = Qos.LS
    request_cores: float | None = 1.0
    cores: float = 0.5
    stall: float | None = 0.01  # None: its pressure is not read in this tick
    full: float = 0.0
    memory_stall: float = 0.0
    throttled: float = 0.0  # of its periods
    unsupported: tuple[str, ...] = ()
    run_delay: float = 0.0  # cores
    latency_s: float | None = None
    slo: Slo | None = None
    inode: int = 1
    counters: dict[str, float] = field(default_factory=dict)

    @property
    def uid(self) -> str:
        return f"nodeagent/{self.qos.value}/{self.name}"

    def tick(self, at: float, dt_s: float) -> Pod:
        grown = {
            "cpu": self.cores, "stall": self.stall or 0.0, "full": self.full, "memory": self.memory_stall,
            "periods": 10.0, "throttled": 10.0 * self.throttled, "delay": self.run_delay,
        }  # fmt: skip
        for name, share in grown.items():
            self.counters[name] = self.counters.get(name, 0.0) + share * dt_s
        c = {name: round(value * 1e6) for name, value in self.counters.items()}
        psi = self.stall is not None and "cpu_stall" not in self.unsupported
        reading = Reading(
            cpu_us=c["cpu"],
            periods=int(self.counters["periods"] + 1e-6),
            throttled_periods=int(self.counters["throttled"] + 1e-6),
            throttled_us=c["throttled"] // 100,
            cpu_stall=Stall(c["stall"], c["full"]) if psi else None,
            slow_at=at,
            memory_stall=Stall(c["memory"], c["memory"]),
            io_stall=Stall(0, 0),
        )
        spec = PodSpec(
            uid=self.uid, name=self.name, cgroup=self.uid, inode=self.inode, qos=self.qos, source="exec",
            cpu_request_cores=self.request_cores,
        )  # fmt: skip
        symptoms = Symptoms(at, c["delay"], c["cpu"])
        return Pod(spec, reading, (), self.unsupported, symptoms, self._told(at))

    def _told(self, at: float) -> AppReading | None:
        if self.latency_s is None:
            return None
        quantile = 0.99 if self.slo is None else self.slo.quantile
        return AppReading("grpc", at, 15.0, None, 1.0, 1000, ((quantile, self.latency_s),), self.slo)


class Watched:
    """A node of `lives` under the detector: `tick()` is one tick."""

    def __init__(self, *lives: Life, policy: Policy = POLICY, senses: Senses | None = None) -> None:
        self.lives = list(lives)
        self.policy, self.senses = policy, Senses() if senses is None else senses
        self.at, self.seq, self.steal = 1000.0, 0, 0.0
        self.stolen = 0.0
        self.previous: Snapshot | None = None
        self.measures: dict[str, Measures] = {}

    def tick(self, dt_s: float = 1.0, frozen: Iterable[str] = ()) -> dict[str, Verdict]:
        """One tick, `dt_s` after the last; the verdicts by uid."""
        self.at, self.seq = self.at + dt_s, self.seq + 1
        self.stolen += self.steal * dt_s
        seen = samples.snapshot(
            self.seq, self.at, pods=tuple(x.tick(self.at, dt_s) for x in self.lives), cores=4
        )
        busy = sum(x.counters["cpu"] for x in self.lives) / 4
        us = [round(t * 1e6) for t in (busy, self.at - busy - self.stolen, self.stolen)]
        rows = tuple(CpuTimes(n, us[0], 0, 0, us[1], 0, 0, 0, us[2]) for n in range(4))
        return self.see(replace(seen, node=replace(seen.node, cpus=rows)), frozenset(frozen))

    def see(self, snapshot: Snapshot, frozen: Set[str] = frozenset()) -> dict[str, Verdict]:
        """Judge one snapshot."""
        view = rates.view(snapshot, self.previous)
        self.previous = snapshot
        self.measures = measured(view, {}, self.senses)
        verdicts, self.senses = judge(view, self.measures, self.policy, self.senses, frozen)
        return {verdict.uid: verdict for verdict in verdicts}

    def ticks(self, count: int, dt_s: float = 1.0, frozen: Iterable[str] = ()) -> dict[str, Verdict]:
        """`count` ticks; the last verdicts."""
        last: Mapping[str, Verdict] = {}
        for _ in range(count):
            last = self.tick(dt_s, frozen)
        return dict(last)

    def until_open(self, uid: str, most: int = 60) -> int | None:
        """Ticks until the pod's verdict is more than calm; None when it stays so."""
        for n in range(1, most + 1):
            if self.tick()[uid].alarms and any(f.opened for f in self.senses.pods[uid].feelings.values()):
                return n
        return None
