"""What one tick tells the course: verdicts, values, who is here, and what may be done."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from nodeagent.core import directives
from nodeagent.core.interference.measures import Measures
from nodeagent.core.rates import PodRates, View
from nodeagent.model.interference import Alarm, State, Verdict
from nodeagent.model.interference_policy import InterferencePolicy
from nodeagent.model.plan import Kind, Knob, KnobReading, numeric
from nodeagent.model.pod import PodSpec
from nodeagent.model.policy import Policy
from nodeagent.model.settings import Actuator, Mode
from nodeagent.model.symptom import Sign

_NOTHING: Mapping[Sign, float] = {}


class Facts(Struct, frozen=True, gc=False):
    """`measures` are those of the online pods, by uid; `pods` all pods, by uid.

    `idle_because` is why nobody may be restrained now, empty while somebody may.
    """

    view: View
    policy: Policy
    knobs: Mapping[Knob, KnobReading]
    scope: frozenset[str]
    cpus_of: Mapping[str, frozenset[int]]
    verdicts: Mapping[str, Verdict]
    measures: Mapping[str, Measures]
    pods: Mapping[str, PodRates]
    idle_because: str
    limit_cores: float | None

    @property
    def at(self) -> float:
        return self.view.snapshot.at

    @property
    def unix(self) -> float:
        return self.view.snapshot.unix

    @property
    def rules(self) -> InterferencePolicy:
        return self.policy.interference

    def state(self, uid: str) -> State:
        """Of one pod; a pod without a verdict is not known to be well."""
        verdict = self.verdicts.get(uid)
        return State.UNKNOWN if verdict is None else verdict.state

    def values(self, uid: str) -> Mapping[Sign, float]:
        """The signs of an online pod that are known in this tick."""
        found = self.measures.get(uid)
        return _NOTHING if found is None else found.values

    def spec(self, uid: str, inode: int) -> PodSpec | None:
        """The pod if it is still here, and still the same one."""
        found = self.pods.get(uid)
        return found.pod.spec if found is not None and found.pod.spec.inode == inode else None

    def why_not(self, spec: PodSpec) -> str:
        """Why this pod is never restrained, "" where it may be."""
        if spec.online:
            return f"{spec.name} is online work"
        if spec.hands_off or spec.cgroup not in self.scope:
            return f"{spec.name} is outside of what may be written (scope)"
        return ""


def facts(
    view: View,
    knobs: Mapping[Knob, KnobReading],
    scope: frozenset[str],
    policy: Policy,
    verdicts: tuple[Verdict, ...],
    measures: Mapping[str, Measures],
    cpus_of: Mapping[str, frozenset[int]],
) -> Facts:
    """All of it for one tick."""
    return Facts(
        view,
        policy,
        knobs,
        scope,
        cpus_of,
        {v.uid: v for v in verdicts},
        measures,
        {p.pod.spec.uid: p for p in view.pods},
        _idle_because(view, policy.interference),
        _limit(view, knobs),
    )


def main_alarm(verdict: Verdict) -> Alarm | None:
    """The alarm that stands for the others: of the diagnosed channel the one that has lasted hardest."""
    best = [a for a in verdict.alarms if a.channel is verdict.channel] or list(verdict.alarms)
    return max(best, key=lambda a: (a.cusum, a.z), default=None)


def _idle_because(view: View, policy: InterferencePolicy) -> str:
    snapshot = view.snapshot
    if not policy.act:
        return "interference.act is false: named only"
    if policy.top_rung == 0:
        return "interference.top_rung is 0: named only"
    if directives.mode(directives.orders(snapshot), snapshot.mode) is Mode.OBSERVE:
        return "the agent observes: it writes nothing, so that nothing can be tried"
    if snapshot.enforce is not None and Actuator.CPU not in snapshot.enforce:
        return "agent.enforce is without cpu, so that nothing can be tried"
    return ""


def _limit(view: View, knobs: Mapping[Knob, KnobReading]) -> float | None:
    """What all tiers together may use now, in cores; None where that is not told."""
    found = [knobs.get(Knob(Kind.CPU_QUOTA, tier)) for tier in view.snapshot.tiers]
    quotas = [numeric(reading.actual) for reading in found if reading is not None]
    return sum(quotas) if quotas else None
