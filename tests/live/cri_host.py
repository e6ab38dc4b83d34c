"""A containerd of the test's own on this machine: own root, socket, mounts and network; and a client of it.

    unshare --mount --net -- containerd        its pids are the machine's, as the agent needs them
      containerd-shim-runc-v2 (left behind when it is killed: ended by their -address)
        pause, busybox ...                     in /sys/fs/cgroup/*/PARENT/ID

Nothing outside is touched but cgroups below a parent that the test names; all is removed on leaving.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.live.cri_wire import field, fields
from tests.live.running import SLOWNESS, until

NEEDED = ("containerd", "ctr", "runc", "unshare", "/bin/busybox")
SHIMS = Path("/run/containerd")  # made for the mount over it where it is not there
IMAGE = "localhost/na-box:1"
_CONFIG = """version = 2
root = "{home}/root"
state = "{home}/state"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"{disabled}]
[grpc]
  address = "{home}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/na-box:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        BinaryName = "{runc}"
        Root = "{home}/runc"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{home}/none"
    conf_dir = "{home}/none"
"""
# shim sockets live in /run/containerd whatever `state` says; containerd 1.6 wants every v1 hierarchy mounted
_INNER = """set -e
ip link set lo up
mkdir -p /run/containerd
mount -t tmpfs -o mode=711 none /run/containerd
mount -t tmpfs none /var/log
cut -d: -f2 /proc/self/cgroup | while read -r c; do
  case $c in ""|name=*) continue;; esac
  grep -qE "[, ]${c%%,*}(,|$)" /proc/self/mountinfo || {
    mkdir -p "$HOME_OF_IT/cg/$c"; mount -t cgroup -o "$c" none "$HOME_OF_IT/cg/$c"; }
done
exec containerd -c "$HOME_OF_IT/config.toml"
"""


def missing() -> str:
    """Why there can be no containerd here; "" when there can."""
    lacking = [name for name in NEEDED if shutil.which(name) is None]
    return f"needs {', '.join(lacking)} (packages containerd, runc, busybox-static)" if lacking else ""


class Runtime:
    """A containerd with the client's half of CRI: pods and containers by hand."""

    def __init__(self, home: Path, pid: int) -> None:
        self.home = home
        self.pid = pid  # in its namespaces
        self.socket = home / "containerd.sock"
        self._channel = grpc.insecure_channel(f"unix:{self.socket}")

    def call(self, method: str, request: bytes, version: str = "v1") -> dict[int, list[bytes]]:
        """The fields of the answer."""
        ask = self._channel.unary_unary(f"/runtime.{version}.RuntimeService/{method}")
        return fields(ask(request, timeout=60 * SLOWNESS))

    def run_pod(self, name: str, uid: str, parent: str, labels: dict[str, str]) -> Pod:
        """RunPodSandbox, in the host's network, below this cgroup parent."""
        pod = Pod(self, name, uid, parent, labels)
        pod.id = self.call("RunPodSandbox", field(1, pod.config))[1][0].decode()
        return pod

    def close(self) -> None:
        self._channel.close()


class Pod:
    """One sandbox."""

    def __init__(self, runtime: Runtime, name: str, uid: str, parent: str, labels: dict[str, str]) -> None:
        self._runtime = runtime
        self.id = ""
        known = {
            "io.kubernetes.pod.name": name,
            "io.kubernetes.pod.namespace": "na-test",
            "io.kubernetes.pod.uid": uid,
            **labels,
        }
        metadata = field(1, name) + field(2, uid) + field(3, "na-test")
        self._namespaces = field(1, field(1, 2) + field(2, 1))  # network: the node's; pid: the container's
        self.config = (
            field(1, metadata)
            + field(3, str(runtime.home / "logs"))
            + b"".join(field(6, field(1, key) + field(2, value)) for key, value in known.items())
            + field(8, field(1, f"/{parent}") + field(2, self._namespaces))
        )

    def start(self, name: str, *command: str) -> str:
        """CreateContainer and StartContainer; the container's id."""
        config = (
            field(1, field(1, name))
            + field(2, field(1, IMAGE))
            + b"".join(field(3, word) for word in command)
            + field(9, field(1, "io.kubernetes.container.name") + field(2, name))
            + field(11, f"{name}.log")
            + field(15, field(2, field(3, field(1, 2) + field(2, 1))))
        )
        request = field(1, self.id) + field(2, config) + field(3, self.config)
        container = self._runtime.call("CreateContainer", request)[1][0].decode()
        self._runtime.call("StartContainer", field(1, container))
        return container

    def remove(self) -> None:
        """StopPodSandbox and RemovePodSandbox: its containers go with it."""
        self._runtime.call("StopPodSandbox", field(1, self.id))
        self._runtime.call("RemovePodSandbox", field(1, self.id))


@contextlib.contextmanager
def containerd(home: Path, *, cri: bool = True) -> Iterator[Runtime]:
    """A containerd that answers; with its shims and containers ended on leaving. `cri` False: without CRI."""
    if reason := missing():
        pytest.skip(reason)
    home.mkdir(parents=True)
    made_run = not SHIMS.exists()
    snapshotter = "native" if _on_overlay(home) else "overlayfs"
    disabled = "" if cri else ', "io.containerd.grpc.v1.cri"'
    values = {"home": home, "runc": shutil.which("runc"), "snapshotter": snapshotter, "disabled": disabled}
    (home / "config.toml").write_text(_CONFIG.format(**values))
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", "--mount", "--net", "--", "sh", "-c", _INNER],
            env={**os.environ, "HOME_OF_IT": str(home)},
            stdout=log,
            stderr=log,
        )
    runtime = Runtime(home, process.pid)
    try:
        socket = str(runtime.socket)
        ask = ["ctr", "-a", socket, "version"]
        until(
            lambda: (
                process.poll() is not None
                or subprocess.run(ask, capture_output=True, check=False).returncode == 0
            ),
            "containerd answers",
        )
        assert process.poll() is None, (home / "log").read_text()[-2000:]
        _image(home / "box.tar")
        imported = ["ctr", "-a", socket, "-n", "k8s.io", "images", "import", str(home / "box.tar")]
        subprocess.run(imported, check=True, capture_output=True)
        yield runtime
    finally:
        runtime.close()
        process.kill()
        process.wait()
        _end_shims(home)
        if made_run:
            with contextlib.suppress(OSError):
                SHIMS.rmdir()


def remove_cgroups(name: str) -> None:
    """The empty cgroups of this name at the root of every hierarchy."""
    for top in Path("/sys/fs/cgroup").glob(f"*/{name}"):
        for directory, _, _ in os.walk(top, topdown=False):
            _remove(Path(directory))
    direct = Path("/sys/fs/cgroup", name)
    if direct.is_dir():
        for directory, _, _ in os.walk(direct, topdown=False):
            _remove(Path(directory))


def _remove(directory: Path) -> None:
    """It is busy for a moment after its last process has ended."""
    for _ in range(200):
        with contextlib.suppress(OSError):
            directory.rmdir()
        if not directory.exists():
            return
        time.sleep(0.02)


def _end_shims(home: Path) -> None:
    """Every shim of this containerd and what runs below it: they outlive it by design."""
    mark = f"{home}/containerd.sock"
    shims = {pid for pid in _pids() if mark in _words(pid) and "containerd-shim" in _words(pid)[0]}
    children = {pid for pid in _pids() if _parent(pid) in shims}
    for pid in (*children, *shims):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in (*children, *shims)), "the shims end")


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return [""]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _on_overlay(home: Path) -> bool:
    kind = subprocess.run(["stat", "-f", "-c", "%T", home], capture_output=True, text=True, check=True).stdout
    return "overlay" in kind


def _image(out: Path) -> None:
    """An OCI archive with nothing but busybox."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in ("bin", "etc", "dev", "proc", "sys", "tmp"):
            _add(tar, name)
        _add(tar, "bin/busybox", Path("/bin/busybox").read_bytes(), 0o755)
        for name in ("sh", "sleep"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        _add(tar, "etc/passwd", b"root:x:0:0::/root:/bin/sh\n")
    blobs: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}

    def blob(data: bytes, kind: str, **more: object) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {
            "mediaType": f"application/vnd.oci.image.{kind}",
            "digest": f"sha256:{digest}",
            "size": len(data),
            **more,
        }

    packed = blob(layer.getvalue(), "layer.v1.tar")
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": {"Cmd": ["/bin/sleep", "1000000"], "Env": ["PATH=/bin"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [packed["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(json.dumps(config).encode(), "config.v1+json"),
        "layers": [packed],
    }
    named = {"io.containerd.image.name": IMAGE, "org.opencontainers.image.ref.name": "1"}
    top = blob(json.dumps(manifest).encode(), "manifest.v1+json", annotations=named)
    blobs["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [top]}).encode()
    with tarfile.open(out, "w") as tar:
        for path, data in blobs.items():
            _add(tar, path, data)


def _add(tar: tarfile.TarFile, path: str, data: bytes | None = None, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(path)
    info.mode = 0o755 if data is None else mode
    if data is None:
        info.type = tarfile.DIRTYPE
    else:
        info.size = len(data)
    tar.addfile(info, io.BytesIO(data) if data is not None else None)
