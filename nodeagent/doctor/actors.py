"""Who else sets the same knobs on this node."""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.doctor.finding import Check, Finding, Host, Status
from nodeagent.kernel import probe
from nodeagent.lock import holder

OTHERS = {
    "kubelet": (
        Status.INFO,
        "it owns kubepods: leave `scope` at nodeagent/** or name single pods, never its QoS roots",
    ),
    "koordlet": (
        Status.WARN,
        "it sets quotas of Batch pods itself: run one of the two, or --set agent.mode=observe",
    ),
    "katalyst-agent": (Status.WARN, "it sets cpusets and quotas itself: run one of the two, or observe"),
    "tuned": (Status.INFO, "its profiles set scheduler knobs; per-cgroup values do not conflict"),
    "numad": (Status.WARN, "it moves processes between NUMA nodes: stop it where pods are bound to nodes"),
    "systemd-oomd": (
        Status.INFO,
        "it kills whole cgroups under memory pressure: exempt online pods in its settings",
    ),
}


def other_actors(host: Host) -> Iterator[Finding]:
    """Agents by the names of their processes."""
    running = probe.processes(host.root, frozenset(OTHERS))
    if running is None:
        yield Finding("other actors", Status.WARN, "processes cannot be seen", "mount the host's /proc")
        return
    for process in running:
        status, fix = OTHERS[process.name]
        yield Finding("other actor", status, f"{process.name} runs (pid {process.pid})", fix)
    if not any(OTHERS[process.name][0] is Status.WARN for process in running):
        yield Finding("other actors", Status.OK, "none that writes to the same knobs was seen")


def running_agent(host: Host) -> Iterator[Finding]:
    """Another nodeagent on the same state directory."""
    agent = holder(host.config.settings.agent.state_dir)
    found = f"running: {agent}" if agent else "not running"
    yield Finding("nodeagent", Status.INFO, found)


ACTORS: tuple[Check, ...] = (other_actors, running_agent)
