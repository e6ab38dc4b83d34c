"""Who is on the node: QoS classes and the identity of a pod."""

from __future__ import annotations

import enum
from typing import Annotated

from msgspec import Meta, Struct

from nodeagent.model.app import AppWish

OWN_ROOT = "nodeagent"  # the agent's own cgroup subtree, in every hierarchy
OWN_TIER = f"{OWN_ROOT}/batch"
OWN_LS = f"{OWN_ROOT}/ls"


class Qos(enum.StrEnum):
    """LS and MID are *online*, BATCH is *offline*."""

    LS = "ls"
    MID = "mid"
    BATCH = "batch"


class Priority(enum.StrEnum):
    """Inside BATCH: LOW is throttled, reclaimed and killed first."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class NumaWish(enum.StrEnum):
    """What an LS pod asks of the machine: BIND is CPUs and memory near each other, EXCLUSIVE whole nodes."""

    NONE = "none"
    BIND = "bind"
    EXCLUSIVE = "exclusive"


class PodSpec(Struct, frozen=True, gc=False, kw_only=True):
    """What is known of a pod before any reading. Identity = uid + cgroup inode.

    `cgroup` is the path below the hierarchy root, without a leading slash. `tier` is the cgroup whose
    quota bounds this pod together with its siblings ("nodeagent/batch"), or None. `source` tells what
    recognised it: "rule", "exec", "kubelet", "cri", "yarn", "docker" or "systemd". An LS pod with `numa_bind`
    wants CPUs and memory of its own, with `exclusive` (which has `numa_bind`) whole NUMA nodes; `near` names
    the device that they shall be close to, "" any. With `hands_off` nothing of an online pod is ever written.
    `main_pids` are the first processes of containers by cgroup, as far as the container runtime tells them.
    """

    uid: str
    name: str
    cgroup: str
    inode: int
    qos: Qos
    source: str
    priority: Priority = Priority.MEDIUM
    tier: str | None = None
    cpu_request_cores: float | None = None
    memory_request_bytes: int | None = None
    numa_bind: bool = False
    exclusive: bool = False
    near: str = ""
    hands_off: bool = False
    main_pids: tuple[tuple[str, int], ...] = ()

    @property
    def online(self) -> bool:
        return self.qos is not Qos.BATCH


class PodRule(Struct, frozen=True, forbid_unknown_fields=True):
    """One [[pods]] entry: cgroups whose path matches are pods of this kind; the first match wins.

    `match` is a glob over the path below the hierarchy root: "*" and "?" stay within one path component,
    "**" crosses "/". Without `name` the pod is called as Kubernetes calls it, else by its cgroup path.
    """

    match: Annotated[str, Meta(min_length=1, max_length=512, description="glob over the cgroup path")]
    qos: Annotated[Qos, Meta(description="ls, mid or batch")]
    priority: Annotated[Priority, Meta(description="high, medium or low; matters inside batch")] = (
        Priority.MEDIUM
    )
    name: Annotated[
        str,
        Meta(
            max_length=253, description="name shown; default: namespace/name of a Kubernetes pod, or the path"
        ),
    ] = ""
    cpus: Annotated[float, Meta(gt=0.0, le=65536.0, description="CPU request in cores")] | None = None
    memory: Annotated[int, Meta(gt=0, description="memory request in bytes")] | None = None
    numa: Annotated[
        NumaWish,
        Meta(description="of an ls pod: bind to CPUs and memory of its own; exclusive: to whole NUMA nodes"),
    ] = NumaWish.NONE
    near: Annotated[
        str, Meta(max_length=64, description="bind near this NIC (eth1) or GPU (its PCI address)")
    ] = ""
    hands_off: Annotated[
        bool, Meta(description="of an online pod: write nothing of it, and leave it the CPUs that it has")
    ] = False


def is_device_name(text: str) -> bool:
    """True for what can name a NIC or a GPU: at most 64 printable ASCII characters, no space, no slash."""
    return 0 < len(text) <= 64 and all("!" <= char <= "~" and char != "/" for char in text)


class CgroupDir(Struct, frozen=True, array_like=True, gc=False):
    """One cgroup directory of the walked hierarchy: path below its root ("" is the root) and inode."""

    path: str
    inode: int


class Claim(Struct, frozen=True, gc=False, kw_only=True):
    """What `nodeagent exec` says of a pod that it made: the file that tells a running agent its request."""

    cgroup: str
    name: str
    qos: Qos
    pid: int
    priority: Priority = Priority.MEDIUM
    cpus: float | None = None
    memory: int | None = None
    numa_bind: bool = False
    exclusive: bool = False
    near: str = ""
    hands_off: bool = False


class Member(Struct, frozen=True, gc=False):
    """A recognised pod with the cgroups inside it.

    `containers` are (name, directory) of its direct children, `nested` the paths of all its descendants,
    `app` what Kubernetes tells of its application.
    """

    spec: PodSpec
    containers: tuple[tuple[str, CgroupDir], ...] = ()
    nested: tuple[str, ...] = ()
    app: AppWish = AppWish()
