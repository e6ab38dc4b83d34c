"""The figures of a recorded set: ours beside the others', with their intervals, as a table and as JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from tests.bench.eval import baselines, ours, score
from tests.bench.eval.control import Compared
from tests.bench.eval.day import Day, lived
from tests.bench.eval.recording import Recording
from tests.bench.eval.score import Outcome

OURS, OURS_WITHOUT_PSI = "nodeagent", "without PSI"
FIGURES: dict[str, Callable[[Sequence[Outcome]], float]] = {
    "precision": score.precision,
    "recall": score.recall,
    "F1": score.f1,
    "false alarms / clean victim-hour": score.false_per_hour,
    "time to detect, median, s": score.delay_s(0.5),
    "time to detect, p95, s": score.delay_s(0.95),
    "attribution top-1": score.top1,
    "attribution MRR": score.reciprocal_rank,
    "false accusations / accusations": score.false_accusations,
}


class Measured(Struct, frozen=True):
    """One figure; NaN where there is nothing to measure it by."""

    value: float
    low: float
    high: float


class Counts(Struct, frozen=True):
    """What the figures are made of."""

    hits: int
    misses: dict[str, int]
    false: int
    unfelt: int
    unlabelled: int


class Evaluated(Struct, frozen=True, kw_only=True):
    """All that is printed. `figures` and `counts` are by detector; `rejected` are reasons by run."""

    runs: int
    events: int
    unfelt_events: int
    clean_hours: float
    rejected: dict[str, tuple[str, ...]]
    figures: dict[str, dict[str, Measured]]
    counts: dict[str, Counts]
    false: tuple[str, ...]
    day: Day | None = None
    control: tuple[Compared, ...] = ()


def evaluate(
    recordings: Sequence[Recording],
    control: tuple[Compared, ...] = (),
    *,
    rejected_too: bool = False,
    day: bool = False,
) -> Evaluated:
    """Replay the valid ones by ours and by each of the others; with `day` the calm of one for a day, too."""
    good = [one for one in recordings if rejected_too or not one.labels.rejected]
    told = {OURS: ours.alarms(good), OURS_WITHOUT_PSI: ours.alarms(good, psi=False)}
    told |= {name: baselines.alarms(rule, good) for name, rule in baselines.RULES.items()}
    outcomes = {
        name: [score.judge(one.labels, alarms[one.name]) for one in good] for name, alarms in told.items()
    }
    exposed = [event for one in good for event in score.events(one.labels)]
    clear = sum(len(run.hits) + len(run.misses) for run in outcomes[OURS])
    return Evaluated(
        runs=len(good),
        events=clear,
        unfelt_events=len(exposed) - clear,
        clean_hours=sum(run.clean_s for run in outcomes[OURS]) / 3600.0,
        rejected={one.name: one.labels.rejected for one in recordings if one.labels.rejected},
        figures={name: _figures(runs) for name, runs in outcomes.items()},
        counts={name: _counts(runs) for name, runs in outcomes.items()},
        false=tuple(_false(good, outcomes[OURS])),
        day=next((lived(one) for one in good if day and not one.labels.windows), None),
        control=control,
    )


def as_text(evaluated: Evaluated) -> str:
    """The tables, without a newline at the end."""
    e = evaluated
    what = (
        f"{e.events} victim-events that clients felt ({e.unfelt_events} they did not) in {e.runs} valid runs"
    )
    lines = [
        f"{what}, {e.clean_hours:.2f} victim-hours without an attack; [95 % by bootstrap over runs]",
        *(f"rejected: {name}: {'; '.join(why)}" for name, why in e.rejected.items()),
        "",
        *_table(e.figures),
        "",
        *(_counted(name, counts) for name, counts in e.counts.items()),
        *e.false,
        *_calm(e),
        *_controlled(e.control),
    ]
    return "\n".join(lines)


def _figures(runs: Sequence[Outcome]) -> dict[str, Measured]:
    return {name: Measured(figure(runs), *score.interval(runs, figure)) for name, figure in FIGURES.items()}


def _counts(runs: Sequence[Outcome]) -> Counts:
    return Counts(
        hits=sum(len(run.hits) for run in runs),
        misses=dict(Counter(event.kind for run in runs for event in run.misses)),
        false=sum(len(run.false) for run in runs),
        unfelt=sum(len(run.unfelt) for run in runs),
        unlabelled=sum(len(run.unlabelled) for run in runs),
    )


def _false(recordings: Sequence[Recording], outcomes: Sequence[Outcome]) -> list[str]:
    """Where our own false alarms are."""
    lines = []
    for one, run in zip(recordings, outcomes, strict=True):
        for alarm in run.false:
            kinds = [w.kind for w in one.labels.windows if w.began <= alarm.at <= w.ended + score.GRACE_S]
            at = alarm.at - one.labels.measured_from
            beside = f"beside {', '.join(kinds)}" if kinds else "with nothing going on"
            lines.append(f"false alarm: {one.name} at {at:.0f} s, {_short(alarm.victim)}, {beside}")
    return lines


def _table(figures: Mapping[str, Mapping[str, Measured]]) -> list[str]:
    width = max(map(len, FIGURES))
    head = f"  {'':<{width}}" + "".join(f"{name:>21}" for name in figures)
    rows = [
        f"  {name:<{width}}" + "".join(f"{_measured(each[name]):>21}" for each in figures.values())
        for name in FIGURES
    ]
    return [head, *rows]


def _measured(one: Measured) -> str:
    if math.isnan(one.value):
        return "-"
    return f"{one.value:.2f} [{one.low:.2f} {one.high:.2f}]"


def _counted(name: str, counts: Counts) -> str:
    missed = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.misses.items())) or "none"
    return (
        f"  {name:<10} hit {counts.hits}, missed {missed}; {counts.false} false alarms; "
        f"{counts.unfelt} alarms in attacks that nobody felt, {counts.unlabelled} in slow seconds of no label"
    )


def _calm(e: Evaluated) -> list[str]:
    """False alarms of ten pods in a day, as measured, and what a day of the recorded calm comes to."""
    if not e.clean_hours:
        return []
    count, pod_days = e.counts[OURS].false, e.clean_hours / 24.0
    rate, most = (10.0 * each / pod_days for each in (count, score.most_likely(count)))
    what = f"{count} false alarms in {pod_days:.3f} pod-days"
    lines = [f"{what}: {rate:.1f} of ten pods a day, at 95 % below {most:.0f}"]
    if e.day is not None:
        what = f"the recorded calm over and over, {e.day.victims} victims for {e.day.days:g} days"
        lines.append(f"{what}: {e.day.alarms} false alarms, {e.day.per_ten_pods:.1f} of ten pods a day")
    return lines


def _controlled(control: Sequence[Compared]) -> list[str]:
    if not control:
        return []
    what = "p50 / p99 in ms of all requests from the first moment of an attack on; the same attacks twice"
    head = f"  {'victim':<8}{'attack':<8}{'alone':>16}{'no control':>18}{'control':>18}"
    lines = ["", what, f"{head}{'p99/alone':>16}{'work kept':>11}"]
    for one in control:
        ratio = f"{_over(one.without.p99_ms, one)} -> {_over(one.bounded.p99_ms, one)}"
        cells = [f"{each.p50_ms:.2f} / {each.p99_ms:.2f}" for each in (one.alone, one.without, one.bounded)]
        kept = "-" if one.kept is None else f"{one.kept:.0%}"
        lines.append(
            f"  {one.victim:<8}{one.kind:<8}{cells[0]:>16}{cells[1]:>18}{cells[2]:>18}{ratio:>16}{kept:>11}"
        )
    return lines


def _over(p99_ms: float, one: Compared) -> str:
    return f"{p99_ms / one.alone.p99_ms:.1f}x" if one.alone.p99_ms else "-"


def _short(cgroup: str) -> str:
    return cgroup.rpartition("/")[2]
