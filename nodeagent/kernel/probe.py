"""What this host can do, one question a function, for `nodeagent doctor` alone.

Invariant: nothing is changed (a PSI trigger is opened and closed again), and a missing file is an answer.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys

from msgspec import Struct

from nodeagent.kernel.mounts import under

MAX_BYTES = 1 << 20
WINDOWS_US = (500_000, 2_000_000)
CAPABILITIES = {  # include/uapi/linux/capability.h
    1: "DAC_OVERRIDE",
    12: "NET_ADMIN",
    19: "SYS_PTRACE",
    21: "SYS_ADMIN",
    23: "SYS_NICE",
    24: "SYS_RESOURCE",
    38: "PERFMON",
}
_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "ppc64le": 319, "s390x": 331}


class Process(Struct, frozen=True):
    name: str
    pid: int


def text(host_root: str, path: str) -> str | None:
    """Up to 1 MiB of the host's file at `path`, or None when it cannot be read."""
    try:
        with open(under(host_root, path), "rb") as file:
            return file.read(MAX_BYTES).decode(errors="replace")
    except OSError:
        return None


def number(host_root: str, path: str) -> int | None:
    """The integer in a file of one line, or None."""
    try:
        return int(text(host_root, path) or "")
    except ValueError:
        return None


def has_cgroup_file(root: str, name: str) -> bool:
    """True when the hierarchy's root or one of its direct children has the file (v2 roots lack most)."""
    if os.path.exists(f"{root}/{name}"):
        return True
    try:
        with os.scandir(root) as entries:
            return any(os.path.exists(f"{entry.path}/{name}") for entry in entries if entry.is_dir())
    except OSError:
        return False


def writable(path: str) -> bool:
    """True when this process may create entries in the directory (permissions and read-only mounts)."""
    return os.access(path, os.W_OK | os.X_OK)


def psi_window_us(host_root: str) -> int | None:
    """The shortest of 0.5 s and 2 s that the kernel takes as PSI trigger window, or None.

    Without CAP_SYS_RESOURCE only multiples of 2 s: Linux kernel commit d82caa273565 ("sched/psi: Allow
    unprivileged polling of N*2s period") (in v6.4); earlier ones refuse the unprivileged altogether.
    """
    path = under(host_root, "/proc/pressure/cpu")
    return next((window for window in WINDOWS_US if _takes_trigger(path, window)), None)


def _takes_trigger(path: str, window_us: int) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # The kernel puts a NUL over the last byte written.
        return os.write(fd, f"some {window_us // 10} {window_us}\0".encode()) > 0
    except OSError:
        return False
    finally:
        os.close(fd)


def capabilities() -> frozenset[str] | None:
    """Which of CAPABILITIES this process has in effect, or None when the kernel does not tell."""
    for line in (text("/", "/proc/self/status") or "").splitlines():
        key, _, mask = line.partition(":")
        if key == "CapEff":
            return frozenset(name for bit, name in CAPABILITIES.items() if int(mask, 16) >> bit & 1)
    return None


def pmu_error() -> str | None:
    """None when the CPU's cycle counter can be opened for this process, else what the kernel said."""
    number_of_call = _PERF_EVENT_OPEN.get(os.uname().machine)
    if number_of_call is None or sys.maxsize < 1 << 32:
        return f"not known how to ask on {os.uname().machine}"
    # struct perf_event_attr, PERF_ATTR_SIZE_VER0: type 0 (hardware), size 64, config 0 (cycles), rest 0 but
    # the flag word: disabled, exclude_kernel and exclude_hv, which even the unprivileged may.
    packed = struct.pack("=II32xQ16x", 0, 64, 1 | 1 << 5 | 1 << 6)
    attr = ctypes.create_string_buffer(packed, 64)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = int(libc.syscall(ctypes.c_long(number_of_call), attr, 0, -1, -1, ctypes.c_ulong(8)))  # 8: CLOEXEC
    if fd < 0:
        return os.strerror(ctypes.get_errno())
    os.close(fd)
    return None


def processes(host_root: str, names: frozenset[str]) -> tuple[Process, ...] | None:
    """Running processes with one of these names, or None when the host's /proc is not there."""
    import psutil

    if text(host_root, "/proc/stat") is None:
        return None
    before, psutil.PROCFS_PATH = psutil.PROCFS_PATH, under(host_root, "/proc")
    try:
        running = psutil.process_iter(["name"])
        return tuple(Process(p.info["name"], p.pid) for p in running if p.info["name"] in names)
    finally:
        psutil.PROCFS_PATH = before


def partitions(root: str, cgroups: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """(path, state, CPUs) of the v2 cgroups that are cpuset partitions, or fail to be ("root invalid ")."""
    found = []
    for path in cgroups:
        kind = (text(root, f"/{path}/cpuset.cpus.partition") or "member").strip()
        if kind != "member":
            found.append((path, kind, (text(root, f"/{path}/cpuset.cpus.effective") or "").strip()))
    return found


def open_files_limit() -> int:
    """RLIMIT_NOFILE that the agent can raise itself to."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def free_bytes(path: str) -> int | None:
    """Free space for this process on the file system of `path`, or None."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def existing(path: str) -> str:
    """`path`, or the nearest directory above it that exists."""
    while not os.path.isdir(path) and path not in ("/", ""):
        path = os.path.dirname(path)
    return path or "/"
