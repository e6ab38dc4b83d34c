"""What explanations are made of: the tick, what it was decided with, and what it came to before the plan."""

from __future__ import annotations

from msgspec import Struct

from nodeagent.core import capacity
from nodeagent.core.decide import Thought
from nodeagent.core.explain.law import Given, Unit
from nodeagent.model.decision import Memory, Tick
from nodeagent.model.plan import Knob, KnobReading, Setting
from nodeagent.model.policy import Policy

DAMPED = "min(computed, last_offered + raise_ratio_per_s * elapsed_s * total)"


class Ground(Struct, frozen=True, gc=False):
    """`thought` is think() of the tick's snapshot, `policy` and `before`."""

    tick: Tick
    policy: Policy
    before: Memory
    thought: Thought

    @property
    def grown_s(self) -> float:
        """The time for which the offer may have grown in this tick."""
        view, use = self.thought.sight.view, self.thought.use
        return capacity.growth_s(view, use, self.thought.formula, self.before.offer)

    @property
    def plan(self) -> dict[Knob, Setting]:
        return {s.knob: s for s in self.tick.decision.plan}

    @property
    def readings(self) -> dict[Knob, KnobReading]:
        """As found in this tick, before anything was written."""
        return {r.knob: r for r in self.tick.snapshot.knobs}


def damping(ground: Ground, computed: Given, last: float, total: Given) -> tuple[Given, ...]:
    """The numbers of DAMPED: what is offered falls at once and rises slowly."""
    rate, source = ground.thought.formula.raise_ratio_per_s, "policy: capacity.raise_ratio_per_s"
    if rate != ground.policy.capacity.raise_ratio_per_s:
        source = "without a slow way up: a directive to lend"
    return (
        computed,
        Given("last_offered", last, "offered in the tick before", computed.unit),
        Given("raise_ratio_per_s", rate, source),
        Given("elapsed_s", ground.grown_s, "time since the tick before that counts", Unit.SECONDS, fine=True),
        total,
    )
