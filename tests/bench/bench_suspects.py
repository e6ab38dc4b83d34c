"""What attribution costs: to remember a tick, and to rank suspects for a victim. SYNTHETIC use, real code."""

from __future__ import annotations

import statistics
from random import Random

from nodeagent.core import rates
from nodeagent.core.interference.history import remember
from nodeagent.core.interference.measures import measured
from nodeagent.core.interference.suspects import rank
from nodeagent.core.rates import View
from nodeagent.model.history import History
from nodeagent.model.interference import Alarm, State, Verdict
from nodeagent.model.policy import Policy
from nodeagent.model.symptom import Channel, Sign
from tests.bench.table import Figure, cpu_s, show
from tests.unit import samples, scored

TICKS = 182
POLICY = Policy()


def main() -> bool:
    """CPU time; one ranking is made for a victim every few seconds at most."""
    figures = []
    for pods in (100, 1000):
        history, view, kept_s, viewed_s = _remembered(pods)
        figures += [
            Figure(f"remember, {pods} pods, per tick", kept_s * 1e3, "ms"),
            Figure(f"the same by the rates of that tick, {pods} pods", kept_s / viewed_s, "x", most=1.0),
            Figure(f"rank among {pods} pods of which all share", _ranked_s(history, view) * 1e3, "ms"),
        ]
    figures.append(Figure("score 50 suspects x 180 samples", _scored_s(50) * 1e3, "ms", most=30.0))
    return show("attribution", figures)


def _remembered(pods: int) -> tuple[History, View, float, float]:
    history, previous, kept, viewed = History(), None, [], []
    view = rates.view(samples.snapshot(0, pods=pods), None)
    for n in range(TICKS):
        hurt = 0.5 if n > TICKS - 5 else 0.01
        seen = samples.snapshot(n, pods=samples.mixed_pods(pods, 1000.0 + n, ls_stall_ratio=hurt), cores=64)
        viewed.append(cpu_s(lambda seen=seen, before=previous: rates.view(seen, before)))  # type: ignore[misc]
        view = rates.view(seen, previous)
        told = measured(view, {})
        kept.append(cpu_s(lambda h=history, v=view, t=told: remember(h, v, t, POLICY)))  # type: ignore[misc]
        history = remember(history, view, told, POLICY)
        previous = seen
    return history, view, statistics.median(kept), statistics.median(viewed)


def _ranked_s(history: History, view: View) -> float:
    alarm = Alarm(Sign.CPU_STALL, Channel.CPU, 0.5, 0.01, 6.0, 8.0)
    verdict = Verdict(view.pods[0].pod.spec.uid, State.CONFIRMED, 1.0, Channel.CPU, (alarm,))
    return statistics.median(cpu_s(lambda: rank(history, verdict, view, {}, POLICY)) for _ in range(9))


def _scored_s(suspects: int) -> float:
    random = Random(1)
    crowd = scored.crowd(random, 180, suspects - 1)
    culprit = scored.bursts(random, 180, 10, 30, 2.0)
    felt = scored.slowed(random, [culprit], 1.5, 2.0)
    return statistics.median(cpu_s(lambda: scored.judged(felt, *crowd, culprit)) for _ in range(9))
