"""Who is on the node: QoS classes and the identity of a pod."""

from __future__ import annotations

import enum

from msgspec import Struct


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


class PodSpec(Struct, frozen=True, gc=False, kw_only=True):
    """What is known of a pod before any reading. Identity = uid + cgroup inode.

    `cgroup` is the path below the hierarchy root, without a leading slash. `tier` is the cgroup whose
    quota bounds this pod together with its siblings ("nodeagent/batch"), or None. `source` tells what
    recognised it: "rule", "exec", "kubelet", "yarn" or "systemd".
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

    @property
    def online(self) -> bool:
        return self.qos is not Qos.BATCH
