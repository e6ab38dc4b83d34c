"""`run` on a terminal: one refreshed screen with the node, the pods by class, and the last actions."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nodeagent.model.decision import Tick
from nodeagent.model.directive import State
from nodeagent.model.interference_told import story
from nodeagent.model.placement import Placement
from nodeagent.model.plan import Kind, Knob, Value
from nodeagent.model.pod import Qos
from nodeagent.model.snapshot import Pod, Stall
from nodeagent.model.units import format_bytes, format_duration
from nodeagent.report.event import Event
from nodeagent.report.events import events
from nodeagent.report.nic_lines import nic_lines

ACTIONS = 8
STORIES = 3
COLOUR = {Qos.LS: "green", Qos.MID: "cyan", Qos.BATCH: "yellow"}


class Screen:
    """Give each tick to `show`; `close` leaves the last picture on the terminal."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._actions: deque[Text] = deque(maxlen=ACTIONS)
        self._before: Tick | None = None
        self._live = Live(console=Console(stderr=False), auto_refresh=False, transient=False)
        self._live.start()

    def show(self, tick: Tick, duration_s: float) -> None:
        """Draw one tick."""
        for event in events(self._before, tick):
            if event.level != "debug" or event.name == "batch.limit":
                self._actions.append(_line(tick, event))
        parts: tuple[RenderableType, ...] = (
            _node_line(self._title, tick, duration_s),
            *map(Text, _directives(tick)),
            *(Text(line, style="red") for line in _interference(tick)),
            _pods(self._before, tick),
            *map(Text, nic_lines(tick)),
            *self._actions,
        )
        self._live.update(Group(*parts), refresh=True)
        self._before = tick

    def close(self) -> None:
        """Stop refreshing."""
        self._live.stop()


def _node_line(title: str, tick: Tick, duration_s: float) -> Text:
    capacity, node = tick.decision.capacity, tick.snapshot.node
    limit = tick.decision.batch_limit_cores
    load = f"{node.load.load1:.2f}" if node.load else "?"
    offered = f"offered {capacity.cpu.available:.2f} cores, {format_bytes(capacity.memory.available)}"
    if capacity.withdrawn:
        offered = f"nothing offered: {capacity.withdrawn}"
    batch = "not limited yet" if limit is None else f"{limit:.2f} cores ({tick.decision.limit_why})"
    return Text(
        f"{title}  {tick.snapshot.topology.cores} CPUs  load {load}  {offered}\n"
        f"Batch may use {batch}  |  lent {capacity.lent.used_core_s / 3600:.2f} core-hours"
        f"  |  tick {duration_s * 1000:.1f} ms",
        style="bold",
    )


def _directives(tick: Tick) -> Iterator[str]:
    """A line for each that is in force."""
    for status in tick.snapshot.directives:
        if status.state is State.IN_FORCE:
            of, left = status.directive, format_duration(status.ends_unix - tick.snapshot.unix)
            yield f"directive {of.id} of {status.issuer}: {of.kind}, {left} left  {of.reason}".rstrip()


def _interference(tick: Tick) -> Iterator[str]:
    """A line for each that is slowed."""
    found = [e for e in tick.decision.interference.episodes if e.cleared_unix is None]
    yield from map(story, found[:STORIES])
    if len(found) > STORIES:
        yield f"... and {len(found) - STORIES} more are slowed: nodeagent interference"


def _pods(before: Tick | None, tick: Tick) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("class", "pod"):
        table.add_column(name)
    for name in ("cores", "waits for CPU", "throttled", "working set", "quota"):
        table.add_column(name, justify="right")
    table.add_column("CPUs")
    old = {(p.spec.uid, p.spec.inode): p for p in before.snapshot.pods} if before else {}
    dt_s = tick.snapshot.at - before.snapshot.at if before else 0.0
    wanted = {s.knob: s.value for s in tick.decision.plan}
    remarks = _remarks(tick.decision.placement)
    for pod in sorted(tick.snapshot.pods, key=lambda p: (list(Qos).index(p.spec.qos), p.spec.name)):
        *row, cpus = _row(pod, old.get((pod.spec.uid, pod.spec.inode)), dt_s, wanted)
        row.append(f"{cpus} {remarks.get(pod.spec.uid, '')}".strip())
        table.add_row(*map(Text, row), style=COLOUR[pod.spec.qos])  # Text: a name is no rich markup
    if not tick.snapshot.pods:
        table.add_row("-", "no pods yet: nodeagent exec --qos batch -- COMMAND")
    return table


def _remarks(found: Placement | None) -> dict[str, str]:
    """By uid, what a pod's CPUs do not tell; the reason is in its record and in an event."""
    if found is None:
        return {}
    unplaced, alone = dict(found.unplaced), dict(found.left_alone)
    return dict.fromkeys(unplaced, "not bound") | dict.fromkeys(alone, "left alone")


def _row(pod: Pod, old: Pod | None, dt_s: float, wanted: dict[Knob, Value]) -> tuple[str, ...]:
    now, was = pod.reading, old.reading if old else None
    size = now.working_set_bytes
    quota = wanted.get(Knob(Kind.CPU_QUOTA, pod.spec.cgroup), "")
    return (
        pod.spec.qos.value,
        pod.spec.name,
        _rate(was.cpu_us if was else None, now.cpu_us, dt_s, "{:.2f}"),
        _rate(_some(was.cpu_stall if was else None), _some(now.cpu_stall), dt_s, "{:.0%}"),
        _rate(was.throttled_us if was else None, now.throttled_us, dt_s, "{:.0%}"),
        "?" if size is None else format_bytes(size),
        quota if isinstance(quota, str) else "none" if math.isinf(quota) else f"{quota:.2f}",
        str(wanted.get(Knob(Kind.CPUS, pod.spec.cgroup), "")),
    )


def _some(stall: Stall | None) -> int | None:
    return None if stall is None else stall.some_us


def _rate(old: int | None, new: int | None, dt_s: float, form: str) -> str:
    if old is None or new is None or new < old or dt_s <= 0.0:
        return "?"
    return form.format((new - old) / (dt_s * 1e6))


def _line(tick: Tick, event: Event) -> Text:
    clock = time.strftime("%H:%M:%S", time.localtime(tick.snapshot.unix))
    keys = "  ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in event.keys.items())
    return Text(f"{clock} {event.name}  {keys}", style="red" if event.level == "warning" else "dim")
