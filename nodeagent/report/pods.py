"""The series per pod: one template per family, one line in it per pod, filled by a single `%`.

Templates are built when the set of pods changes. Only a column with holes (readings that are None) is put
together line by line. Invariant: no two series alike, no series for what is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from nodeagent.model.cpuset import size
from nodeagent.model.decision import Tick
from nodeagent.model.plan import Kind, Knob, listed, numeric
from nodeagent.model.pod import PodSpec, Qos
from nodeagent.model.snapshot import MemoryEvents, Pod, Reading, Stall
from nodeagent.report.text import escape, header, number, printable

MAX_COUNTER = 2**64  # what the kernel can count to; above it a reading is garbage
SHOWN_FIRST = (Qos.LS, Qos.MID, Qos.BATCH)

Value = int | float | str
Column = list[Value | None]


class PodFamily(NamedTuple):
    """One metric of pods: values are divided by `scale`, if it is not 0, and printed by `form`."""

    name: str
    kind: str
    help: str
    form: str = "%d"
    scale: float = 0.0


Pick = Callable[[Reading], int | None]


def _seconds(name: str, text: str, pick: Pick) -> tuple[PodFamily, Pick]:
    return PodFamily(f"nodeagent_pod_{name}_seconds_total", "counter", text, "%.6f", 1e6), pick


def _count(name: str, text: str, pick: Pick) -> tuple[PodFamily, Pick]:
    return PodFamily(f"nodeagent_pod_{name}_total", "counter", text), pick


def _level(name: str, text: str, pick: Pick) -> tuple[PodFamily, Pick]:
    return PodFamily(f"nodeagent_pod_{name}", "gauge", text), pick


def _some(stall: Stall | None) -> int | None:
    return None if stall is None else stall.some_us


def _full(stall: Stall | None) -> int | None:
    return None if stall is None else stall.full_us


def _oom_kills(events: MemoryEvents | None) -> int | None:
    return None if events is None else events.oom_kill


# "waiting" is PSI's some, "stalled" its full, as in node_exporter and cAdvisor. Run-queue delay is not here:
# it is summed over the threads that live now and falls when one ends, which a counter must not do.
READ = (
    _seconds("cpu_usage", "CPU time used", lambda r: r.cpu_us),
    _seconds("cpu_throttled", "Time throttled by its CPU quota", lambda r: r.throttled_us),
    _count("cpu_periods", "CPU quota periods in which it ran", lambda r: r.periods),
    _count("cpu_throttled_periods", "CPU quota periods with throttling", lambda r: r.throttled_periods),
    _seconds("pressure_cpu_waiting", "Time some task waited for CPU", lambda r: _some(r.cpu_stall)),
    _seconds("pressure_cpu_stalled", "Time all tasks waited for CPU", lambda r: _full(r.cpu_stall)),
    _seconds("pressure_memory_waiting", "Time some task waited for memory", lambda r: _some(r.memory_stall)),
    _seconds("pressure_memory_stalled", "Time all tasks waited for memory", lambda r: _full(r.memory_stall)),
    _seconds("pressure_io_waiting", "Time some task waited for I/O", lambda r: _some(r.io_stall)),
    _seconds("pressure_io_stalled", "Time all tasks waited for I/O", lambda r: _full(r.io_stall)),
    _level("memory_usage_bytes", "Memory charged", lambda r: r.memory_bytes),
    _level("memory_working_set_bytes", "Memory less inactive file pages", lambda r: r.working_set_bytes),
    _level("memory_anon_bytes", "Anonymous memory", lambda r: r.anon_bytes),
    _level("memory_file_bytes", "Page cache", lambda r: r.file_bytes),
    _count("memory_oom_kills", "Processes killed for lack of memory", lambda r: _oom_kills(r.memory_events)),
    _level("pids", "Tasks", lambda r: r.pids),
)
TARGET = PodFamily(
    "nodeagent_pod_cpu_quota_target_cores", "gauge", "CPU quota that the agent wants, +Inf for none", "%s"
)
APPLIED = PodFamily(
    "nodeagent_pod_cpu_quota_applied_cores", "gauge", "CPU quota found on the pod, +Inf for none", "%s"
)
CPUS = PodFamily(
    "nodeagent_pod_cpuset_cpus", "gauge", "CPUs that its tasks may run on, where the agent looks", "%s"
)
FAMILIES = len(READ) + 3


class PodPage:
    """The text of all pod families; keeps the templates for the last set of pods."""

    def __init__(self) -> None:
        self._specs: list[PodSpec] = []
        self._labels: list[str] = []
        self._templates: dict[str, str] = {}

    def render(self, tick: Tick, max_series: int) -> tuple[str, int]:
        """The text, and how many series are left out for `max_series` (those of whole pods, Batch first)."""
        pods, rest = _within(tick.snapshot.pods, max(0, max_series) // FAMILIES)
        specs = [pod.spec for pod in pods]
        if specs != self._specs:
            self._specs, self._labels = specs, pod_labels(specs)
            self._templates.clear()
        text = [self._text(family, column) for family, column in _columns(tick, pods)]
        return "".join(text), sum(len(column) - column.count(None) for _, column in _columns(tick, rest))

    def _text(self, family: PodFamily, column: Column) -> str:
        values = [value for value in column if value is not None]
        if len(values) < len(column):
            return self._with_holes(family, column)
        try:
            scaled = [float(value) / family.scale for value in values] if family.scale else values
            return self._template(family) % tuple(scaled)
        except OverflowError:  # an integer beyond every float: garbage
            return self._with_holes(family, column)

    def _with_holes(self, family: PodFamily, column: Column) -> str:
        lines = [
            f"{family.name}{label} {_print(family, value)}\n"
            for label, value in zip(self._labels, column, strict=True)
            if value is not None and not (isinstance(value, int) and value > MAX_COUNTER)
        ]
        return "".join([header(family.name, family.kind, family.help), *lines]) if lines else ""

    def _template(self, family: PodFamily) -> str:
        if family.name not in self._templates:
            lines = [f"{family.name}{label.replace('%', '%%')} {family.form}\n" for label in self._labels]
            head = header(family.name, family.kind, family.help)
            self._templates[family.name] = "".join([head, *lines]) if lines else ""
        return self._templates[family.name]


def pod_labels(specs: Sequence[PodSpec]) -> list[str]:
    """Labels per pod; of pods with one name all but the first by uid become "name~2", "name~3" ..."""
    labels: dict[int, str] = {}
    used: set[str] = set()
    for place in sorted(range(len(specs)), key=lambda index: (specs[index].uid, specs[index].inode)):
        name = base = printable(specs[place].name)
        again = 2
        while name in used:
            name, again = f"{base}~{again}", again + 1
        used.add(name)
        labels[place] = f'{{pod="{escape(name)}",qos="{specs[place].qos.value}"}}'
    return [labels[place] for place in range(len(specs))]


def _within(pods: Sequence[Pod], limit: int) -> tuple[Sequence[Pod], Sequence[Pod]]:
    if len(pods) <= limit:
        return pods, ()
    ranked = sorted(pods, key=lambda pod: (SHOWN_FIRST.index(pod.spec.qos), pod.spec.name))
    return ranked[:limit], ranked[limit:]


def _columns(tick: Tick, pods: Sequence[Pod]) -> Iterable[tuple[PodFamily, Column]]:
    if not pods:
        return
    readings = [pod.reading for pod in pods]
    for family, pick in READ:
        yield family, list(map(pick, readings))
    target = {s.knob.target: numeric(s.value) for s in tick.decision.plan if s.knob.kind is Kind.CPU_QUOTA}
    found = _found(tick)
    applied = {knob.target: numeric(v) for knob, v in found.items() if knob.kind is Kind.CPU_QUOTA}
    cpus = {knob.target: float(size(listed(v))) for knob, v in found.items() if knob.kind is Kind.CPUS and v}
    for family, values in ((TARGET, target), (APPLIED, applied), (CPUS, cpus)):
        yield family, [number(values[path]) if (path := pod.spec.cgroup) in values else None for pod in pods]


def _found(tick: Tick) -> dict[Knob, Value]:
    """Quotas in cores and the CPUs that really hold: as in the snapshot, or as read back after a write."""
    found = {each.knob: each.effective or each.actual for each in tick.snapshot.knobs}
    written = {each.change.knob: each.found for each in tick.outcomes if each.found is not None}
    return found | written


def _print(family: PodFamily, value: Value) -> str:
    return family.form % (float(value) / family.scale if family.scale else value)
