"""What this process may do and use: capabilities, limits, directories, packages."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import time
from collections.abc import Iterator

from nodeagent.doctor.finding import Check, Finding, Host, Status, judged
from nodeagent.kernel import own_sched, probe
from nodeagent.model.errors import AgentError
from nodeagent.model.units import format_bytes

USES = {
    "DAC_OVERRIDE": "cgroup files of other users",
    "SYS_RESOURCE": "PSI windows below 2 s",
    "SYS_NICE": "page migration of pods, ticks on time on a full node",
    "SYS_PTRACE": "page migration of other users' processes",
    "NET_ADMIN": "queueing on network interfaces",
    "PERFMON": "performance counters",
    "SYS_ADMIN": "mounting resctrl; not needed else",
}
MIN_OPEN_FILES = 65_536  # about 20 kept descriptors per cgroup
MIN_WATCHES = 8_192  # one per cgroup directory
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def capabilities(host: Host) -> Iterator[Finding]:
    """CapEff, decoded, with what each capability is for."""
    held = probe.capabilities()
    if held is None:
        yield Finding("capabilities", Status.WARN, "the kernel does not tell", "mount /proc")
        return
    missing = [f"CAP_{name} ({use})" for name, use in USES.items() if name not in held]
    found = "has " + (", ".join(name for name in USES if name in held) or "none")
    yield judged("capabilities", not missing, found, f"lacks {', '.join(missing)}", Status.INFO)


def limits(host: Host) -> Iterator[Finding]:
    """Kept descriptors and inotify watches grow with the number of cgroups."""
    files = probe.open_files_limit()
    fix = f"LimitNOFILE={MIN_OPEN_FILES} in the unit, or ulimit -Hn: enough for thousands of cgroups"
    yield judged("open files", files >= MIN_OPEN_FILES, f"at most {files}", fix)
    watches = probe.number(host.root, "/proc/sys/fs/inotify/max_user_watches")
    yield judged(
        "inotify",
        watches is not None and watches >= MIN_WATCHES,
        f"at most {watches} watches" if watches is not None else "limit not told",
        f"sysctl fs.inotify.max_user_watches={MIN_WATCHES}; until then new pods wait for a scan",
    )


def directories(host: Host) -> Iterator[Finding]:
    """Can state be kept, and is there room for it?"""
    settings = host.config.settings
    needed = 2 * settings.journal.max_bytes if settings.journal.enabled else 16 << 20
    for name, path, least in (
        ("state", settings.agent.state_dir, needed),
        ("run", settings.agent.run_dir, 1 << 20),
    ):
        at = probe.existing(path)
        free = probe.free_bytes(at)
        found = f"{path}{'' if at == path else ' (to be made)'}, {format_bytes(free or 0)} free"
        if not probe.writable(at):
            fix = f"run as root, or choose another one: --set agent.{name}_dir=DIR"
            yield Finding(f"{name} directory", Status.FAIL, f"{path}: {at} is not writable", fix)
        else:
            fix = f"make room for {format_bytes(least)}, or lower journal.max_bytes"
            yield judged(f"{name} directory", free is not None and free >= least, found, fix)


def realtime(host: Host) -> Iterator[Finding]:
    """May the loop run when it is due? Of this process: it is not bound by what a unit bans."""
    if not host.config.settings.agent.realtime:
        yield Finding("realtime", Status.INFO, "not asked for: agent.realtime is false")
        return
    refused = own_sched.refusal()
    found = f"SCHED_FIFO: {refused or 'allowed to this process'}"
    yield judged("realtime", not refused, found, own_sched.HINT, Status.INFO)


def packages(host: Host) -> Iterator[Finding]:
    """The Python and the packages that the agent itself needs."""
    yield Finding("python", Status.OK, f"{platform.python_implementation()} {platform.python_version()}")
    try:
        required = importlib.metadata.requires("nodeagent") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding("packages", Status.INFO, "nodeagent runs from its source tree", "pip install .")
        return
    names = [match[0] for line in required if "extra ==" not in line and (match := _NAME.match(line))]
    absent = [name for name in names if _version(name) is None]
    found = f"{len(names) - len(absent)} of {len(names)} installed"
    yield judged("packages", not absent, found, f"pip install {' '.join(absent)}", Status.FAIL)
    if host.config.settings.publish.enabled:
        there = _version("lightkube") is not None
        found = f"publish.enabled, and lightkube is {'' if there else 'not '}installed"
        yield judged("publish", there, found, "pip install 'nodeagent[kubernetes]'", Status.FAIL)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def certificate(host: Host) -> Iterator[Finding]:
    """Do certificate, key and CAs of the gRPC server fit, and for how long?"""
    grpc = host.config.settings.grpc
    if not grpc.tls_address:
        return
    from nodeagent.rpc.tls import DAY_S, TlsFiles, load

    try:
        held = load(TlsFiles(grpc.tls_cert, grpc.tls_key, grpc.tls_ca))
    except AgentError as error:
        yield Finding("certificate", Status.FAIL, str(error), error.hint)
        return
    left, life = held.not_after_unix - time.time(), held.not_after_unix - held.not_before_unix
    found = (
        f"{grpc.tls_cert} is valid for {left / DAY_S:.1f} days"
        if left > 0
        else f"{grpc.tls_cert} has expired"
    )
    fix = "renew it: write the new files in place of the old ones, the agent takes them by itself"
    yield judged("certificate", left > 0.2 * life, found, fix, Status.WARN if left > 0 else Status.FAIL)


PROCESS: tuple[Check, ...] = (capabilities, limits, realtime, directories, packages, certificate)
