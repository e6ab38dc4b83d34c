"""The machine: kernel, topology, performance counters, cache control."""

from __future__ import annotations

import os
from collections.abc import Iterator

from nodeagent.doctor.finding import Check, Finding, Host, Status, judged
from nodeagent.kernel import probe
from nodeagent.model.cpuset import CpuSet


def kernel(host: Host) -> Iterator[Finding]:
    """Release and architecture; what it can do is asked below, never derived from the release."""
    name = os.uname()
    yield judged(
        "kernel",
        name.sysname == "Linux",
        f"{name.sysname} {name.release} {name.machine}",
        "needs Linux",
        Status.FAIL,
    )


def topology(host: Host) -> Iterator[Finding]:
    """NUMA nodes and SMT."""
    cpus = _count(host, "/sys/devices/system/cpu/online")
    nodes = _count(host, "/sys/devices/system/node/online")
    smt = probe.number(host.root, "/sys/devices/system/cpu/smt/active")
    threads = {None: "SMT not told", 0: "no SMT"}.get(smt, "SMT")
    yield judged(
        "topology",
        cpus is not None,
        f"{cpus} CPUs, {nodes or 'no'} NUMA node{'' if nodes == 1 else 's'}, {threads}",
        "mount the host's /sys (in a container: below --host-root)",
    )


def counters(host: Host) -> Iterator[Finding]:
    """Can cycles and instructions be counted?"""
    error = probe.pmu_error()
    yield judged(
        "PMU",
        error is None,
        "cycle counter can be opened" if error is None else f"no cycle counter: {error}",
        "in a virtual machine let the host expose it; else CAP_PERFMON (systemd: nodeagent-pmu.conf)",
        Status.INFO,
    )


def cache_control(host: Host) -> Iterator[Finding]:
    """resctrl: shares of the last-level cache and of memory bandwidth."""
    known = "resctrl" in (probe.text(host.root, "/proc/filesystems") or "").split()
    mounted = probe.text(host.root, "/sys/fs/resctrl/schemata") is not None
    found = (
        "mounted" if mounted else "supported, not mounted" if known else "not supported by this CPU or kernel"
    )
    fix = "mount -t resctrl resctrl /sys/fs/resctrl" if known else ""
    yield Finding("resctrl", Status.OK if mounted else Status.INFO, found, "" if mounted else fix)


def _count(host: Host, path: str) -> int | None:
    try:
        return len(CpuSet.parse(probe.text(host.root, path) or "")) or None
    except ValueError:
        return None


MACHINE: tuple[Check, ...] = (kernel, topology, counters, cache_control)
