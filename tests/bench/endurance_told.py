"""What half an hour of an agent has shown, as figures."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nodeagent.journal.read import read_segments
from nodeagent.model.settings import GrpcSettings
from tests.bench.bench_rpc import quantile_ms
from tests.bench.endurance_load import Turn
from tests.bench.endurance_node import MARK
from tests.bench.endurance_seen import (
    Life,
    Noted,
    Told,
    births,
    deaths,
    distinct,
    lapses,
    long_enough,
    missing,
    never,
)
from tests.bench.endurance_watch import CapacityWatcher, EventWatcher
from tests.bench.lateness import Late, Stamp, lateness
from tests.bench.soak_seen import Sample, fit
from tests.bench.soak_told import held, total
from tests.bench.table import Figure

LATE_MS = 5.0  # with SCHED_FIFO, 99 of 100 ticks
FEW = 20  # ticks of which a p99 tells nothing
AGREE_RATIO = 0.02  # /metrics and the journal on how many ticks are late by more than LATE_MS
ROTATED_PER_MIN = 1.0
SLOPE_KIB_H = 1024.0  # 24 MiB a day
SETTLED_S = 1200.0  # before, what is bounded still fills up
FRESH_S = 2.0  # a dead pod is told of no longer; the loops keep the agent from its CPU meanwhile
SILENCE_S = GrpcSettings().heartbeat_s + 5.0


@dataclass
class Lasted:
    """What was done, and what was seen; `kept` has all segments of the journal."""

    tick_s: float
    kept: Path
    lives: list[Life] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    quiet: list[tuple[Sample, Counter[str]]] = field(default_factory=list)
    events: list[list[EventWatcher]] = field(default_factory=list)  # those of each phase
    offers: list[CapacityWatcher] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    windows_s: list[float] = field(default_factory=list)  # of the policies, in order
    removed: int = 0  # segments
    exit_status: int | None = None

    @property
    def least_s(self) -> float:
        """A pod that lives so long must be seen by a tick, and be told of."""
        return 2 * self.tick_s + 1.0


def figures(lasted: Lasted, page: str) -> list[Figure]:
    """All rows; `page` is the last /metrics."""
    ticks, windows_s, segments = _journal(lasted.kept)
    late = lateness([Stamp(tick.at, tick.woken_by) for tick in ticks], lasted.tick_s)
    exit_status = -1.0 if lasted.exit_status is None else float(lasted.exit_status)
    return [
        *_pods(lasted, ticks),
        *_ticks(lasted, page, ticks, segments),
        *_policies(lasted, windows_s),
        *_watchers(lasted),
        *_memory(lasted.samples),
        *held(lasted.samples, lasted.quiet),
        *_lateness(lasted.turns, late),
        *_agreement(page, late),
        Figure("the agent's exit status", exit_status, "", most=0.0, least=0.0),
    ]


def _journal(kept: Path) -> tuple[list[Noted], list[float], int]:
    """Its ticks, the policies' windows, how many segments there were."""
    ticks: list[Noted] = []
    windows_s: list[float] = []
    segments = 0
    for segment in read_segments(kept, lambda why: print(f"journal: {why}", file=sys.stderr)):
        segments += 1
        windows_s.append(segment.head.policy.cpu.window_s)
        for tick in segment.ticks():
            seen = tick.snapshot
            ours = frozenset(pod.spec.cgroup for pod in seen.pods if MARK in pod.spec.cgroup)
            ticks.append(Noted(segment.head.run, seen.seq, seen.at, seen.woken_by, ours))
    return ticks, distinct(windows_s), segments


def _pods(lasted: Lasted, ticks: Sequence[Noted]) -> Iterator[Figure]:
    lives = long_enough(lasted.lives, lasted.least_s)
    born, died = births(lives, ticks), deaths(lives, ticks)
    yield Figure("pods born, and dead", len(lasted.lives), "")
    yield Figure("  of them long enough to be seen", len(lives), "")
    yield Figure("  births that no tick has", len(born.never), "", most=0.0)
    yield Figure("  deaths that no tick has", len(died.never), "", most=0.0)
    yield Figure("  missing in a tick while alive", len(lapses(ticks)), "", most=0.0)
    stale = sum(after_s > FRESH_S for after_s in died.after_s)
    yield Figure(f"  still there {FRESH_S:g} s after death", stale, "", most=0.0)
    yield from _quantiles("birth to tick", born)
    yield from _quantiles("death to tick", died)


def _quantiles(what: str, told: Told) -> Iterator[Figure]:
    for name, ratio in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
        if told.after_s:
            yield Figure(f"  {what}, {name}", quantile_ms(told.after_s, ratio), "ms")


def _ticks(lasted: Lasted, page: str, ticks: Sequence[Noted], segments: int) -> list[Figure]:
    counted = total(page, "nodeagent_ticks_total")
    skipped = total(page, "nodeagent_ticks_skipped_total")
    minutes = (lasted.samples[-1].at - lasted.samples[0].at) / 60.0
    return [
        Figure("ticks in the journal", len(ticks), ""),
        Figure("  missing in its sequence", missing(ticks), "", most=0.0),
        Figure("  counted by /metrics, and not in it", max(0.0, counted - len(ticks)), "", most=0.0),
        Figure("  segments it was rotated through", segments, "", least=1 + int(minutes * ROTATED_PER_MIN)),
        Figure("  of them removed meanwhile, for it may have 1 MiB", lasted.removed, ""),
        Figure("ticks that could not read the node", skipped, "", most=0.0),
        Figure("due times without a tick", total(page, "nodeagent_ticks_missed_total"), ""),
    ]


def _policies(lasted: Lasted, windows_s: Sequence[float]) -> Iterator[Figure]:
    for what, times in sorted(lasted.done.items()):
        yield Figure(what, times, "")
    sent = distinct(lasted.windows_s)
    other = 0.0 if list(windows_s[-len(sent) :] if sent else windows_s) == sent else 1.0
    yield Figure("  the journal has others, or another order", other, "", most=0.0)


def _watchers(lasted: Lasted) -> Iterator[Figure]:
    events = [each for phase in lasted.events for each in phase]
    everybody = [*events, *lasted.offers]
    lives = long_enough(lasted.lives, lasted.least_s)
    born = died = 0
    for same in zip(*lasted.events, strict=True):  # one before, and one after the first rest
        appeared = {cgroup for each in same for cgroup in each.appeared}
        vanished = {name for each in same for name in each.vanished}
        born += len(never((life.cgroup for life in lives), appeared))
        died += len(never((life.cgroup.rpartition("/")[2] for life in lives), vanished))
    yield Figure("watchers", len(everybody), "")
    yield Figure("  streams cut", sum(each.cut for each in everybody), "", most=0.0)
    yield Figure("  longest silence", max(each.silence_s for each in everybody), "s", most=SILENCE_S)
    yield Figure("  offers told", sum(each.messages for each in lasted.offers), "")
    yield Figure("  offers older than one before", sum(each.back for each in lasted.offers), "", most=0.0)
    yield Figure("  events told", sum(each.received for each in events), "")
    yield Figure("  events told to be missed", sum(each.missed for each in events), "")
    yield Figure("  events neither told nor missed", sum(each.untold for each in events), "", most=0.0)
    yield Figure("  events out of order, or twice", sum(each.unordered for each in events), "", most=0.0)
    yield Figure("  births not told", born, "", most=0.0)
    yield Figure("  deaths not told", died, "", most=0.0)


def _memory(samples: Sequence[Sample]) -> list[Figure]:
    rss = [((each.at - samples[0].at) / 3600.0, each.rss_kib) for each in samples]
    second = fit(rss[len(rss) // 2 :])
    long = samples[-1].at - samples[0].at >= SETTLED_S
    return [
        Figure("resident memory at the begin", rss[0][1] / 1024, "MiB"),
        Figure("resident memory at the end", rss[-1][1] / 1024, "MiB"),
        Figure("  its most", max(kib for _, kib in rss) / 1024, "MiB"),
        Figure("  slope of the second half", second.slope, "KiB/h"),
        Figure("  its standard error", second.error, "KiB/h"),
        Figure(
            "  slope that is certain (less 2 errors)",
            second.slope - 2 * second.error,
            "KiB/h",
            most=SLOPE_KIB_H if long else None,
        ),
    ]


def _lateness(turns: Sequence[Turn], late: Sequence[Late]) -> Iterator[Figure]:
    """By kind of load, in the order in which they came first."""
    for variant in dict.fromkeys(turn.variant for turn in turns):
        mine = [turn for turn in turns if turn.variant == variant]
        by_s = [each.by_s for each in late if any(turn.began <= each.at <= turn.ended for turn in mine)]
        if not by_s:
            continue
        enough = variant.realtime and len(by_s) >= FEW
        yield Figure(f"ticks late, {variant.name}: p50", quantile_ms(by_s, 0.5), "ms")
        yield Figure("  p99", quantile_ms(by_s, 0.99), "ms", most=LATE_MS if enough else None)
        yield Figure("  max", max(by_s) * 1e3, "ms")
        yield Figure("  of ticks", len(by_s), "")
        ticks = sum(turn.ticks for turn in mine)
        yield Figure("  mean duration", sum(turn.ticks_s for turn in mine) / max(1.0, ticks) * 1e3, "ms")


def _agreement(page: str, late: Sequence[Late]) -> Iterator[Figure]:
    """What the agent itself has counted of all its ticks."""
    name = "nodeagent_tick_lateness_seconds"
    counted = total(page, f"{name}_count")
    in_time = total(page, f'{name}_bucket{{le="{LATE_MS / 1e3:g}"}}')
    if not counted or not late:
        return
    by_agent = 1.0 - in_time / counted
    by_journal = sum(each.by_s > LATE_MS / 1e3 for each in late) / len(late)
    yield Figure(f"ticks late by more than {LATE_MS:g} ms, by the journal", by_journal, "of all")
    yield Figure("  by /metrics", by_agent, "of all")
    yield Figure("  difference", abs(by_agent - by_journal), "", most=AGREE_RATIO)
