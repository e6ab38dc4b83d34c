"""The lenders side by side on one trace: a table, or JSON, and the targets."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from nodeagent.model.errors import AgentError
from nodeagent.model.policy import Policy
from nodeagent.simulate import table
from nodeagent.simulate.account import Account
from nodeagent.simulate.answer import Simulated
from nodeagent.simulate.fluid import Lender
from nodeagent.simulate.ours import Ours
from nodeagent.simulate.play import Shape, moments
from nodeagent.simulate.trace import Trace
from tests.bench.table import Figure, show
from tests.bench.tide.generated import DAY_S, Tide, rows, trace
from tests.bench.tide.katalyst import Katalyst
from tests.bench.tide.koordlet import Koordinator
from tests.bench.tide.volcano import Volcano

GIB = 1 << 30
TOLD_STEPS = 5000
LENT_RATIO = 1.2  # of koordlet's
Days = Mapping[str, Simulated]


class Row(NamedTuple):
    """One line of the table."""

    name: str
    value: Callable[[Simulated], float]
    form: str = ",.1f"


ROWS = (
    Row("lent, core-hours", lambda s: s.lent_core_hours),
    Row("  of what online left idle, %", lambda s: 100 * s.lent_ratio),
    Row("node used, %", lambda s: 100 * s.used_ratio),
    Row("offered, core-hours", lambda s: s.offered_core_hours),
    Row("  changed, times", lambda s: s.offer_changes, ",.0f"),
    Row("  went down, times", lambda s: s.offer_falls, ",.0f"),
    Row("over 95 % of the node, s", lambda s: s.over_ceiling_s, ",.0f"),
    Row("  core-hours", lambda s: s.over_ceiling_core_hours, ".3f"),
    Row("online starved, s", lambda s: s.starved_s, ",.0f"),
    Row("  core-hours", lambda s: s.starved_core_hours, ".4f"),
    Row("Batch tasks", lambda s: s.tasks, ",.0f"),
    Row("promise withdrawn in use, times", lambda s: s.withdrawn_times, ",.0f"),
    Row("  core-hours", lambda s: s.withdrawn_core_hours, ".2f"),
    Row("  tasks hit", lambda s: s.withdrawn_tasks, ",.0f"),
    Row("  % of tasks", lambda s: 100 * s.withdrawn_tasks / max(1, s.tasks)),
    Row("squeezed below the promise, core-hours", lambda s: s.squeezed_core_hours, ".2f"),
)


def run(words: list[str]) -> int:
    """Parse, play, print; 1 if a target was missed, 2 for a wrong trace."""
    asked = _parsed(words)
    tide = Tide(cores=asked.cores, hours=asked.hours * asked.days, seed=asked.seed)
    try:
        told = trace(tide) if asked.trace is None else table.read(asked.trace)
        if asked.write is not None:
            Path(asked.write).write_text("".join(f"{row}\n" for row in rows(told)))
            return 0
        found = {
            name: _days(told, lender, name, asked) for name, lender in _lenders(told, asked.cores).items()
        }
    except (AgentError, OSError) as error:
        print(f"tide: {error}", file=sys.stderr)
        return 2
    if asked.json:
        print(json.dumps(msgspec.to_builtins({"notes": told.notes, "lenders": found}), indent=1))
        return 0
    for note in told.notes:
        print(note)
    held = [_table(day, {name: days[day] for name, days in found.items()}) for day in found["nodeagent"]]
    return 0 if all(held) else 1


def _parsed(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench tide",
        description="One day of online CPU use, lent by nodeagent and by its peers' published formulas.",
        epilog="Without --trace it is SYNTHETIC: a tide with noise and flash crowds. The first day begins cold, "
        "the second with what was learned in the first.",
    )
    parser.add_argument("--cores", type=int, default=32, help="of the node (32)")
    parser.add_argument("--hours", type=float, default=24.0, help="of a day (24)")
    parser.add_argument("--days", type=int, default=2, help="days one after the other (2)")
    parser.add_argument("--step", type=float, default=1.0, help="seconds from tick to tick (1)")
    parser.add_argument("--seed", type=int, default=7, help="of the tide (7)")
    parser.add_argument("--trace", help="CSV as for nodeagent simulate, instead of the SYNTHETIC tide")
    parser.add_argument("--write", metavar="FILE", help="only write the trace, for nodeagent simulate FILE")
    parser.add_argument("--json", action="store_true", help="all figures as JSON")
    return parser.parse_args(words)


def _lenders(told: Trace, cores: int) -> dict[str, Lender]:
    names = [pod.name for pod in told.pods]
    ours = Ours(Policy(), cores, 4 * GIB * cores, names)
    peers = (Koordinator(cores), Katalyst(cores, util=False), Katalyst(cores, util=True), Volcano(cores))
    return {"nodeagent": ours, **{peer.name: peer for peer in peers}}


def _days(told: Trace, lender: Lender, name: str, asked: argparse.Namespace) -> dict[str, Simulated]:
    """Each day's totals, by its name."""
    shape = Shape(asked.cores, Policy().capacity.cpu_ceiling_ratio, asked.step)
    day_s = min(asked.hours * 3600, DAY_S * 365)
    accounts: dict[str, Account] = {}
    for n in range(asked.days):
        since = told.begin_s + n * day_s
        if since < told.end_s - asked.step:
            title = f"day {n + 1}" + (", cold start" if n == 0 else "")
            accounts[title] = Account(
                asked.cores, shape.ceiling_ratio, shape.task_cores, since, since + day_s
            )
    for number, moment in enumerate(moments(told, shape, lender), 1):
        for account in accounts.values():
            account.add(*moment)
        if number % TOLD_STEPS == 0 and sys.stderr.isatty():
            print(f"\r{name}: {number} steps ", end="", file=sys.stderr)
    return {title: account.answer() for title, account in accounts.items()}


def _table(title: str, found: Days) -> bool:
    """Print one day; True when the targets were held."""
    whole = found["nodeagent"]
    used = f"{whole.online_core_hours:,.0f} of {whole.cores * whole.hours:,.0f} core-hours"
    print(
        f"\n{title}: {whole.hours:.1f} h, {whole.cores} cores, online used {used}; steps of {whole.step_s:g} s"
    )
    print(f"  {'':<40}" + "".join(f"{name:>15}" for name in found))
    for row in ROWS:
        print(f"  {row.name:<40}" + "".join(f"{format(row.value(s), row.form):>15}" for s in found.values()))
    return show(f"{title}, targets", _figures(found))


def _figures(found: Days) -> list[Figure]:
    ours, koordlet = found["nodeagent"], found["koordlet"]
    lent = ours.lent_core_hours / max(koordlet.lent_core_hours, 1e-9)
    hit = {name: s.withdrawn_tasks / max(1, s.tasks) for name, s in found.items()}
    return [
        Figure("lent, nodeagent / koordlet", lent, "ratio", least=LENT_RATIO),
        Figure(
            "tasks hit by withdrawal, nodeagent - least of peers",
            hit["nodeagent"] - _least(hit),
            "ratio",
            most=0.0,
        ),
        Figure(
            "online starved, nodeagent", ours.starved_core_hours / ours.online_core_hours, "ratio", most=0.001
        ),
    ]


def _least(ratios: Mapping[str, float]) -> float:
    return min(ratio for name, ratio in ratios.items() if name != "nodeagent")
