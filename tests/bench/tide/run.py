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
from nodeagent.model.policy import CpuPolicy, Policy
from nodeagent.simulate import table
from nodeagent.simulate.account import Account
from nodeagent.simulate.answer import Simulated
from nodeagent.simulate.fluid import Lender
from nodeagent.simulate.ours import Ours
from nodeagent.simulate.play import Shape, moments
from nodeagent.simulate.trace import Trace
from tests.bench.table import Figure, show
from tests.bench.tide.generated import Tide, rows, trace
from tests.bench.tide.katalyst import Katalyst
from tests.bench.tide.koordlet import Koordinator
from tests.bench.tide.volcano import Volcano

GIB = 1 << 30
TOLD_STEPS = 5000
LENT_RATIO = 1.2  # of koordlet's
STARVED_PERCENT = 0.1
SWELL = ("low", "high", "noise", "crowds", "crowd")  # of the SYNTHETIC tide
Days = Mapping[str, Simulated]


class Row(NamedTuple):
    """One line of the table."""

    name: str
    value: Callable[[Simulated], float]
    form: str = ",.1f"


def _broken(s: Simulated) -> float:
    """Percent of what was offered that was withdrawn in use or not delivered."""
    return 100 * s.broken_core_hours / max(1e-9, s.offered_core_hours)


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
    Row("promises not kept, core-hours", lambda s: s.broken_core_hours, ".2f"),
    Row("  % of what was offered", _broken, ".2f"),
)


def run(words: list[str]) -> int:
    """Parse, play, print; 1 if a target was missed, 2 for a wrong trace."""
    asked = _parsed(words)
    swell = {name: getattr(asked, name) for name in SWELL}
    tide = Tide(cores=asked.cores, hours=asked.hours * asked.days, seed=asked.seed, **swell)
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
        description="One day of online CPU use, lent by nodeagent and by its peers' published formulas. "
        '"by quota" is nodeagent where SCHED_IDLE does not part Batch from online work.',
        epilog="Without --trace it is SYNTHETIC: a tide with noise and flash crowds. Day 1 begins cold, "
        "day 2 with what was learned in day 1.",
    )
    parser.add_argument("--cores", type=_within(int, 1, 8192), default=32, help="of the node (32)")
    parser.add_argument("--hours", type=_within(float, 0.1, 24.0), default=24.0, help="of a day (24)")
    parser.add_argument("--days", type=_within(int, 1, 31), default=2, help="days one after the other (2)")
    parser.add_argument("--step", type=_within(float, 0.1, 60.0), default=1.0, help="seconds per tick (1)")
    parser.add_argument("--seed", type=int, default=7, help="of the tide (7)")
    for name in SWELL:
        usual, what = getattr(Tide, name), "flash crowds a day" if name == "crowds" else "share of the node"
        parser.add_argument(
            f"--{name}", type=_within(float, 0.0, 1000.0), default=usual, help=f"{what} ({usual:g})"
        )
    parser.add_argument("--trace", help="CSV as for nodeagent simulate, instead of the SYNTHETIC tide")
    parser.add_argument("--write", metavar="FILE", help="only write the trace, for nodeagent simulate FILE")
    parser.add_argument("--json", action="store_true", help="all figures as JSON")
    return parser.parse_args(words)


def _within(kind: type[int] | type[float], least: float, most: float) -> Callable[[str], float]:
    """A number that argparse takes within these bounds."""

    def number(text: str) -> float:
        if not least <= (found := kind(text)) <= most:
            raise argparse.ArgumentTypeError(f"{text} is not within {least:g} and {most:g}")
        return found

    return number


def _lenders(told: Trace, cores: int) -> dict[str, Lender]:
    names = [pod.name for pod in told.pods]
    by_quota = Policy(cpu=CpuPolicy(yielding_ceiling_ratio=0.0))  # as where SCHED_IDLE does not part them
    ours = {"nodeagent": Policy(), "by quota": by_quota}
    lenders = {name: Ours(policy, cores, 4 * GIB * cores, names) for name, policy in ours.items()}
    peers = (Koordinator(cores), Katalyst(cores, util=False), Katalyst(cores, util=True), Volcano(cores))
    return {**lenders, **{peer.name: peer for peer in peers}}


def _days(told: Trace, lender: Lender, name: str, asked: argparse.Namespace) -> dict[str, Simulated]:
    """Each day's totals, by its name."""
    shape = Shape(asked.cores, Policy().capacity.cpu_ceiling_ratio, asked.step)
    day_s = asked.hours * 3600
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
    shape = f"{whole.hours:.1f} h, {whole.cores} cores, steps of {whole.step_s:g} s"
    print(f"\n{title}: {shape}; online used {used}")
    print(f"  {'':<40}" + "".join(f"{name:>15}" for name in found))
    for row in ROWS:
        print(f"  {row.name:<40}" + "".join(f"{format(row.value(s), row.form):>15}" for s in found.values()))
    return show(f"{title}, targets", _figures(found))


def _figures(found: Days) -> list[Figure]:
    ours, koordlet = found["nodeagent"], found["koordlet"]
    lent = ours.lent_core_hours / max(koordlet.lent_core_hours, 1e-9)
    broken = {name: _broken(s) for name, s in found.items()}
    peers = min(percent for name, percent in broken.items() if name != "nodeagent")
    starved = 100 * ours.starved_core_hours / ours.online_core_hours
    return [
        Figure("lent, nodeagent / koordlet", lent, "ratio", least=LENT_RATIO),
        Figure("promises not kept, of what was offered", broken["nodeagent"], "%", most=peers),
        Figure("online work kept from its CPU", starved, "%", most=STARVED_PERCENT),
    ]
