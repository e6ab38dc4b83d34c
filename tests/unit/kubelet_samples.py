"""What kubelets of two ages answer to GET /pods, and the cgroups of these pods with either driver.

kubelet/*.json have the shape of recorded answers: one pod a line, with all that is of no use here.
"""

from __future__ import annotations

from pathlib import Path

from nodeagent.model.kubernetes import KubernetesSettings, PodTold
from nodeagent.model.pod import CgroupDir
from nodeagent.pods.kubelet_list import read_pods

HERE = Path(__file__).with_name("kubelet")
V1_20 = (HERE / "v1.20-cgroupfs.json").read_bytes()
V1_34 = (HERE / "v1.34-systemd.json").read_bytes()
UID = "11d3b1c8-7d5e-4a57-9a34-1f0f3c6f5a{:02d}"
STATIC_UID = "0f2bbd9c8d2f1c1f2e4f8f1d2a3b4c5d"
MIRROR_HASH = "9d1c0be8a2f34e5c8f7a6b5d4c3b2a10"


def told(raw: bytes) -> dict[str, PodTold]:
    """By full name."""
    pods, unread = read_pods(raw, KubernetesSettings())
    assert unread == 0
    return {pod.full_name: pod for pod in pods}


def cgroupfs(uid: str, qos: str = "") -> str:
    """A pod's cgroup by the cgroupfs driver; `qos` is "", "burstable" or "besteffort"."""
    return f"kubepods/{qos}/pod{uid}" if qos else f"kubepods/pod{uid}"


def systemd(uid: str, qos: str = "") -> str:
    """The same by the systemd driver."""
    name = uid.replace("-", "_")
    if not qos:
        return f"kubepods.slice/kubepods-pod{name}.slice"
    return f"kubepods.slice/kubepods-{qos}.slice/kubepods-{qos}-pod{name}.slice"


def tree(*paths: str) -> tuple[CgroupDir, ...]:
    """The named directories and all above them, as a walk gives them."""
    every = {""}
    for path in paths:
        parts = path.split("/")
        every.update("/".join(parts[: n + 1]) for n in range(len(parts)))
    return tuple(CgroupDir(path, 100 + number) for number, path in enumerate(sorted(every)))
