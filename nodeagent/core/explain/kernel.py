"""What became of a setting: what was written in this tick, what was read back, or why nothing was written."""

from __future__ import annotations

from msgspec.structs import replace

from nodeagent.core.explain.ground import Ground
from nodeagent.core.explain.law import Unit, amount, figure
from nodeagent.model.decision import Drift
from nodeagent.model.explanation import Input, Reason
from nodeagent.model.plan import Kind, Knob, Outcome, Value, shown
from nodeagent.model.policy import OnDrift

CORES = frozenset({Kind.CPU_QUOTA, Kind.CPU_BURST})


def told(kind: Kind, value: Value) -> str:
    """A value with its unit."""
    if isinstance(value, str):
        return f"{'CPUs' if kind is Kind.CPUS else 'NUMA nodes'} {shown(value)}"
    if kind in CORES:
        return amount(value, Unit.CORES)
    if kind in (Kind.CPU_WEIGHT, Kind.IO_WEIGHT):
        return figure(value) if value else "idle (SCHED_IDLE)"
    if kind is Kind.MIGRATE:
        return "on" if value else "off"
    return shown(value, kind)


def with_effect(ground: Ground, knob: Knob, reason: Reason) -> Reason:
    """The reason, and what the kernel has of it after this tick."""
    found = ground.readings.get(knob)
    if found is not None and any(c.knob == knob and c.new != c.old for c in ground.tick.changes):
        before = Input("before", told(knob.kind, found.actual), "what the kernel had when the tick began")
        reason = replace(reason, inputs=(*reason.inputs, before))
    drift = next((d for d in ground.tick.decision.drifts if d.knob == knob), None)
    if drift is not None and knob in ground.tick.decision.yielded:
        left = told(knob.kind, drift.found)
        return replace(reason, read_back=left, why=_joined(reason.why, _yielded(ground, drift)))
    outcome = next((o for o in reversed(ground.tick.outcomes) if o.change.knob == knob), None)
    if outcome is not None:
        return _written(reason, outcome)
    planned = next((c for c in reversed(ground.tick.changes) if c.knob == knob), None)
    if planned is not None and planned.new != planned.old:
        why = (
            f"nothing is written: planned only ({told(knob.kind, planned.new)}), the agent does not write it"
        )
        reason = replace(reason, why=_joined(reason.why, why))
    return reason if found is None else replace(reason, read_back=told(knob.kind, found.actual))


def _written(reason: Reason, outcome: Outcome) -> Reason:
    change = outcome.change
    kind, new = change.knob.kind, told(change.knob.kind, change.new)
    back = "" if outcome.found is None else told(kind, outcome.found)
    if not outcome.ok:
        why = f"the write of {new} failed: {outcome.error}"
        return replace(reason, why=_joined(reason.why, why), read_back=back)
    if change.new == change.old:
        return replace(reason, read_back=back or new)
    return replace(reason, written=new, read_back=back)


def _yielded(ground: Ground, drift: Drift) -> str:
    policy, now = ground.policy.drift, ground.tick.snapshot.at
    times = "once" if drift.count == 1 else f"{drift.count} times"
    told_of = f"nothing is written: somebody else wrote {told(drift.knob.kind, drift.found)}, {times} by now"
    if policy.on_drift is OnDrift.YIELD:
        return f'{told_of}, and drift.on_drift = "yield"'
    return f"{told_of}; ours again in {max(0.0, drift.quiet_until - now):.0f} s (drift.backoff_s, doubling)"


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
