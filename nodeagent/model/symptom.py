"""What tells of trouble in one pod, as kernel and application give it: raw, cumulative, None = unknown.

`Pod.unsupported` names what can never be known here, by the words of `Sign` ("cpi", "net.retransmits").
"""

from __future__ import annotations

import enum

from msgspec import Struct


class Channel(enum.StrEnum):
    """The resource that pods contend for. APP: the application is slow, and nothing tells why."""

    CPU = "cpu"
    LLC = "llc"  # last-level cache, memory bandwidth, the other thread of a core
    MEMORY = "memory"
    IO = "io"
    NET = "net"
    APP = "app"


class Sign(enum.StrEnum):
    """What is measured of each online pod. Shares are of wall time, in [0, 1] where nothing else is said."""

    CPU_STALL = "cpu.stall"  # PSI some
    RUN_DELAY = "cpu.run_delay"  # threads' wait on a run queue / their time on a CPU; may exceed 1
    THROTTLED = "cpu.throttled"  # throttled periods / periods
    STEAL = "cpu.steal"  # of the CPUs that the pod may use
    SOFTIRQ = "cpu.softirq"  # of the CPUs that the pod may use
    MEMORY_STALL = "memory.stall"  # PSI some
    REFAULTS = "memory.refaults"  # pages/s that had been evicted lately
    DIRECT_RECLAIM = "memory.direct_reclaim"  # pages/s that the pod's own threads had to look through
    IO_STALL = "io.stall"  # PSI some
    IO_AWAIT = "io.await"  # seconds per request of the devices that the pod uses
    RETRANSMITS = "net.retransmits"  # TCP segments sent again / sent, in the pod's network namespace
    LISTEN_DROPS = "net.listen_drops"  # connections/s that a full queue refused
    CPI = "cpi"  # cycles per instruction
    MPKI = "mpki"  # last-level cache misses per 1000 instructions
    LLC_OCCUPANCY = "llc.bytes"
    MEMORY_BANDWIDTH = "memory.bandwidth"  # bytes/s
    CPU_PER_REQUEST = "app.cpu_per_request"  # seconds
    LATENCY = "app.latency"  # seconds, at the quantile of the SLO (0.99 without one)


class Pmu(Struct, frozen=True, array_like=True, gc=False):
    """Counts of perf events of a cgroup over the last counting window, corrected for multiplexing.

    The window ended at `at` (monotonic seconds) and lasted `window_s`; a pod is counted only now and then.
    """

    at: float
    window_s: float
    cycles: int
    instructions: int
    llc_misses: int | None = None


class Rdt(Struct, frozen=True, array_like=True, gc=False):
    """resctrl's monitors of a pod (Linux Documentation/filesystems/resctrl.rst), summed over L3 domains."""

    llc_bytes: int | None = None
    bandwidth_bytes: int | None = None  # cumulative, mbm_total_bytes
    local_bytes: int | None = None  # cumulative, mbm_local_bytes


class DeviceUse(Struct, frozen=True, array_like=True, gc=False):
    """What a cgroup has read from and written to one block device ("259:0"), cumulative.

    Where the kernel counts it by process alone, `device` is "" on a node with more than one and `operations`
    is 0: not known.
    """

    device: str
    bytes: int
    operations: int


class Symptoms(Struct, frozen=True, array_like=True, gc=False):
    """Counters of one pod as of `at` (monotonic seconds), which may be some seconds ago.

    `run_delay_us` and `run_us` are of the threads looked at, `looked_at_ratio` their share of all threads.
    `cpus` are those that it may use (kernel's list format), empty while not known.
    """

    at: float
    run_delay_us: int | None = None
    run_us: int | None = None
    looked_at_ratio: float = 1.0
    refaults: int | None = None  # pages
    direct_scans: int | None = None  # pages
    major_faults: int | None = None
    devices: tuple[DeviceUse, ...] | None = None
    tcp_out_segments: int | None = None
    tcp_retransmits: int | None = None
    listen_drops: int | None = None
    net_bytes: int | None = None  # of its own network namespace, both directions; None in the host's
    pmu: Pmu | None = None
    rdt: Rdt | None = None
    cpus: str = ""


class Disk(Struct, frozen=True, array_like=True, gc=False):
    """One whole block device of /proc/diskstats (Linux Documentation/admin-guide/iostats.rst), cumulative."""

    device: str  # "259:0"
    name: str
    operations: int  # completed reads and writes
    wait_us: int  # time that they took, summed
    busy_us: int  # time with at least one under way


class Slo(Struct, frozen=True, array_like=True, gc=False):
    """What an application promises: its latency at `quantile` is at most `bound_s`."""

    quantile: float
    bound_s: float


class AppReading(Struct, frozen=True, gc=False):
    """What an application tells of itself. Older than `stale_after_s`, or of too few requests: unknown.

    `at` (monotonic seconds) is when the newest part came, None while nothing came; `requests` is cumulative.
    `latency_s` are (quantile, seconds) over the `window_requests` requests of the last `window_s`. `error` is
    why nothing newer came.
    """

    source: str  # "prometheus", "grpc" or "statsd"
    at: float | None = None
    stale_after_s: float = 15.0
    requests: int | None = None
    window_s: float = 0.0
    window_requests: int = 0
    latency_s: tuple[tuple[float, float], ...] = ()
    slo: Slo | None = None
    error: str = ""
