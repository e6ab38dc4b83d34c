"""What the cgroup hierarchies offer: controllers, knobs, pressure, and whether they may be written."""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.doctor.finding import Check, Finding, Host, Status, judged
from nodeagent.kernel import probe
from nodeagent.model.interference import Rung
from nodeagent.model.pod import OWN_ROOT
from nodeagent.model.settings import Actuator, Mode

# controller, v1 file, v2 file, what it is for, what to do without
KNOBS = (
    (
        "cpu",
        "cpu.cfs_quota_us",
        "cpu.max",
        "CPU quota",
        "needs CONFIG_CFS_BANDWIDTH, on v2 +cpu in cgroup.subtree_control",
    ),
    (
        "cpu",
        "cpu.idle",
        "cpu.idle",
        "SCHED_IDLE for Batch",
        "needs Linux 5.15; Batch runs at the least weight",
    ),
    ("cpu", "cpu.cfs_burst_us", "cpu.max.burst", "CPU burst for LS", "needs Linux 5.14; not used without"),
    ("memory", "memory.stat", "memory.stat", "memory use", "without it memory is never offered to Batch"),
    ("memory", "memory.limit_in_bytes", "memory.max", "memory limit", "memory of Batch cannot be bounded"),
    (
        "memory",
        "memory.soft_limit_in_bytes",
        "memory.high",
        "memory bound that never kills",
        "a Batch pod that disturbs others keeps its memory",
    ),
    (
        "blkio",
        "blkio.bfq.weight",
        "",
        "IO weight",
        "needs CONFIG_BFQ_GROUP_IOSCHED; a Batch pod that disturbs others keeps its part of the disks",
    ),
    (
        "io",
        "",
        "io.weight",
        "IO weight",
        "needs CONFIG_BLK_CGROUP_IOCOST and +io in cgroup.subtree_control; disks are shared evenly",
    ),
)
NEEDED = {
    "cpu": "mount it: `mount -t cgroup -o cpu cgroup DIR`, or boot with systemd.unified_cgroup_hierarchy=1",
    "cpuacct": "v1 counts CPU use there: `mount -t cgroup -o cpuacct cgroup DIR`",
    "memory": "boot with cgroup_enable=memory, or mount it",
}


def hierarchies(host: Host) -> Iterator[Finding]:
    """Which controller is where."""
    cgroups = host.cgroups
    if cgroups is None:
        return
    yield Finding("cgroup mode", Status.OK, cgroups.mode)
    for hierarchy in cgroups.all:
        names = (
            ", ".join(sorted(hierarchy.controllers))
            or (hierarchy.name and f"name={hierarchy.name}")
            or "none"
        )
        yield Finding(f"cgroup v{hierarchy.version}", Status.OK, f"{hierarchy.root}: {names}")
    in_v2 = "cpu" in cgroups.roots and cgroups.roots["cpu"].version == 2
    for name, fix in NEEDED.items():
        if name not in cgroups.roots and not (name == "cpuacct" and in_v2):  # v2: cpu.stat has it
            yield Finding(f"controller {name}", Status.FAIL, "not mounted", fix)


def knobs(host: Host) -> Iterator[Finding]:
    """Files that only newer kernels have."""
    for controller, v1, v2, use, fix in KNOBS:
        hierarchy = host.cgroups.roots.get(controller) if host.cgroups else None
        if hierarchy is not None:
            name = v1 if hierarchy.version == 1 else v2
            there = probe.has_cgroup_file(hierarchy.root, name)
            yield judged(use, there, name if there else f"no {name}", fix)


def freezer(host: Host) -> Iterator[Finding]:
    """Whether Batch pods can be stopped for a moment, and whether all steps that are wanted may be taken."""
    cgroups = host.cgroups
    if cgroups is None:
        return
    v1 = cgroups.roots.get("freezer")
    v2 = cgroups.unified is not None and probe.has_cgroup_file(cgroups.unified, "cgroup.freeze")
    yield judged(
        "freezing",
        v2 or v1 is not None,
        f"cgroup.freeze below {cgroups.unified}"
        if v2
        else f"freezer.state below {v1.root}: what is frozen there cannot be killed"
        if v1
        else "neither cgroup.freeze nor freezer.state",
        "needs Linux 5.2 with cgroup v2, or the freezer controller of v1; that step is left out",
        Status.INFO,
    )
    agent, policy = host.config.settings.agent, host.config.policy.interference
    for rung, actuator in ((Rung.SHRINK, Actuator.MEMORY), (Rung.FREEZE, Actuator.FREEZE)):
        if policy.act and policy.top_rung >= rung and actuator not in agent.enforce:
            yield Finding(
                f"step {rung.name.lower()}",
                Status.INFO,
                f"interference.top_rung = {policy.top_rung} asks for it, but agent.enforce has no {actuator}",
                f'add "{actuator}" to agent.enforce, or lower interference.top_rung',
            )


def write_access(host: Host) -> Iterator[Finding]:
    """May this process make cgroups and set knobs where it would?"""
    enforces = host.config.settings.agent.mode is Mode.ENFORCE
    for controller in ("cpu", "memory"):
        hierarchy = host.cgroups.roots.get(controller) if host.cgroups else None
        if hierarchy is not None:
            good = probe.writable(hierarchy.root)
            yield judged(
                f"write {controller}",
                good,
                f"{hierarchy.root} is {'' if good else 'not '}writable (for {OWN_ROOT}/ and `scope`)",
                "run as root with cgroups mounted read-write, or only observe: --set agent.mode=observe",
                Status.FAIL if enforces and controller == "cpu" else Status.WARN,
            )


def pressure(host: Host) -> Iterator[Finding]:
    """PSI of the node and of single pods, and how fast it can wake the agent."""
    there = probe.text(host.root, "/proc/pressure/cpu") is not None
    yield judged(
        "PSI",
        there,
        "/proc/pressure/cpu" if there else "no /proc/pressure/cpu",
        "boot with psi=1 (Linux 4.20 or newer); until then run-queue delay stands in",
    )
    if not there:
        return
    window = probe.psi_window_us(host.root)
    yield judged(
        "PSI trigger",
        window == probe.WINDOWS_US[0],
        f"shortest window {window / 1e6:g} s" if window else "refused",
        "give the agent CAP_SYS_RESOURCE for 0.5 s windows; until then it wakes up later"
        if window
        else "needs Linux 5.2 with CAP_SYS_RESOURCE, or 6.4; until then pressure is seen at ticks alone",
    )
    unified = host.cgroups.unified if host.cgroups else None
    per_pod = unified is not None and probe.has_cgroup_file(unified, "cpu.pressure")
    yield judged(
        "PSI of pods",
        per_pod,
        f"cpu.pressure below {unified}" if per_pod else "no cpu.pressure in cgroups",
        "only cgroup v2 has it; run-queue delay of the pod's threads stands in",
        Status.INFO,
    )


def fast_lane(host: Host) -> Iterator[Finding]:
    """How soon a surge of online work is noticed between two ticks."""
    agent = host.config.settings.agent
    unified = host.cgroups.unified if host.cgroups else None
    by_pressure = unified is not None and probe.has_cgroup_file(unified, "cpu.pressure")
    seen = "cpu.pressure of LS pods" if by_pressure else "run-queue delays of LS pods, eight in turn"
    between = 0.0 < agent.fast_lane_s < agent.tick_s
    yield judged(
        "fast lane",
        between and probe.text(host.root, "/proc/pressure/cpu") is not None,
        f"every {agent.fast_lane_s:g} s: {seen}" if between else f"none within ticks of {agent.tick_s:g} s",
        "set agent.fast_lane_s = 0.1, and psi=1 at boot; until then a surge waits for the next tick",
        Status.INFO,
    )


CGROUPS: tuple[Check, ...] = (hierarchies, knobs, freezer, write_access, pressure, fast_lane)
