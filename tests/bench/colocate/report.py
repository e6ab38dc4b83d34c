"""The figures of an experiment, with their intervals and targets: as a table, as JSON, and for the plot."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from tests.bench.colocate import figures
from tests.bench.colocate.figures import Measured, Repeats
from tests.bench.colocate.runs import (
    ALONE,
    BATCH_ALONE,
    BY_QUOTA,
    EQUAL,
    IDLE,
    KOORDLET,
    NODEAGENT,
    STATIC,
    VARIANTS,
    Experiment,
    Machine,
    Moment,
    Run,
)
from tests.bench.colocate.tide import SURGE_S

P99_MOST, WORK_LEAST, UTILISATION_LEAST, OVER_KOORDLET_LEAST = 1.10, 0.90, 0.95, 1.2
TOGETHER = (EQUAL, STATIC, IDLE, KOORDLET, BY_QUOTA, NODEAGENT)
OURS = (BY_QUOTA, NODEAGENT)
IN_SHORT = (
    " p50,",
    " p99,",
    " p99.9,",
    "idle CPU",
    "lent",
    "utilisation",
    "EMU",
    "use falling",
    "controller",
)


class Target(Struct, frozen=True):
    """A figure that shall be at most or at least so much."""

    name: str
    value: Measured
    most: float | None = None
    least: float | None = None

    @property
    def held(self) -> bool | None:
        """None without a target or without a figure."""
        value = self.value.value
        if value is None or (self.most is None and self.least is None):
            return None if self.value.repeats == 0 or (self.most is None and self.least is None) else False
        return (self.most is None or value <= self.most) and (self.least is None or value >= self.least)


class Evaluated(Struct, frozen=True, kw_only=True):
    """All that is shown. `rows` are figures by variant; `lines` are of each variant's first valid run."""

    machine: Machine
    rounds: int
    window_s: float
    surge_s: float
    surge_at_s: tuple[float, ...]
    services: tuple[str, ...]
    rows: dict[str, dict[str, Measured]]
    targets: tuple[Target, ...]
    lines: dict[str, tuple[Moment, ...]]
    rejected: tuple[str, ...]
    absent: tuple[str, ...]
    agent: dict[str, str]


def evaluate(experiment: Experiment, *, rejected_too: bool = False) -> Evaluated:
    """Every figure, of the valid runs; with `rejected_too` of all."""
    repeats = Repeats(experiment.runs, rejected_too=rejected_too)
    services = tuple(experiment.crest_per_s)
    shown = {name: next((r for n in repeats.rounds if (r := repeats.of(name, n))), None) for name in VARIANTS}
    return Evaluated(
        machine=experiment.machine,
        rounds=max((run.round for run in experiment.runs), default=-1) + 1,
        window_s=experiment.shape.window_s,
        surge_s=SURGE_S,
        surge_at_s=tuple(at - experiment.shape.warm_s for at in experiment.shape.surges_at_s),
        services=services,
        rows=dict(_rows(repeats, services, _jobs(experiment.runs))),
        targets=tuple(_targets(repeats, services)),
        lines={name: run.line for name, run in shown.items() if run is not None},
        rejected=tuple(
            f"{r.variant}, round {r.round}: {'; '.join(r.rejected)}" for r in experiment.runs if r.rejected
        ),
        absent=experiment.absent,
        agent=experiment.agent,
    )


def p99_of(service: str) -> Callable[[Run], float | None]:
    """That figure of a run."""
    return lambda run: run.online[service].p99_ms if service in run.online else None


def _targets(repeats: Repeats, services: Sequence[str]) -> Iterator[Target]:
    for service in services:
        for variant in TOGETHER:
            ratio = repeats.ratio(variant, ALONE, p99_of(service))
            yield Target(f"{service} p99: {variant} / alone", ratio, P99_MOST if variant in OURS else None)
    for variant in TOGETHER:
        least = (WORK_LEAST, UTILISATION_LEAST) if variant == NODEAGENT else (None, None)
        work = repeats.work(
            variant, lambda run, alone: figures.work_core_s(run, alone) / figures.left_core_s(run)
        )
        yield Target(f"Batch work / idle CPU left: {variant}", work, least=least[0])
        yield Target(
            f"node utilisation: {variant}", repeats.each(variant, figures.utilisation_ratio), least=least[1]
        )
    for variant in (STATIC, *OURS):
        least_work = OVER_KOORDLET_LEAST if variant in OURS else None
        yield Target(f"Batch work: {variant} / koordlet", _over_koordlet(repeats, variant), least=least_work)
    for service in services:
        for variant in OURS:
            ratio = repeats.ratio(variant, KOORDLET, p99_of(service))
            yield Target(f"{service} p99: {variant} / koordlet", ratio, 1.0)


def _over_koordlet(repeats: Repeats, variant: str) -> Measured:
    def work(run: Run) -> float | None:
        alone = repeats.solo(BATCH_ALONE, run.round)
        return None if alone is None else figures.work_core_s(run, alone) / run.seconds

    return repeats.ratio(variant, KOORDLET, work)


def _rows(
    repeats: Repeats, services: Sequence[str], jobs: dict[str, str]
) -> Iterator[tuple[str, dict[str, Measured]]]:
    def row(
        name: str, value: Callable[[Run], float | None], *without: str
    ) -> tuple[str, dict[str, Measured]]:
        return name, {v: repeats.each(v, value) for v in VARIANTS if v not in without}

    for service in services:
        for shown, field in (("p50", "p50_ms"), ("p99", "p99_ms"), ("p99.9", "p999_ms")):
            yield row(f"{service} {shown}, ms", _felt(service, field), BATCH_ALONE)
        yield row(f"{service} answered, 1/s", _answered(service), BATCH_ALONE)
    for job, unit in jobs.items():
        yield row(f"{job}, {unit}/s", _done(job), ALONE)
    share = {
        v: repeats.work(v, lambda run, alone: figures.work_core_s(run, alone) / (run.cpus * run.seconds))
        for v in VARIANTS
        if v != ALONE
    }
    yield "Batch work / Batch alone", share
    left = {
        v: repeats.work(v, lambda r, a: figures.work_core_s(r, a) / figures.left_core_s(r)) for v in TOGETHER
    }
    yield "Batch work / idle CPU that online left", left
    yield row("lent, core-hours per hour", lambda r: figures.batch_core_s(r) / r.seconds, ALONE)
    yield row("node utilisation", figures.utilisation_ratio)
    yield "EMU", {v: repeats.emu(v) for v in VARIANTS}
    yield "surge to Batch's use falling, ms", _reacted(repeats, "used_s")
    yield "surge to Batch's quota lower, ms", _reacted(repeats, "quota_s")
    yield row(
        "cores of online pods", lambda r: sum(o.cpu_s for o in r.online.values()) / r.seconds, BATCH_ALONE
    )
    yield row("cores of their clients", lambda r: r.client_s / r.seconds, BATCH_ALONE)
    yield row(
        "cores of the controller", lambda r: r.control_s / r.seconds, ALONE, EQUAL, STATIC, IDLE, BATCH_ALONE
    )
    yield row("cores of others", lambda r: statistics.median(r.foreign) if r.foreign else None)


def _jobs(runs: Sequence[Run]) -> dict[str, str]:
    return {name: job.unit for run in runs for name, job in run.batch.items()}


def _felt(service: str, field: str) -> Callable[[Run], float | None]:
    return lambda run: getattr(run.online[service], field)


def _answered(service: str) -> Callable[[Run], float | None]:
    return lambda run: run.online[service].answered / run.seconds


def _done(job: str) -> Callable[[Run], float | None]:
    return lambda run: run.batch[job].work / run.seconds if job in run.batch else None


def _reacted(repeats: Repeats, field: str) -> dict[str, Measured]:
    """Over all surges of all runs; those without a reaction count as the slowest."""
    row = {}
    for variant in TOGETHER:
        runs = [run for n in repeats.rounds if (run := repeats.of(variant, n))]
        found = [getattr(surge, field) for run in runs for surge in run.surges]
        row[variant] = figures.measured([None if s is None else s * 1e3 for s in found])
    return row


def as_text(told: Evaluated) -> str:
    """The table."""
    m = told.machine
    where = "virtual machine" if m.virtual else "bare machine"
    what = f"{m.cpus} CPUs ({m.cpu}, {where}), {m.memory_gib:.0f} GiB, Linux {m.kernel}, cgroups {m.cgroups}"
    how = f"{told.rounds} rounds, every variant once a round, in random order; windows of {told.window_s:g} s"
    lines = [f"Co-location on {what}", f"{how}; medians [95 % bootstrap interval]"]
    lines += [f"nodeagent with {key} = {value}" for key, value in told.agent.items()]
    names = max(len(name) for name in told.rows)
    cells = {name: [_cell(row.get(variant)) for variant in VARIANTS] for name, row in told.rows.items()}
    wide = 2 + max(len(cell) for row in (VARIANTS, *cells.values()) for cell in row)
    lines += ["", f"{'':<{names}}" + "".join(f"{variant:>{wide}}" for variant in VARIANTS)]
    lines += [f"{name:<{names}}" + "".join(f"{cell:>{wide}}" for cell in row) for name, row in cells.items()]
    width = max(len(target.name) for target in told.targets)
    lines += ["", "As ratios, and what is to be reached"]
    lines += [f"  {t.name:<{width}}  {_cell(t.value):>23}   {_verdict(t)}".rstrip() for t in told.targets]
    lines += [f"not valid, left out: {why}" for why in told.rejected]
    lines += [f"not here: {what}" for what in told.absent]
    return "\n".join(lines)


def as_markdown(told: Evaluated) -> str:
    """The medians of those that are together, beside online alone; one row a figure."""
    shown = (ALONE, *TOGETHER)
    rows = [name for name in told.rows if any(part in name for part in IN_SHORT)]
    lines = ["| " + " | ".join(("", *shown)) + " |", "|---" * (len(shown) + 1) + "|"]
    for name in rows:
        cells = (told.rows[name].get(variant) for variant in shown)
        medians = ("-" if c is None or c.repeats == 0 else _number(c.value) for c in cells)
        lines.append("| " + " | ".join((name, *medians)) + " |")
    return "\n".join(lines)


def _cell(value: Measured | None) -> str:
    if value is None or value.repeats == 0:
        return "-"
    if value.repeats == 1:
        return _number(value.value)
    return f"{_number(value.value)} [{_number(value.low)} {_number(value.high)}]"


def _number(value: float | None) -> str:
    """Three digits that count; never answered, or no reaction: "never"."""
    if value is None:
        return "never"
    return f"{value:.0f}" if abs(value) >= 100.0 else f"{value:.3g}"


def _verdict(target: Target) -> str:
    if target.most is None and target.least is None:
        return ""
    wanted = f"<= {target.most:g}" if target.most is not None else f">= {target.least:g}"
    return f"target {wanted}   {'no valid run' if target.held is None else 'ok' if target.held else 'MISSED'}"
