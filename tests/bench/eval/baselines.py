"""What others do, re-implemented from their rules: pure functions from the same views to alarms.

    cpi2         CPI2 (Zhang et al., EuroSys'13): mean + 2 sigma, 3 in 5 minutes, score >= 0.35
    psi          Datadog's noisy_neighbor: PSI avg10 >= 5 %, nothing else asked
    max-cpu      the same alarm; who uses most CPU is guilty
    koordlet     Koordinator's cpusuppress: more than 65 % of the node's CPU used, all Batch pays
    oomd         pressure_above: memory full avg10 >= 60 % for 30 s, the largest pod pays

They are given more than they have in the field: what each needs to be learned beforehand is learned from
the same run's calm beginning, and they look every second (CPI2: every 10 s instead of 60).
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from nodeagent.core.rates import PodRates, View, view
from nodeagent.model.snapshot import Snapshot
from tests.bench.eval.labels import Labels
from tests.bench.eval.recording import Recording
from tests.bench.eval.score import Alarm

PSI_PERCENT, PSI_WINDOW_S = 5.0, 10.0
UTILISATION_RATIO = 0.65
OOMD_PERCENT, OOMD_S = 60.0, 30.0
CPI_S = 10.0  # one sample of CPI2
CPI_SIGMAS, CPI_OUTLIERS, CPI_SPAN_S = 2.0, 3, 300.0
CPI_LEAST_CORES = 0.05  # the paper has 0.25; our victims use less
CPI_SCORE, CPI_WINDOW_S = 0.35, 600.0

Rule = Callable[[Labels, Sequence[View]], list[Alarm]]


def views(snapshots: Sequence[Snapshot]) -> list[View]:
    """The rates of each tick."""
    previous = [None, *snapshots[:-1]]
    return [view(now, before) for now, before in zip(snapshots, previous, strict=True)]


def psi(labels: Labels, seen: Sequence[View]) -> list[Alarm]:
    """A static threshold on the pod's PSI CPU some avg10; it names nobody."""
    return [Alarm(victim, at) for victim, at, _ in _pressed(labels, seen)]


def max_cpu(labels: Labels, seen: Sequence[View]) -> list[Alarm]:
    """The same, and the Batch pod that uses most CPU at that moment is accused."""
    return [Alarm(victim, at, ranking[:1], ranking) for victim, at, ranking in _pressed(labels, seen)]


def koordlet(labels: Labels, seen: Sequence[View]) -> list[Alarm]:
    """One bound on the node's utilisation: all online pods are warned of, all of Batch is suppressed."""
    found, over = [], False
    for one in seen:
        if one.busy_cores is None:
            continue
        was, over = over, one.busy_cores > UTILISATION_RATIO * labels.cpus
        if over and not was:
            guilty = tuple(cgroup for cgroup, cores in _batch(one) if cores > 0.01)
            found += [Alarm(v.cgroup, one.snapshot.at, guilty, guilty) for v in labels.victims]
    return found


def oomd(labels: Labels, seen: Sequence[View]) -> list[Alarm]:
    """Memory pressure alone, and long before it speaks; the largest Batch pod is killed."""
    found: list[Alarm] = []
    for victim in labels.victims:
        average, since, spoke = 0.0, None, False
        for one, share in _full_stall(seen, victim.cgroup):
            average = _decayed(average, share, one.dt_s or 0.0)
            since = (since if since is not None else one.snapshot.at) if average >= OOMD_PERCENT else None
            if since is None:
                spoke = False
            elif not spoke and one.snapshot.at - since >= OOMD_S:
                largest = max(one.pods, key=_batch_bytes)
                found.append(Alarm(victim.cgroup, one.snapshot.at, (largest.pod.spec.cgroup,)))
                spoke = True
    return found


def cpi2(labels: Labels, seen: Sequence[View]) -> list[Alarm]:
    """CPU per request where the application tells it, else wait for CPU per CPU second, in place of CPI."""
    return [alarm for victim in labels.victims for alarm in _cpi2(labels, seen, victim.cgroup)]


RULES: dict[str, Rule] = {
    "cpi2": cpi2,
    "psi": psi,
    "max-cpu": max_cpu,
    "koordlet": koordlet,
    "oomd": oomd,
}


def alarms(rule: Rule, recordings: Sequence[Recording]) -> dict[str, list[Alarm]]:
    """Alarms by recording."""
    return {one.name: rule(one.labels, views(one.snapshots)) for one in recordings}


def antagonist_score(samples: Sequence[tuple[float, float]], threshold: float) -> float:
    """CPI2's correlation of (victim's CPI, suspect's use) in [-1, 1]; uses are normalised to a sum of 1."""
    total = sum(used for _, used in samples)
    if total <= 0.0:
        return 0.0
    score = 0.0
    for cpi, used in samples:
        if cpi > threshold:
            score += used / total * (1.0 - threshold / cpi)
        elif cpi < threshold:
            score += used / total * (cpi / threshold - 1.0)
    return score


def _pressed(labels: Labels, seen: Sequence[View]) -> Iterator[tuple[str, float, tuple[str, ...]]]:
    """(victim, when its avg10 rose above the threshold, Batch pods by their CPU use then)."""
    for victim in labels.victims:
        average, over = 0.0, False
        for one in seen:
            pod = _pod(one, victim.cgroup)
            if pod is None or pod.stall_ratio is None or one.dt_s is None:
                continue
            average = _decayed(average, 100.0 * pod.stall_ratio, one.dt_s)
            was, over = over, average >= PSI_PERCENT
            if over and not was:
                yield victim.cgroup, one.snapshot.at, tuple(cgroup for cgroup, _ in _batch(one))


def _decayed(average: float, value: float, dt_s: float) -> float:
    """avg10 of Linux kernel/sched/psi.c (calc_avgs), for a period of any length."""
    weight = math.exp(-dt_s / PSI_WINDOW_S)
    return average * weight + value * (1.0 - weight)


def _full_stall(seen: Sequence[View], cgroup: str) -> Iterator[tuple[View, float]]:
    """Memory full of a pod in percent of wall time; it is read less often than each tick."""
    last: tuple[float, int] | None = None
    share = 0.0
    for one in seen:
        pod = _pod(one, cgroup)
        stall = None if pod is None else pod.pod.reading.memory_stall
        if stall is None or stall.full_us is None:
            continue
        now = (one.snapshot.at, stall.full_us)
        if last is not None and now[1] >= last[1] and now[0] > last[0]:
            share = 100.0 * (now[1] - last[1]) / 1e6 / (now[0] - last[0])
        last = now
        yield one, share


def _batch_bytes(pod: PodRates) -> int:
    return -1 if pod.pod.spec.online else pod.pod.reading.memory_bytes or 0


def _cpi2(labels: Labels, seen: Sequence[View], cgroup: str) -> Iterator[Alarm]:
    samples = list(_samples(seen, cgroup))
    usual = [cpi for at, cpi, _ in samples if at < _calm_until(labels)]
    if len(usual) < 2:
        return
    threshold = statistics.mean(usual) + CPI_SIGMAS * statistics.stdev(usual)
    outliers: deque[float] = deque()
    over = False
    for number, (at, cpi, _) in enumerate(samples):
        if cpi > threshold:
            outliers.append(at)
        while outliers and outliers[0] < at - CPI_SPAN_S:
            outliers.popleft()
        was, over = over, len(outliers) >= CPI_OUTLIERS and cpi > threshold
        if over and not was:
            window = [one for one in samples[: number + 1] if one[0] > at - CPI_WINDOW_S]
            yield Alarm(cgroup, at, *_antagonists(window, threshold))


def _antagonists(
    window: Sequence[tuple[float, float, dict[str, float]]], threshold: float
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(who is accused, all suspects), the highest score first."""
    suspects = {cgroup for _, _, uses in window for cgroup in uses}
    scores = {
        cgroup: antagonist_score([(cpi, uses.get(cgroup, 0.0)) for _, cpi, uses in window], threshold)
        for cgroup in sorted(suspects)
    }
    ranking = tuple(sorted(scores, key=lambda cgroup: -scores[cgroup]))
    return tuple(c for c in ranking[:1] if scores[c] >= CPI_SCORE), ranking


def _samples(seen: Sequence[View], cgroup: str) -> Iterator[tuple[float, float, dict[str, float]]]:
    """(at, what stands for CPI, cores of each Batch pod) of each CPI_S in which the victim did enough."""
    begin: View | None = None
    for one in seen:
        pod = _pod(one, cgroup)
        if pod is None:
            begin = None
            continue
        if begin is None or one.snapshot.at - begin.snapshot.at < CPI_S:
            begin = begin or one
            continue
        since, before, begin = view(one.snapshot, begin.snapshot), _pod(begin, cgroup), one
        over = _pod(since, cgroup)
        cpi = None if over is None else stand_in(over, since.dt_s, _requests(before, over))
        if over is not None and cpi is not None and (over.cores or 0.0) >= CPI_LEAST_CORES:
            yield one.snapshot.at, cpi, dict(_batch(since))


def stand_in(pod: PodRates, dt_s: float | None, requests: int | None) -> float | None:
    """What of CPI is seen without a PMU: CPU seconds per request where the application tells its requests.

    Else 1 + wait for CPU (PSI some) per CPU second, which is 1 without a neighbour and grows, as CPI does,
    with the time that an instruction takes. None when neither is known.
    """
    if dt_s is None or pod.cores is None or pod.cores <= 0.0:
        return None
    if requests is not None:
        return pod.cores * dt_s / requests if requests > 0 else None
    return None if pod.stall_ratio is None else 1.0 + pod.stall_ratio / pod.cores


def _requests(before: PodRates | None, now: PodRates) -> int | None:
    """Requests that were answered in between, None where nobody tells."""
    was, told = None if before is None else before.pod.app, now.pod.app
    if was is None or told is None or was.requests is None or told.requests is None:
        return None
    return max(0, told.requests - was.requests)


def _calm_until(labels: Labels) -> float:
    return min((w.began for w in labels.windows), default=labels.ended)


def _pod(one: View, cgroup: str) -> PodRates | None:
    return next((p for p in one.pods if p.pod.spec.cgroup == cgroup), None)


def _batch(one: View) -> list[tuple[str, float]]:
    """Batch pods and their use in cores, the greediest first."""
    used = [(p.pod.spec.cgroup, p.cores or 0.0) for p in one.pods if not p.pod.spec.online]
    return sorted(used, key=lambda each: -each[1])
