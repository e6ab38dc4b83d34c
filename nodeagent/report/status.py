"""The node in one line, as `systemctl status` shows it.

    enforcing cpu; offers 5.3 of 8 cores, 11 GiB; 14 pods (6 LS, 5 MID, 3 BATCH); no pressure

Invariant: figures are as coarse as they are of use to people, so that the line does not change all the time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from nodeagent.model.decision import Tick
from nodeagent.model.interference_told import antagonists, named
from nodeagent.model.pod import Qos
from nodeagent.model.settings import Actuator, Mode
from nodeagent.model.units import format_bytes

MOST_NAMES = 3
PRESSURE = "ls-cpu-pressure"  # core.limit.LS_PRESSURE


def status_line(tick: Tick, acting: Collection[Actuator]) -> str:
    """`acting`: what may be written by the configuration, empty where nothing may."""
    doing = f"enforcing {', '.join(sorted(acting))}" if acting else "observing"
    if acting and tick.decision.mode is Mode.OBSERVE:
        doing = "observing, as directed"
    parts = (doing, _offer(tick), _pods(tick), _pressure(tick), *_interference(tick))
    return "; ".join(parts)


def _offer(tick: Tick) -> str:
    capacity = tick.decision.capacity
    if capacity.withdrawn:
        return f"offers nothing: {capacity.withdrawn}"
    cores = f"{_few(capacity.cpu.available)} of {tick.snapshot.topology.cores} cores"
    return f"offers {cores}, {_coarse(capacity.memory.available)}"


def _pods(tick: Tick) -> str:
    count = Counter(pod.spec.qos for pod in tick.snapshot.pods)
    each = ", ".join(f"{count[qos]} {qos.value.upper()}" for qos in Qos)
    total = count.total()
    return f"{total} pod{'' if total == 1 else 's'} ({each})" if total else "no pods"


def _pressure(tick: Tick) -> str:
    hurt = [s.subject for s in tick.decision.signals if s.name == PRESSURE]
    if not hurt:
        return "no pressure"
    names = {pod.spec.uid: pod.spec.name for pod in tick.snapshot.pods}
    found = [names.get(uid, uid) for uid in hurt]
    more = f" and {len(found) - MOST_NAMES} more" if len(found) > MOST_NAMES else ""
    return f"pressure on {', '.join(sorted(found)[:MOST_NAMES])}{more}"


def _interference(tick: Tick) -> Iterator[str]:
    """Who is slowed, and by whom as far as that is known."""
    found = [e for e in tick.decision.interference.episodes if e.cleared_unix is None]
    told = []
    for each in found[:MOST_NAMES]:
        who = named(each, antagonists(each))
        told.append(f"{each.victim_name} by {who}" if who else each.victim_name)
    more = f" and {len(found) - MOST_NAMES} more" if len(found) > MOST_NAMES else ""
    if told:
        yield f"slowed: {', '.join(told)}{more}"


def _few(cores: float) -> str:
    return f"{cores:.1f}" if cores < 10 else f"{cores:.0f}"


def _coarse(size: float) -> str:
    """Two digits or three: 512 MiB, 3.4 GiB, 11 GiB, 182 GiB."""
    number, _, unit = format_bytes(size).partition(" ")
    return f"{float(number):.0f} {unit}" if float(number) >= 10 else f"{number} {unit}"
