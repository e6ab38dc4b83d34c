"""CPUs and pods of others, which placement leaves alone: the kubelet's, real-time ones, cpuset partitions."""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.doctor.finding import Check, Finding, Host, Status
from nodeagent.kernel import probe
from nodeagent.kernel.kubelet import KubeletFiles
from nodeagent.kernel.mounts import under
from nodeagent.kernel.realtime import RealtimePods
from nodeagent.kernel.tree import walk
from nodeagent.model.cpuset import union
from nodeagent.model.errors import AgentError
from nodeagent.pods.claims import read_claims
from nodeagent.pods.recognise import recognise

SHOWN = 8
CPU_MANAGER = "kubelet CPU manager"


def kubelet_managers(host: Host) -> Iterator[Finding]:
    """The kubelet's static managers pin pods and put their cpusets back."""
    where = host.config.settings.agent.kubelet_dir
    try:
        given = KubeletFiles(under(host.root, where)).read() if where else None
    except AgentError as error:
        fix = f"until it can be read no pod is placed; is agent.kubelet_dir = {where} right?"
        yield Finding(CPU_MANAGER, Status.WARN, f"its state is not known: {error}", error.hint or fix)
        return
    if given is None:
        return
    cpus = ""
    for owned in given.owned:
        cpus = union(cpus, owned.cpus)
    found = f"policy {given.policy or 'not told'}"
    fix = ""
    if given.owned:
        pods = len({owned.uid for owned in given.owned})
        found += f": {pods} pod{'s'[: pods != 1]} with CPUs {cpus or '(none)'}; for the others {given.shared}"
        fix = "nothing to do: their sets are not written, and their CPUs are in no pool"
    yield Finding(CPU_MANAGER, Status.INFO, found, fix)


def partitions(host: Host) -> Iterator[Finding]:
    """cpuset partitions of cgroup v2: CPUs that nobody outside of them has."""
    cpuset = host.cgroups.roots.get("cpuset") if host.cgroups else None
    if cpuset is None or cpuset.version == 1:
        return
    for path, kind, cpus in probe.partitions(cpuset.root, tuple(d.path for d in walk(cpuset.root)))[:SHOWN]:
        broken = "invalid" in kind
        yield Finding(
            "cpuset partition",
            Status.WARN if broken else Status.INFO,
            f"{path}: {kind}, CPUs {cpus or '(none)'}",
            f"echo member > {cpuset.root}/{path}/cpuset.cpus.partition, or give it CPUs that nobody else has"
            if broken
            else "nothing to do: its CPUs are in no pool; it is undone by writing member to that file",
        )


def realtime(host: Host) -> Iterator[Finding]:
    """Pods with real-time threads on CPUs of their own."""
    if host.cgroups is None:
        return
    config = host.config
    claims = read_claims(config.settings.agent.run_dir)
    members = recognise(walk(host.cgroups.walk_root), config.rules, claims)
    names = {member.spec.uid: member.spec.name for member in members}
    for owned in RealtimePods(host.cgroups).read(members, 0.0, {}, "")[:SHOWN]:
        yield Finding(
            "hands off",
            Status.INFO,
            f"{names[owned.uid]}: {owned.why} ({owned.cpus})",
            "nothing to do: its sets are not written, and its CPUs are in no pool",
        )


FOREIGN: tuple[Check, ...] = (kubelet_managers, partitions, realtime)
