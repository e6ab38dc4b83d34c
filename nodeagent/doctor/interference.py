"""What tells on this node that an online pod is slowed by its neighbours, resource by resource."""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.doctor.finding import Check, Finding, Host, Status
from nodeagent.kernel import probe
from nodeagent.model.symptom import Channel, Sign

# where the kernel does not tell, what stands in and what to do
MISSING = {
    Sign.CPU_STALL: "cgroup v2 has it (psi=1); run-queue delay of the pod's threads stands in",
    Sign.RUN_DELAY: "needs CONFIG_SCHED_INFO; PSI is the better sign anyway",
    Sign.MEMORY_STALL: "cgroup v2 has it (psi=1)",
    Sign.REFAULTS: "needs workingset_refault in memory.stat (Linux 4.20, memory controller)",
    Sign.DIRECT_RECLAIM: "cgroup v2 has pgscan_direct in memory.stat",
    Sign.IO_STALL: "cgroup v2 has it (psi=1)",
    Sign.IO_AWAIT: "needs /proc/diskstats and the io or blkio controller",
    Sign.RETRANSMITS: "needs /proc/PID/net/snmp",
    Sign.LISTEN_DROPS: "needs /proc/PID/net/netstat",
    Sign.CPI: "needs a PMU that may be read; CPU time per request stands in where an application tells it",
    Sign.MPKI: "needs a PMU that may be read",
    Sign.LLC_OCCUPANCY: "needs resctrl with monitoring, mounted",
    Sign.MEMORY_BANDWIDTH: "needs resctrl with monitoring, mounted",
}
TITLE = {
    Channel.CPU: "signs: CPU",
    Channel.MEMORY: "signs: memory",
    Channel.IO: "signs: I/O",
    Channel.NET: "signs: network",
    Channel.LLC: "signs: cache",
}


def signs(host: Host) -> Iterator[Finding]:
    """For each resource what is measured of a pod here, and what is not."""
    if not host.config.policy.interference.detect:
        yield Finding("signs", Status.INFO, "not looked for: interference.detect is false")
        return
    for channel, there in _supported(host).items():
        has = [sign.value for sign, good in there.items() if good]
        lacks = [sign for sign, good in there.items() if not good]
        found = ", ".join(has) or "none"
        if lacks:
            found += f"; not {', '.join(sign.value for sign in lacks)}"
        fix = "" if not lacks else f"{lacks[0].value}: {MISSING.get(lacks[0], 'not here')}"
        worst = Status.WARN if not has and channel is Channel.CPU else Status.INFO
        yield Finding(TITLE[channel], worst if lacks else Status.OK, found, fix)


def _supported(host: Host) -> dict[Channel, dict[Sign, bool]]:
    unified = host.cgroups.unified if host.cgroups else None

    def stalls(name: str) -> bool:
        return unified is not None and probe.has_cgroup_file(unified, f"{name}.pressure")

    pmu = probe.pmu_error() is None
    stat = _memory_stat(host)
    monitors = probe.text(host.root, "/sys/fs/resctrl/info/L3_MON/mon_features") or ""
    ticks = "cpu " in (probe.text(host.root, "/proc/stat") or "")
    return {
        Channel.CPU: {
            Sign.CPU_STALL: stalls("cpu"),
            Sign.RUN_DELAY: bool(probe.text(host.root, "/proc/1/schedstat")),
            Sign.THROTTLED: "cpu" in (host.cgroups.roots if host.cgroups else {}),
            Sign.STEAL: ticks,
        },
        Channel.MEMORY: {
            Sign.MEMORY_STALL: stalls("memory"),
            Sign.REFAULTS: "workingset_refault" in stat,
            Sign.DIRECT_RECLAIM: "pgscan_direct" in stat,
        },
        Channel.IO: {Sign.IO_STALL: stalls("io"), Sign.IO_AWAIT: _disks(host)},
        Channel.NET: {
            Sign.RETRANSMITS: "Tcp:" in (probe.text(host.root, "/proc/1/net/snmp") or ""),
            Sign.LISTEN_DROPS: "TcpExt:" in (probe.text(host.root, "/proc/1/net/netstat") or ""),
            Sign.SOFTIRQ: ticks,
        },
        Channel.LLC: {
            Sign.CPI: pmu,
            Sign.MPKI: pmu,
            Sign.LLC_OCCUPANCY: "llc_occupancy" in monitors,
            Sign.MEMORY_BANDWIDTH: "mbm_total_bytes" in monitors,
        },
    }


def _memory_stat(host: Host) -> str:
    hierarchy = host.cgroups.roots.get("memory") if host.cgroups else None
    return "" if hierarchy is None else probe.text("/", f"{hierarchy.root}/memory.stat") or ""


def _disks(host: Host) -> bool:
    roots = host.cgroups.roots if host.cgroups else {}
    return bool(probe.text(host.root, "/proc/diskstats")) and not {"io", "blkio"}.isdisjoint(roots)


INTERFERENCE: tuple[Check, ...] = (signs,)
