"""The DaemonSet's pod as the chart renders it, run by a real runc: its uid, capabilities, mounts, namespaces.

What a kubelet and a container runtime would add is added here: the environment, volumes (directories of the
test in place of the node's own ones, but for /proc and /sys), and of the runtime's default seccomp profile
what it refuses. In the place of an image are this machine's /usr and the interpreter that runs the tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.live.running import SLOWNESS, TIMEOUT_S, RunningAgent, until
from tests.unit.charts import ROOT, Document, environment, only, pod

LIMIT_S = 120.0
# linux/capability.h
NUMBERS = {
    "DAC_OVERRIDE": 1,
    "NET_ADMIN": 12,
    "NET_RAW": 13,
    "SYS_PTRACE": 19,
    "SYS_ADMIN": 21,
    "SYS_NICE": 23,
    "SYS_RESOURCE": 24,
}
# Of what containerd's default profile refuses without CAP_SYS_ADMIN: what an agent might call.
REFUSED = (
    "bpf",
    "fsopen",
    "kexec_load",
    "keyctl",
    "mount",
    "move_mount",
    "move_pages",
    "open_by_handle_at",
    "perf_event_open",
    "pivot_root",
    "setns",
    "umount2",
    "unshare",
    "userfaultfd",
)
WITH_SYS_ADMIN = {"bpf", "fsopen", "mount", "move_mount", "perf_event_open", "setns", "umount2", "unshare"}


class Contained(RunningAgent):
    """The agent of a profile, in a container. `options` are those of helm; `without` takes capabilities away.

    `restores`: not the agent, but the init container that gives back, on the state of this former agent.
    """

    def __init__(
        self,
        home: Path,
        options: Sequence[str],
        *values: str,
        without: Sequence[str] = (),
        host_pid: bool | None = None,
        through: Sequence[str] = (),
        restores: Path | None = None,
    ) -> None:
        if shutil.which("runc") is None:
            pytest.skip("runc is not installed (Debian package runc)")
        self.home = home
        self.name = f"na-test-{os.getpid()}-{time.monotonic_ns()}"
        spec = json.loads(json.dumps(pod(*options)))
        container = spec["initContainers" if restores else "containers"][0]
        if host_pid is not None:
            spec["hostPID"] = host_pid
        capabilities = container["securityContext"]["capabilities"]
        lacking = {*without, *_lacking()}
        capabilities["add"] = [name for name in capabilities.get("add", ()) if name not in lacking]
        sets = [
            word for value in ("log.level=debug", "agent.tick_s=0.25", *values) for word in ("--set", value)
        ]
        container["args"] += sets
        self.volumes = _volumes(home, spec, container, only("ConfigMap", *options)["data"])
        self.volumes |= {"before": restores} if restores else {}
        self.state, self.runtime = self.volumes["state"], self.volumes["run"]
        self.bundle = home / "bundle"
        (self.bundle / "rootfs").mkdir(parents=True)
        (self.bundle / "config.json").write_text(
            json.dumps(_bundle(spec, container, self.volumes, self.name))
        )
        self.log_path = home / f"log-{time.monotonic_ns()}"
        command = [*through, *self._runc, "run", "--bundle", str(self.bundle), self.name]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log, stdin=subprocess.DEVNULL)

    @property
    def _runc(self) -> list[str]:
        return ["runc", "--root", str(self.home / "runc")]

    @property
    def pid(self) -> int:
        """The agent's, as this process sees it."""
        done = subprocess.run(
            [*self._runc, "state", self.name], capture_output=True, check=True, timeout=LIMIT_S
        )
        return int(json.loads(done.stdout)["pid"])

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command as the agent's user, with its capabilities and mounts."""
        words = [*self._runc, "exec", self.name, *command]
        return subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False)

    def get(self, path: str) -> str:
        """The body of an HTTP page, asked in the network of the container."""
        port = self.named("http.listening")[0]["address"].rpartition(":")[2]
        code = (
            f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{port}{path}').read().decode())"
        )
        words = ["nsenter", "--net", f"--target={self.pid}", sys.executable, "-c", code]
        return subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=True).stdout

    def remove(self) -> None:
        """Whatever is left of it."""
        subprocess.run([*self._runc, "delete", "--force", self.name], capture_output=True, check=False)


@contextlib.contextmanager
def contained(home: Path, options: Sequence[str], *values: str, **others: Any) -> Iterator[Contained]:
    """One that is ready, and gone on leaving."""
    started = Contained(home, options, *values, **others)
    try:
        started.ready()
        yield started
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.stop()
        started.remove()
        started.process.wait(TIMEOUT_S)


def until_ready(started: Contained) -> None:
    """As the readiness probe asks."""

    def answers() -> bool:
        try:
            return started.get("/readyz").strip() == "ok"
        except subprocess.CalledProcessError:
            return False

    until(answers, "ready", 20.0 * SLOWNESS)


def _lacking() -> set[str]:
    """What this machine's root lacks nobody here can be given."""
    held = int(re.findall(r"(?m)^CapBnd:\s*(\w+)$", Path("/proc/self/status").read_text())[0], 16)
    return {name for name, bit in NUMBERS.items() if not held >> bit & 1}


def _volumes(home: Path, spec: Document, container: Document, config: Document) -> dict[str, Path]:
    """Where each volume is on this machine."""
    user, found = int(container["securityContext"]["runAsUser"]), {}
    for volume in spec["volumes"]:
        name = volume["name"]
        if name in ("proc", "sys"):
            found[name] = Path(volume["hostPath"]["path"])
            continue
        found[name] = home / "volumes" / name
        found[name].mkdir(parents=True)
        if "emptyDir" in volume:  # what fsGroup does
            os.chown(found[name], 0, user)
            found[name].chmod(0o2775)
    for file, text in config.items():
        (found["config"] / file).write_text(text)
    return found


def _bundle(spec: Document, container: Document, volumes: dict[str, Path], name: str) -> Document:
    """config.json of the OCI runtime specification 1.0.2."""
    security = container["securityContext"]
    added = [f"CAP_{each}" for each in security["capabilities"]["add"]]
    variables = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": str(ROOT), **environment(container)}
    args = [sys.executable, "-m", "nodeagent", *container["args"]]
    namespaces = ["mount", "ipc", "uts", "cgroup"]
    namespaces += [] if spec.get("hostPID") else ["pid"]
    namespaces += [] if spec.get("hostNetwork") else ["network"]
    return {
        "ociVersion": "1.0.2",
        "hostname": "node-1",
        "root": {"path": "rootfs", "readonly": security["readOnlyRootFilesystem"]},
        "process": {
            "user": {"uid": security["runAsUser"], "gid": security["runAsGroup"]},
            "args": args,
            "env": [f"{key}={value}" for key, value in variables.items()],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), added),
            "noNewPrivileges": not security["allowPrivilegeEscalation"],
        },
        "mounts": [*_system(), *_mounted(container, volumes)],
        "linux": {
            "namespaces": [{"type": kind} for kind in namespaces],
            "cgroupsPath": f"/{name}",
            "seccomp": _seccomp(security["capabilities"]["add"]),
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


def _system() -> list[Document]:
    """What a runtime mounts, and the image."""
    image = {"/usr", sys.base_prefix, sys.prefix, str(ROOT)}
    image |= {
        path for path in ("/bin", "/lib", "/lib64", "/sbin", "/etc/ld.so.cache") if os.path.exists(path)
    }
    empty = ["nosuid", "noexec", "nodev", "ro"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": empty},
        *(
            {"destination": path, "type": "bind", "source": path, "options": ["rbind", "ro", "nosuid"]}
            for path in sorted(image)
        ),
    ]


def _mounted(container: Document, volumes: dict[str, Path]) -> Iterator[Document]:
    for mount in container["volumeMounts"]:
        options = ["rbind", "rprivate"]
        options += ["ro"] if mount.get("readOnly") else ["rw"]
        options += ["rro"] if mount.get("recursiveReadOnly") else []
        yield {
            "destination": mount["mountPath"],
            "type": "bind",
            "source": str(volumes[mount["name"]]),
            "options": options,
        }


def _seccomp(capabilities: Sequence[str]) -> Document:
    names = [name for name in REFUSED if not ("SYS_ADMIN" in capabilities and name in WITH_SYS_ADMIN)]
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    }
