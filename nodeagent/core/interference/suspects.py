"""Who did it: neighbours that share the contended resource, ranked, and named only beyond chance.

A name takes all of: significance (`shifts`), use that came with the harm (`amplitude_free`, `lift`), a part
in what the victim feels beside all others (`joint`), a rise that is worth mentioning, and both good and bad
samples. Several are named until they explain enough. What is not named is a ranking, never an accusation.

Cost: some 10 ms of CPU for 50 neighbours x 180 samples, 60 ms for 1000 pods; the caller asks every few
seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from nodeagent.core.interference.algebra import covariance
from nodeagent.core.interference.frame import (
    LEAST_BAD,
    Frame,
    Samples,
    beside,
    first_sample,
    framed,
    sampled,
    used,
)
from nodeagent.core.interference.neighbours import Neighbour, least, neighbours, quantities
from nodeagent.core.interference.scorers import SCORERS
from nodeagent.core.interference.scorers.joint import LEAST_PART
from nodeagent.core.interference.scorers.shifts import shifts
from nodeagent.core.rates import View
from nodeagent.model.history import History
from nodeagent.model.interference import Alarm, Suspect, Verdict
from nodeagent.model.interference_policy import InterferencePolicy
from nodeagent.model.policy import Policy

LEAST_SAMPLES = 20  # p cannot be below 1/samples
LEAST_GOOD_RATIO = 0.2
LEAST_RHO, LEAST_LIFT = 0.35, 0.1
BEFORE_S = 5.0  # that trouble begins before it shows
LEAST_OF_MOST = 0.4  # a further name takes as much of the first one's part
ENOUGH = 0.8  # of what the victim feels: then nobody else is named
MOST_NAMED, MOST_RANKED = 5, 8
MOST_SCORED = 48  # neighbours, by each quantity; who never changed what it used did not do it
BUSY = 128  # of 255: a CPU that was busy for half of the time
_P = shifts.__name__


class _Scored(Struct, frozen=True, gc=False):
    """A neighbour's rows are one: its best scores and the sum of its parts."""

    who: Neighbour
    scores: dict[str, float]
    share: float
    part: float
    guilty: bool


def rank(
    history: History,
    verdict: Verdict,
    view: View,
    cpus_of: Mapping[str, frozenset[int]],
    policy: Policy,
    began: float | None = None,
) -> tuple[Suspect, ...]:
    """Suspects for what `verdict` says, the likeliest first; at most MOST_RANKED, and all who are named.

    Empty when there is no alarm, no history of it, or nobody who shares the resource. `cpus_of` are the CPUs
    of cgroups; who is not in it may use all. `p_value` holds for all neighbours together: see `shifts`.
    `began` is when the signs of it left rest: what was bad long before is another trouble.
    """
    alarm = _main(verdict)
    victim = next((p.pod for p in view.pods if p.pod.spec.uid == verdict.uid), None)
    slot = history.slots.get(verdict.uid)
    if alarm is None or victim is None or slot is None:
        return ()
    samples = sampled(history, alarm.sign, slot)
    frame = framed(samples, alarm.baseline, _spread(alarm), alarm.channel)
    if frame is None:
        return ()
    if began is not None:
        frame = replace(frame, since=max(frame.since, first_sample(history, samples, began - BEFORE_S)))
    busy = _busy(history, samples, frame, view)
    who = neighbours(alarm.channel, victim, view, cpus_of, busy)
    who, frame = _with_uses(history, samples, frame, who, quantities(alarm.channel, victim, view))
    if not who:
        return ()
    return suspected(who, frame, policy.interference)


def suspected(owners: Sequence[Neighbour], frame: Frame, policy: InterferencePolicy) -> tuple[Suspect, ...]:
    """The ranking for one frame, whose rows are of `owners`; a neighbour may have several."""
    return _listed(_scored(owners, frame, policy))


def _main(verdict: Verdict) -> Alarm | None:
    """The strongest alarm of the channel that the verdict names."""
    own = [alarm for alarm in verdict.alarms if alarm.channel is verdict.channel]
    return max(own or verdict.alarms, key=lambda a: (a.cusum, a.z, a.sign), default=None)


def _spread(alarm: Alarm) -> float:
    if alarm.baseline is None or alarm.z <= 0.0 or alarm.value <= alarm.baseline:
        return 0.0
    return (alarm.value - alarm.baseline) / max(alarm.z, 2.0)


def _busy(history: History, samples: Samples, frame: Frame, view: View) -> frozenset[int]:
    """CPUs that were busy in the latest samples that were bad."""
    bad = [span for span, x in zip(samples.spans, frame.felt, strict=True) if x > frame.bad_from][-10:]
    rows = [m.busy for first, end in bad for m in history.moments[first:end] if m.busy]
    cpus = view.snapshot.node.cpus or ()
    rows = [row for row in rows if len(row) == len(cpus)]
    if not rows:
        return frozenset()
    return frozenset(
        cpu.cpu
        for cpu, row in zip(cpus, zip(*rows, strict=True), strict=True)
        if sum(row) >= BUSY * len(rows)
    )


def _with_uses(
    history: History, samples: Samples, frame: Frame, who: Sequence[Neighbour], names: Sequence[str]
) -> tuple[tuple[Neighbour, ...], Frame]:
    """Whose rows they are, and the frame with one for each neighbour and quantity of which it used enough."""
    known = [(each, history.slots[each.uid]) for each in who if each.uid in history.slots]
    owners: list[Neighbour] = []
    rows: list[tuple[float, ...]] = []
    kinds: list[str] = []
    for name in names:
        found = used(history, samples, name, [slot for _, slot in known])
        enough = [(each, row) for (each, _), row in zip(known, found, strict=True) if max(row) >= least(name)]
        enough.sort(key=lambda pair: min(pair[1]) - max(pair[1]))  # who changed most comes first
        for each, row in enough[:MOST_SCORED]:
            owners.append(each)
            rows.append(row)
            kinds.append(name)
    numbers = {uid: n for n, uid in enumerate(sorted({each.uid for each in owners}))}
    whose = tuple(numbers[each.uid] for each in owners)
    return tuple(owners), beside(frame, rows, kinds, whose)


def aligned(frame: Frame) -> Frame:
    """The frame with uses moved later by the lag at which one of them goes best with what is felt."""
    if frame.most_lag == 0:
        return frame
    badness, rows = frame.badness, frame.uses
    sizes = [s**0.5 for s in frame.spreads]

    def strength(lag: int) -> float:
        links = (
            covariance(badness[lag:], row[: len(row) - lag]) / size
            for row, size in zip(rows, sizes, strict=True)
            if size > 0.0
        )
        return max(links, default=0.0)

    lag = max(range(min(frame.most_lag, len(frame.felt) // 4) + 1), key=lambda n: (strength(n), -n))
    uses = tuple(row[: len(row) - lag] for row in frame.uses)
    return replace(frame, felt=frame.felt[lag:], uses=uses, since=max(0, frame.since - lag)) if lag else frame


def _scored(owners: Sequence[Neighbour], frame: Frame, policy: InterferencePolicy) -> list[_Scored]:
    later = aligned(frame)
    table = {score.__name__: score(later) for score in SCORERS}
    bad, good = later.bad, later.good
    fair = len(later.felt) >= LEAST_SAMPLES and len(bad) >= LEAST_BAD
    fair = fair and len(good) >= LEAST_GOOD_RATIO * len(later.felt)
    used_bad = [_mean(row, bad) for row in later.uses]
    total: dict[str, float] = {}
    for kind, mean_used in zip(later.kinds, used_bad, strict=True):
        total[kind] = total.get(kind, 0.0) + mean_used
    found: dict[str, _Scored] = {}
    for n, (who, kind) in enumerate(zip(owners, later.kinds, strict=True)):
        scores = {name: values[n] for name, values in table.items()}
        rise = (used_bad[n] - _mean(later.uses[n], good)) * later.units[n]
        share = used_bad[n] / total[kind] if total[kind] > 0.0 else 0.0
        guilty = fair and rise >= least(kind) and _convicts(scores, policy.chance)
        row = _Scored(who, scores, share, scores["joint"], guilty)
        found[who.uid] = _merged(found.get(who.uid), row)
    return list(found.values())


def _convicts(scores: Mapping[str, float], chance: float) -> bool:
    return (
        scores[_P] <= chance
        and scores["amplitude_free"] >= LEAST_RHO
        and scores["lift"] >= LEAST_LIFT
        and scores["joint"] >= LEAST_PART
    )


def _merged(one: _Scored | None, other: _Scored) -> _Scored:
    """Two rows of one neighbour: the scores of the one that says more against it, both parts."""
    if one is None:
        return other
    first, second = sorted((one, other), key=_weight, reverse=True)
    return replace(first, part=min(1.0, first.part + second.part))


def _weight(each: _Scored) -> tuple[bool, float, float, float]:
    return (each.guilty, each.part, -each.scores[_P], each.scores["amplitude_free"])


def _mean(row: Sequence[float], where: Sequence[int]) -> float:
    return sum([row[n] for n in where]) / len(where) if where else 0.0


def _listed(found: Sequence[_Scored]) -> tuple[Suspect, ...]:
    """By what they explain, to a twentieth; where that is the same, Batch first: it can be held back."""

    def order(each: _Scored) -> tuple[bool, float, bool, float, float, str]:
        rho = each.scores["amplitude_free"]
        guess = rho * each.share**0.5 if rho > 0.0 else rho
        part = round(each.part * 20.0)
        return (not each.guilty, -part, each.who.online, -each.part, -guess, each.who.uid)

    explained, suspects = 0.0, list[Suspect]()
    most = max((each.part for each in found if each.guilty), default=0.0)
    for each in sorted(found, key=order):
        more = explained < ENOUGH and len(suspects) < MOST_NAMED and each.part >= LEAST_OF_MOST * most
        named = each.guilty and more
        explained += each.part if named else 0.0
        suspects.append(_suspect(each, named=named))
    return tuple(suspects[:MOST_RANKED])


def _suspect(each: _Scored, *, named: bool) -> Suspect:
    who = each.who
    return Suspect(
        uid=who.uid,
        name=who.name,
        cgroup=who.cgroup,
        scores={name: round(value, 4) for name, value in each.scores.items()},
        p_value=each.scores[_P],
        share=each.share,
        contribution=each.part,
        named=named,
    )
