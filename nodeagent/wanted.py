"""Which knobs are read in a tick: what may be set now, and no more, for each costs a read.

Invariant: a knob that a restraint or a burst may set is read before it is set.
"""

from __future__ import annotations

from collections.abc import Collection

from nodeagent.kernel.knobs import Knobs
from nodeagent.kernel.targets import limited
from nodeagent.model.glob import any_glob_regex
from nodeagent.model.interference import Restraint
from nodeagent.model.plan import Kind, Knob, KnobReading
from nodeagent.model.pod import Member, Qos
from nodeagent.model.policy import Policy
from nodeagent.model.settings import Actuator, actuator_of
from nodeagent.model.snapshot import Pod


class WantedKnobs:
    """Of the pods that `follow` was told last. `restraints` are those of the last decision."""

    def __init__(self, knobs: Knobs, acting: Collection[Actuator]) -> None:
        self.restraints: tuple[Restraint, ...] = ()
        self._knobs = knobs
        self._acting = acting
        self._members: tuple[Member, ...] = ()
        self._tiers: tuple[str, ...] = ()
        self._targets: tuple[Knob, ...] = ()
        self._may_burst: dict[str, Member] = {}
        self._limited: dict[str, frozenset[str]] = {}
        self._burst_targets: tuple[Knob, ...] = ()
        self._holding_up: tuple[Knob, ...] = ()

    def follow(
        self,
        members: tuple[Member, ...],
        tiers: tuple[str, ...],
        homes: tuple[str, ...],
        policy: Policy,
        *,
        classes: bool,
    ) -> None:
        """`homes` are the agent's own directories; `classes`: also network classes."""
        self._members, self._tiers = members, tiers
        self._targets = (
            *self._knobs.targets_for(members, tiers, homes, sets=policy.numa.placement),
            *self._online(members, homes, policy),
            *(self._knobs.classes_for(members, tiers) if classes else ()),
        )

    def now(self, pods: tuple[Pod, ...]) -> tuple[Knob, ...]:
        """Those for these readings of the pods, without what restraints want."""
        return (*self._targets, *self._bursts(pods), *self._holding_up)

    def found(self, knobs: tuple[KnobReading, ...]) -> None:
        """What somebody has set for Batch to burst: the kernel refuses a quota below it, so it has to go."""
        found = [r.knob.target for r in knobs if r.knob.kind is Kind.CPU_QUOTA and r.burst > 0.0]
        batch = (
            {m.spec.cgroup for m in self._members if not m.spec.online}.union(self._tiers) if found else ()
        )
        self._holding_up = tuple(Knob(Kind.CPU_BURST, target) for target in found if target in batch)

    def restrained(self, pods: tuple[Pod, ...]) -> tuple[Knob, ...]:
        """What restraints may set, which nobody else wants to know; without one it costs nothing."""
        if not self.restraints:
            return ()
        here = {pod.spec.uid for pod in pods}
        members = {m.spec.cgroup: m for m in self._members if m.spec.uid in here}
        held = [(members[r.cgroup], r) for r in self.restraints if r.cgroup in members]
        wanted = self._knobs.restrained_for(held)
        return tuple(knob for knob in wanted if actuator_of(knob.kind) in self._acting)

    def _online(
        self, members: tuple[Member, ...], homes: tuple[str, ...], policy: Policy
    ) -> tuple[Knob, ...]:
        """Weights of online pods that may be written; notes which of them may burst."""
        scope = any_glob_regex(policy.scope)
        online = [m for m in members if m.spec.online and scope.fullmatch(m.spec.cgroup)]
        wanted = policy.burst.kernel_ratio > 0.0 or policy.burst.max_ratio > 1.0
        self._may_burst = {m.spec.cgroup: m for m in online if wanted and m.spec.qos is Qos.LS}
        self._limited, self._burst_targets = {}, ()
        return self._knobs.weights_for(online, homes, policy.weight)

    def _bursts(self, pods: tuple[Pod, ...]) -> tuple[Knob, ...]:
        """Quota and burst of those that may burst and have a quota, which costs the others nothing."""
        found = {
            pod.spec.cgroup: cgroups
            for pod in pods
            if pod.spec.cgroup in self._may_burst and (cgroups := limited(pod))
        }
        if found != self._limited:
            self._limited = found
            self._burst_targets = self._knobs.bursts_for(
                (self._may_burst[c], paths) for c, paths in found.items()
            )
        return self._burst_targets
