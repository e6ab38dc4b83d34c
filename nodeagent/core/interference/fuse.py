"""From the alarms of one pod to one state: independent channels, each with a weight, are evidence together.

    e_c = max(S / h) in [0, 1.5]      E = 1 - prod(1 - w_c * min(1, e_c))

Suspect from E = 0.5, confirmed from E = 0.8 or when one channel is at its limit in two samples in a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nodeagent.core.interference.cusum import LISTED, MOST
from nodeagent.core.interference.signs import RULES, WEIGHTS
from nodeagent.model.interference import Alarm, Gate, Rejection, State, Verdict
from nodeagent.model.senses import Feeling
from nodeagent.model.symptom import Channel, Sign

SUSPECT, CONFIRMED = 0.5, 0.8
TWICE = 2
_SHARES = frozenset({Sign.CPU_STALL, Sign.MEMORY_STALL, Sign.IO_STALL})  # of wall time


def alarm_of(sign: Sign, feeling: Feeling) -> Alarm:
    """The feeling as it is told."""
    return Alarm(sign.value, RULES[sign].channel, feeling.value, feeling.median, feeling.z, feeling.cusum)


def fused(
    uid: str,
    feelings: Mapping[Sign, Feeling],
    rejections: Mapping[Sign, Rejection],
    h: float,
    known: bool,
) -> Verdict:
    """The verdict. Without `known` (what tells of the pod's wait is missing) it is never calm."""
    capped = {sign for sign, found in rejections.items() if found.gate is Gate.HEALTHY}
    counted = {s: f for s, f in feelings.items() if s not in rejections or s in capped}
    strength = _by_channel(counted, h)
    left = 1.0
    for channel, e in strength.items():
        left *= 1.0 - WEIGHTS[channel] * min(1.0, e)
    evidence = 1.0 - left
    told = tuple(rejections[s] for s in feelings if s in rejections and feelings[s].opened is not None)
    state = _state(evidence, counted.values(), bool(capped))
    if state is State.CALM:
        return Verdict(uid, State.CALM if known else State.UNKNOWN, evidence, None, (), told)
    worth = [s for s, f in counted.items() if f.cusum >= LISTED or f.opened is not None]
    worth.sort(key=lambda sign: _rank(sign, counted[sign]))
    alarms = tuple(alarm_of(sign, counted[sign]) for sign in worth)
    return Verdict(uid, state, evidence, _blamed(strength, counted), alarms, told)


def _by_channel(feelings: Mapping[Sign, Feeling], h: float) -> dict[Channel, float]:
    found: dict[Channel, float] = {}
    for sign, feeling in feelings.items():
        channel = RULES[sign].channel
        found[channel] = max(found.get(channel, 0.0), min(MOST, feeling.cusum / h))
    return found


def _state(evidence: float, feelings: Iterable[Feeling], capped: bool) -> State:
    sure = evidence >= CONFIRMED - 1e-9 or any(feeling.over >= TWICE for feeling in feelings)
    if sure and not capped:
        return State.CONFIRMED
    return State.SUSPECT if sure or evidence >= SUSPECT else State.CALM


def _rank(sign: Sign, feeling: Feeling) -> tuple[float, float, float]:
    return (-feeling.cusum, -feeling.z, -WEIGHTS[RULES[sign].channel])


def _blamed(strength: Mapping[Channel, float], feelings: Mapping[Sign, Feeling]) -> Channel:
    """The strongest channel that tells why; that the application is slow tells only that it is.

    Sums have an upper end: of two that are there, the one that took more of the time. Pages that were evicted
    and come back are read from a device: then the wait for that is memory's doing.
    """
    causes = {channel: e for channel, e in strength.items() if channel is not Channel.APP and e >= 0.5}
    if Sign.REFAULTS in feelings and feelings[Sign.REFAULTS].opened is not None and Channel.MEMORY in causes:
        causes.pop(Channel.IO, None)
    chosen = causes or strength
    taken: dict[Channel, float] = {}
    for sign, feeling in feelings.items():
        if sign in _SHARES:
            channel = RULES[sign].channel
            taken[channel] = max(taken.get(channel, 0.0), feeling.worst - (feeling.median or 0.0))
    return max(chosen, key=lambda c: (chosen[c], taken.get(c, 0.0), WEIGHTS[c]))
