"""A simulation's answer for eyes and for programs."""

from __future__ import annotations

from typing import cast

import msgspec

from nodeagent.report.text import printable
from nodeagent.simulate.answer import Simulated

SHOWN = 5  # notes of the trace
MODEL = (
    "a model: CPUs are shared max-min fairly within each step; waiting (PSI) is what a pod wanted and did",
    "not get; Batch always takes all that it is let; ticks that come early are not modelled.",
    "Trust the comparison of two policies more than the size.",
)


def as_dict(found: Simulated) -> dict[str, object]:
    """Plain values for JSON, with the `model` that limits what they prove."""
    return {**cast("dict[str, object]", msgspec.to_builtins(found)), "model": " ".join(MODEL)}


def as_json(found: Simulated) -> str:
    """`as_dict` as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(as_dict(found))).decode()


def as_text(found: Simulated) -> str:
    """The same in lines, without a newline at the end."""
    lines = [f"trace      {printable(note)}" for note in found.notes[:SHOWN]]
    return "\n".join([*lines, *_whole(found), *_lent(found), *_harm(found), *_promises(found), "", *MODEL])


def _whole(f: Simulated) -> list[str]:
    unknown = f"; not known for {_time(f.unknown_hours * 3600)}, which counts as nothing" * (
        f.unknown_hours > 0
    )
    return [
        f"time       {f.hours:.2f} h in {f.steps:,} steps of {f.step_s:g} s{unknown}",
        f"node       {f.cores} cores, of which {f.ceiling_cores:g} may be in use in all",
        f"online     {_core_hours(f.online_core_hours)}"
        + (f"; wanted more than the node has for {_time(f.saturated_s)}" if f.saturated_s else ""),
        f"idle       {_core_hours(f.idle_core_hours)}",
    ]


def _lent(f: Simulated) -> list[str]:
    ratios = f"{f.lent_ratio:.1%} of what was idle; node used {f.used_ratio:.1%}"
    changes = f"changed {_times(f.offer_changes)}, went down {_times(f.offer_falls)}"
    return [
        f"lent       {_core_hours(f.lent_core_hours)}: {ratios}",
        f"offered    {_core_hours(f.offered_core_hours)}; {changes}",
    ]


def _harm(f: Simulated) -> list[str]:
    over, starved = _core_hours(f.over_ceiling_core_hours), _core_hours(f.starved_core_hours)
    return [
        f"ceiling    exceeded with Batch's part for {_time(f.over_ceiling_s)}: {over}",
        f"starved    online work got less than without Batch for {_time(f.starved_s)}: {starved}",
    ]


def _promises(f: Simulated) -> list[str]:
    withdrawn = f"{_times(f.withdrawn_times)}, {_core_hours(f.withdrawn_core_hours)}"
    return [
        f"promised   {f.tasks:,} Batch tasks, {f.task_cores:g} cores each",
        f"withdrawn  while in use: {withdrawn}, {f.withdrawn_tasks:,} tasks hit",
        f"squeezed   Batch got less than it was promised: {_core_hours(f.squeezed_core_hours)}",
        f"broken     promised, and withdrawn in use or not delivered: {_core_hours(f.broken_core_hours)}",
    ]


def _core_hours(value: float) -> str:
    return f"{value:,.2f} core-hours" if value >= 0.005 or value == 0.0 else f"{value:.1e} core-hours"


def _times(count: int) -> str:
    return f"{count:,} time" + ("" if count == 1 else "s")


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h" if seconds >= 3600 else f"{seconds:g} s"
