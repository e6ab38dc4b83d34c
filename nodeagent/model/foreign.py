"""CPUs and pods that somebody else looks after: hands off.

CPUs are in the kernel's list format, as `str(CpuSet)` gives it ("0-3,8"); "" is none.
"""

from __future__ import annotations

from msgspec import Struct


class Owned(Struct, frozen=True, array_like=True, gc=False):
    """CPUs that are not the agent's to give. `uid`: the pod that has them, "" where no pod is known.

    Without CPUs it is a pod that is looked after by somebody else, wherever it runs.
    """

    uid: str
    cpus: str
    why: str


class Foreign(Struct, frozen=True, gc=False):
    """By who owns them; None = not known in this tick, which is never permission.

    `kubelet`: exclusive CPUs of its static CPU manager, and pods of its static memory manager. `realtime`:
    pods with real-time threads, or that a rule keeps from us, on CPUs of their own. `partitions`: CPUs that
    cpuset partitions (cgroup v2) took from everybody else. `unknown`: why what is None is not known.
    """

    kubelet: tuple[Owned, ...] | None = ()
    realtime: tuple[Owned, ...] | None = ()
    partitions: tuple[Owned, ...] | None = ()
    unknown: tuple[str, ...] = ()
