"""A real kubelet without an API server, in the namespaces of a containerd of the test's own.

    nsenter containerd's mounts and network -- own mounts with /proc/sys as files -- kubelet
      static pods from a directory -> containerd -> cgroups below a directory of the test's own

It would set six sysctls of the machine and write below /var/lib/kubelet and /var/log; it gets plain files
and empty directories in their place.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.live.cri_host import IMAGE, Runtime
from tests.live.running import until

PORT, READ_ONLY_PORT = 10250, 10255
_SYSCTLS = (
    "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
)  # fmt: skip
_INNER = """set -e
for name in $SYSCTLS; do
  file=$HOME_OF_IT/sysctl-$(echo "$name" | tr / -)
  cat "/proc/sys/$name" >"$file"; mount --bind "$file" "/proc/sys/$name"
done
mount -t tmpfs none /var/lib
exec "$@"
"""


class RealKubelet:
    """One that runs; `words` enter its network."""

    def __init__(self, home: Path, pid: int, kill: Callable[[], object]) -> None:
        self.home = home
        self.kill = kill
        self.manifests = home / "manifests"
        self.words = ("nsenter", "--net", "-t", str(pid), "--")

    def pod(self, name: str, *, labels: dict[str, str], cpu: str = "", memory: str = "") -> None:
        """A static pod with one container "app"; with cpu and memory it is Guaranteed, else BestEffort."""
        limits = {"cpu": cpu, "memory": memory} if cpu else {}
        container = {
            "name": "app",
            "image": IMAGE,
            "imagePullPolicy": "Never",
            "command": ["/bin/sleep", "100000"],
            "resources": {"limits": limits},
        }
        spec = {"hostNetwork": True, "terminationGracePeriodSeconds": 1, "containers": [container]}
        metadata = {"name": name, "namespace": "na-test", "labels": labels}
        text = json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        (self.home / "new.json").write_text(text)
        (self.home / "new.json").rename(self.manifests / f"{name}.json")

    def get(self, path: str) -> bytes:
        """From the read-only port."""
        url = f"http://127.0.0.1:{READ_ONLY_PORT}{path}"
        words = ["python3", "-c", f"import urllib.request as u; print(u.urlopen('{url}').read().decode())"]
        return subprocess.run([*self.words, *words], capture_output=True, check=True, timeout=60).stdout


@contextlib.contextmanager
def real_kubelet(
    binary: str, home: Path, runtime: Runtime, cgroup_root: str, certificate: tuple[Path, Path]
) -> Iterator[RealKubelet]:
    """It runs until the context is left; what it started ends with the runtime."""
    home.mkdir()
    (home / "manifests").mkdir()
    log = (home / "log").open("wb")
    process = subprocess.Popen(
        ["nsenter", "--mount", "--net", "-t", str(runtime.pid), "--", "unshare", "--mount", "--", "sh", "-c",
         _INNER, "sh", binary, *_flags(home, runtime, cgroup_root, certificate)],
        env={**os.environ, "HOME_OF_IT": str(home), "SYSCTLS": " ".join(_SYSCTLS)},
        stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    log.close()
    made = RealKubelet(home, runtime.pid, process.kill)
    try:
        until(lambda: process.poll() is not None or _answers(made), "the kubelet answers", 60.0)
        assert process.poll() is None, (home / "log").read_text()[-3000:]
        yield made
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _flags(home: Path, runtime: Runtime, cgroup_root: str, certificate: tuple[Path, Path]) -> list[str]:
    values: dict[str, object] = {
        "root-dir": home / "root",
        "pod-manifest-path": home / "manifests",
        "container-runtime": "remote",
        "container-runtime-endpoint": f"unix://{runtime.socket}",
        "containerd": runtime.socket,
        "cgroup-driver": "cgroupfs",
        "cgroup-root": f"/{cgroup_root}",
        "cpu-manager-policy": "static",
        "kube-reserved": "cpu=500m",
        "enforce-node-allocatable": "",
        "hostname-override": "na-node",
        "address": "127.0.0.1",
        "port": PORT,
        "read-only-port": READ_ONLY_PORT,
        "healthz-port": 0,
        "tls-cert-file": certificate[0],
        "tls-private-key-file": certificate[1],
        "authorization-mode": "AlwaysAllow",
        "anonymous-auth": "true",
        "fail-swap-on": "false",
        "make-iptables-util-chains": "false",
        "eviction-hard": "memory.available<1Mi",
        "file-check-frequency": "1s",
        "sync-frequency": "1s",
        "cert-dir": home / "pki",
        "volume-plugin-dir": home / "plugins",
        "oom-score-adj": 0,
    }
    return [f"--{name}={value}" for name, value in values.items()]


def _answers(kubelet: RealKubelet) -> bool:
    try:
        return b"PodList" in kubelet.get("/pods")
    except subprocess.SubprocessError:
        return False
