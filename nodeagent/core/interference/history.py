"""Remember what attribution needs of the last minutes: what active pods used, how online ones felt.

A pod that uses next to nothing is not kept: what is absent used nothing. Slow readings are kept at the tick
that brought them. Invariant: nothing is derived here, and nothing is kept for longer than the window.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from math import nan

from nodeagent.core.interference.measures import Measures
from nodeagent.core.rates import PodRates, View
from nodeagent.model.history import Column, History, Moment
from nodeagent.model.policy import Policy
from nodeagent.model.snapshot import CpuTimes
from nodeagent.model.symptom import Sign, Symptoms

SYSTEM = ""  # uid of what no pod accounts for
CORES, RESIDENT, FAULTS, BANDWIDTH, NET, IO, OPERATIONS = (
    "cores",
    "resident",
    "faults",
    "bandwidth",
    "net",
    "io",
    "operations",
)
LEAST_CORES = 0.005
RESIDENT_EVERY_S = 5.0
MOST_PER_S = 4.0  # moments; more than that come only while ticks are woken all the time
SPARE_SLOTS = 256  # of pods that are gone, before they are forgotten
_NOT_SUFFERED = frozenset(
    {Sign.STEAL, Sign.SOFTIRQ, Sign.THROTTLED, Sign.LLC_OCCUPANCY, Sign.MEMORY_BANDWIDTH}
)


_Values = dict[str, tuple[list[int], list[float]]]


def remember(history: History, view: View, measures: Mapping[str, Measures], policy: Policy) -> History:
    """The history after this tick, over `policy.interference.window_s`.

    Takes time by the number of pods and space by that of the active ones: 100 pods some 0.1 ms and 0.4 MB.
    """
    if view.dt_s is None:
        return history
    now, window_s = view.snapshot.at, policy.interference.window_s
    slots, next_slot = _numbered(history, view)
    last = history.moments[-1] if history.moments else Moment(0.0, 0.0)
    uses = _uses(view, slots)
    signs = _signs(measures, slots)
    moment = Moment(now, view.dt_s, _packed(uses, last.uses), _packed(signs, last.signs), _busy(view))
    first = max(0, len(history.moments) - int(window_s * MOST_PER_S))
    while first < len(history.moments) and now - history.moments[first].at > window_s:
        first += 1
    return History((*history.moments[first:], moment), slots, next_slot)


def _numbered(history: History, view: View) -> tuple[dict[str, int], int]:
    """A number for each pod, never given twice; the dictionary is copied only when somebody comes."""
    slots, number = history.slots, history.next_slot
    here = [p.pod.spec.uid for p in view.pods]
    if len(slots) > 2 * len(here) + SPARE_SLOTS:
        slots = {uid: slots[uid] for uid in (SYSTEM, *here) if uid in slots}
    new = [uid for uid in (SYSTEM, *here) if uid not in slots]
    if not new:
        return slots, number
    return slots | {uid: number + n for n, uid in enumerate(new)}, number + len(new)


def _uses(view: View, slots: Mapping[str, int]) -> _Values:
    """What each active pod used, in units per second (cores, bytes/s, pages/s); resident memory in bytes."""
    now, dt_s = view.snapshot.at, view.dt_s or 0.0
    found: _Values = {}
    cores = _of(found, CORES)
    by_pods: float | None = 0.0
    for p in view.pods:
        if p.cores is None:
            _add(cores, slots[p.pod.spec.uid], nan)
            by_pods = None
        elif p.cores > 0.0:
            by_pods = None if by_pods is None else by_pods + p.cores
            if p.cores >= LEAST_CORES:
                _add(cores, slots[p.pod.spec.uid], p.cores)
        if p.before is not None and p.pod.symptoms is not p.before.symptoms:
            _slow(found, p, slots[p.pod.spec.uid])
    if view.busy_cores is not None:
        rest = nan if by_pods is None else max(0.0, view.busy_cores - by_pods)
        _add(cores, slots[SYSTEM], rest)
    if now // RESIDENT_EVERY_S != (now - dt_s) // RESIDENT_EVERY_S:
        resident = _of(found, RESIDENT)
        for p in view.pods:
            if p.pod.reading.memory_bytes is not None:
                _add(resident, slots[p.pod.spec.uid], float(p.pod.reading.memory_bytes))
    return found


def _of(found: _Values, name: str) -> tuple[list[int], list[float]]:
    return found.setdefault(name, ([], []))


def _add(column: tuple[list[int], list[float]], slot: int, value: float) -> None:
    column[0].append(slot)
    column[1].append(value)


def _slow(found: _Values, p: PodRates, slot: int) -> None:
    """Rates of what is read less often, when a new reading has come."""
    now, old = p.pod.symptoms, None if p.before is None else p.before.symptoms
    if now is None or old is None or now.at <= old.at:
        return
    dt_s = now.at - old.at
    for name, rate in (
        (FAULTS, _rate(_faults(old), _faults(now), dt_s)),
        (NET, _rate(old.net_bytes, now.net_bytes, dt_s)),
        (BANDWIDTH, _rate(_moved(old), _moved(now), dt_s)),
    ):
        if rate is not None:
            _add(_of(found, name), slot, rate)
    before = {use.device: use for use in old.devices or ()}
    for use in now.devices or ():
        was = before.get(use.device)
        if was is not None:
            for name, rate in (
                (IO, _rate(was.bytes, use.bytes, dt_s)),
                (OPERATIONS, _rate(was.operations, use.operations, dt_s)),
            ):
                if rate is not None:
                    _add(_of(found, f"{name} {use.device}"), slot, rate)


def _rate(old: int | None, new: int | None, dt_s: float) -> float | None:
    return None if old is None or new is None or new < old else (new - old) / dt_s


def _faults(symptoms: Symptoms) -> int | None:
    """Pages that had to be fetched: major faults, and those that had been evicted lately."""
    known = [n for n in (symptoms.refaults, symptoms.major_faults) if n is not None]
    return sum(known) if known else None


def _moved(symptoms: Symptoms) -> int | None:
    return None if symptoms.rdt is None else symptoms.rdt.bandwidth_bytes


def _signs(measures: Mapping[str, Measures], slots: Mapping[str, int]) -> _Values:
    found: _Values = {}
    for uid, told in measures.items():
        slot = slots.get(uid)
        if slot is None:
            continue
        for sign, value in told.values.items():
            if sign not in _NOT_SUFFERED:
                column = found.get(sign)
                if column is None:
                    column = found[sign] = ([], [])
                column[0].append(slot)
                column[1].append(value)
    return found


def _packed(found: _Values, last: Mapping[str, Column]) -> dict[str, Column]:
    return {str(name): _column(pair, last.get(name)) for name, pair in found.items()}


def _column(pair: tuple[list[int], list[float]], last: Column | None) -> Column:
    """Who has 0 comes last and needs no value. Pods that are the same as in the last tick are kept once."""
    slots, values = pair
    if 0.0 in values:
        zeros = [slot for slot, value in zip(slots, values, strict=True) if value == 0.0]
        slots = [slot for slot, value in zip(slots, values, strict=True) if value != 0.0] + zeros
        values = [value for value in values if value != 0.0]
    packed = array("I", slots).tobytes()
    if last is not None and last.slots == packed:
        packed = last.slots
    return Column(packed, array("f", values).tobytes())


def _busy(view: View) -> bytes:
    """Of each CPU that is in both snapshots' /proc/stat, when they have the same CPUs."""
    now, before, dt_s = view.snapshot.node.cpus, view.node_before, view.dt_s
    old = None if before is None else before.cpus
    if now is None or old is None or dt_s is None or len(now) != len(old):
        return b""
    return bytes(_shares(zip(now, old, strict=True), 255.0 / (dt_s * 1e6)))


def _shares(rows: Iterable[tuple[CpuTimes, CpuTimes]], scale: float) -> Iterable[int]:
    return (max(0, min(255, int((new.busy_us - old.busy_us) * scale))) for new, old in rows)
