"""What was seen on the node in one tick. Counters are raw and cumulative; None = not known this tick.

These are msgspec Structs: six times cheaper to build than frozen dataclasses, which counts with
hundreds of pods a tick, and the journal's codec at the same time.
"""

from __future__ import annotations

from msgspec import Struct

from nodeagent.model.directive import DirectiveStatus, Refusal
from nodeagent.model.foreign import Foreign
from nodeagent.model.kubernetes import PodList
from nodeagent.model.nic import NicsSeen
from nodeagent.model.pages import PagesMoving
from nodeagent.model.plan import Knob, KnobReading
from nodeagent.model.pod import PodSpec
from nodeagent.model.settings import Actuator, Mode
from nodeagent.model.symptom import AppReading, Disk, Symptoms
from nodeagent.model.topology import Topology


class Stall(Struct, frozen=True, array_like=True, gc=False):
    """PSI totals in us (Linux Documentation/accounting/psi.rst); `full_us` is None where not given."""

    some_us: int
    full_us: int | None = None


class MemoryEvents(Struct, frozen=True, array_like=True, gc=False):
    """memory.events of v2; on v1 `max` is memory.failcnt and `oom_kill` is from memory.oom_control."""

    low: int | None = None
    high: int | None = None
    max: int | None = None
    oom: int | None = None
    oom_kill: int | None = None


class Reading(Struct, frozen=True, array_like=True, gc=False):
    """One cgroup. The first group is read every tick, the second in the slow tier (`slow_at`)."""

    cpu_us: int | None = None
    periods: int | None = None
    throttled_periods: int | None = None
    throttled_us: int | None = None
    cpu_stall: Stall | None = None
    memory_bytes: int | None = None
    run_delay_us: int | None = None  # sum over all threads; only read where PSI is unsupported

    slow_at: float | None = None  # monotonic seconds
    inactive_file_bytes: int | None = None
    anon_bytes: int | None = None
    file_bytes: int | None = None
    memory_events: MemoryEvents | None = None
    memory_stall: Stall | None = None
    io_stall: Stall | None = None
    pids: int | None = None
    pages_by_node: tuple[tuple[int, int], ...] | None = None  # (NUMA node, bytes) of anon and file pages

    @property
    def working_set_bytes(self) -> int | None:
        """usage - inactive_file, never below 0 (what kubelet and cAdvisor call working set)."""
        if self.memory_bytes is None or self.inactive_file_bytes is None:
            return None
        return max(0, self.memory_bytes - self.inactive_file_bytes)


class Container(Struct, frozen=True, array_like=True, gc=False):
    """A cgroup inside a pod's cgroup. `name` has the runtime's prefix and suffix removed."""

    name: str
    cgroup: str
    inode: int
    reading: Reading


class Pod(Struct, frozen=True, gc=False):
    """`unsupported` names readings this pod can never give here: "cpu_stall", "memory_stall", "io_stall",
    "memory" (it is in no memory hierarchy), and signs ("cpi"). `app` is what its application tells, None
    where nobody asks it."""

    spec: PodSpec
    reading: Reading
    containers: tuple[Container, ...] = ()
    unsupported: tuple[str, ...] = ()
    symptoms: Symptoms | None = None
    app: AppReading | None = None


class CpuTimes(Struct, frozen=True, array_like=True, gc=False):
    """One row of /proc/stat in us; `user_us` includes guest time, as in the kernel."""

    cpu: int
    user_us: int
    nice_us: int
    system_us: int
    idle_us: int
    iowait_us: int
    irq_us: int
    softirq_us: int
    steal_us: int

    @property
    def busy_us(self) -> int:
        return self.user_us + self.nice_us + self.system_us + self.irq_us + self.softirq_us


class NodeMemory(Struct, frozen=True, array_like=True, gc=False):
    """/proc/meminfo, or one NUMA node's meminfo (`numa_node`, which has no `available_bytes`)."""

    total_bytes: int
    free_bytes: int
    available_bytes: int | None = None
    inactive_file_bytes: int | None = None
    reclaimable_bytes: int | None = None
    numa_node: int | None = None


class Load(Struct, frozen=True, array_like=True, gc=False):
    """/proc/loadavg: run-queue averages over 1, 5 and 15 minutes, runnable and all tasks."""

    load1: float
    load5: float
    load15: float
    runnable: int
    tasks: int


class Node(Struct, frozen=True, gc=False):
    """Node-wide readings. `watermark_bytes` = sum of the zones' high watermarks (/proc/zoneinfo)."""

    cpus: tuple[CpuTimes, ...] | None = None
    memory: NodeMemory | None = None
    numa_memory: tuple[NodeMemory, ...] = ()
    watermark_bytes: int | None = None
    cpu_stall: Stall | None = None
    memory_stall: Stall | None = None
    io_stall: Stall | None = None
    load: Load | None = None
    disks: tuple[Disk, ...] | None = None


class Stalled(Struct, frozen=True, array_like=True, gc=False):
    """An LS pod (uid) that waited `waited_s` of the last `span_s` for CPU, own throttling taken off."""

    uid: str
    span_s: float
    waited_s: float


class Snapshot(Struct, frozen=True, gc=False, kw_only=True):
    """One tick's input. `at` is CLOCK_MONOTONIC, `unix` is CLOCK_REALTIME, both in seconds, read once.

    `tiers` are the cgroups that bound Batch pods together and exist now, even without a pod in them.
    `knobs` holds every knob that the agent may set or has set, each tick anew. `moving` tells how far the
    moves of the last decision have come. `misses` counts readings that failed in this tick by kind
    ("garbled", "gone", "refused"). `woken_by` tells what started the tick: "timer", "pressure" or "use" (the
    fast lane), "psi", "cgroup", "signal" or "directive". `stalled` are the LS pods that just now, as the fast
    lane saw it, waited too long, `outside_cores` what was used outside Batch; none where it is off or blind.
    `foreign` is looked at only where pods are placed. `defragment`: an operator asks, once, that bound pods
    be moved together. `nics` is None where no traffic is shaped, `pod_list` where nobody is asked for
    Kubernetes' pods. `directives` are those in force and those that ended since the last tick, `refused`
    those not taken since. `mode` and `enforce` are the configured ones, None where not told. `absent` are
    knobs that the last decision's restraints want and this node has not, or not of that pod.
    """

    seq: int
    at: float
    unix: float
    boot_id: str
    topology: Topology
    node: Node
    pods: tuple[Pod, ...]
    tiers: tuple[str, ...] = ()
    knobs: tuple[KnobReading, ...] = ()
    moving: tuple[PagesMoving, ...] = ()
    misses: dict[str, int] = {}
    woken_by: str = "timer"
    foreign: Foreign = Foreign()
    defragment: bool = False
    nics: NicsSeen | None = None
    pod_list: PodList | None = None
    directives: tuple[DirectiveStatus, ...] = ()
    refused: tuple[Refusal, ...] = ()
    mode: Mode | None = None
    enforce: tuple[Actuator, ...] | None = None
    absent: tuple[Knob, ...] = ()
    stalled: tuple[Stalled, ...] = ()
    outside_cores: float | None = None
