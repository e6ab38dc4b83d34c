"""Joins what Kubernetes tells of pods with cgroups: by uid, by container, or as was told while they live.

Invariant: where there is or was a list, a cgroup that it does not know is never Batch; and what was once said
of a cgroup holds until that is gone, however old the list is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nodeagent.model.kubernetes import PodTold
from nodeagent.model.pod import CgroupDir, Qos
from nodeagent.pods.paths import Kind, container_id

Known = Mapping[tuple[str, int], PodTold]


class Told:
    """`pods` are those of the list, `known` what was told of cgroups (path, inode) that still live.

    `cautious`: there is or was a list, or one is on its way.
    """

    def __init__(self, pods: Iterable[PodTold] = (), known: Known | None = None, *, cautious: bool = False):
        listed = sorted(pods, key=_online)  # of two that claim to be the same, the one that is not Batch is
        self._known = known or {}
        self._cautious = cautious
        self._uids = {pod.uid: pod for pod in listed}
        for pod in listed:
            for alias in pod.aliases:  # annotations are free text: they never hide another pod's own uid
                self._uids.setdefault(alias, pod)
        self._containers = {c.id: (pod, c.name, c.pid) for pod in listed for c in pod.containers}
        self._containers |= {sandbox: (pod, "pause", None) for pod in listed for sandbox in pod.sandboxes}

    def of(self, uid: str, directory: CgroupDir, home: PodTold | None = None) -> PodTold | None:
        """What is told of the pod whose cgroup this is; `home` is whose containers are in it."""
        return self._uids.get(uid) or home or self._known.get((directory.path, directory.inode))

    def listed(self, uid: str) -> PodTold | None:
        """The pod of this uid in the list."""
        return self._uids.get(uid)

    def kind(self, kind: Kind, pod: PodTold | None) -> Kind:
        """A pod that its path says to be `kind`, with what is told of it."""
        if pod is None:
            unsure = self._cautious and kind.source == "kubelet" and kind.qos is Qos.BATCH
            return Kind(kind.source, Qos.MID, kind.uid, kind.name) if unsure else kind
        uid = kind.uid if self._uids.get(kind.uid) is pod else pod.uid
        return Kind(kind.source, classed(pod, kind.qos), uid, pod.full_name)

    def homes(self, dirs: Iterable[CgroupDir]) -> dict[str, PodTold]:
        """Cgroups that hold the containers of one pod and of no other, by the ids that are their names."""
        if not self._containers:
            return {}
        found: dict[str, PodTold | None] = {}
        for directory in dirs:
            above, _, name = directory.path.rpartition("/")
            told = self._containers.get(container_id(name))
            if told is not None and above:
                found[above] = told[0] if found.get(above, told[0]) is told[0] else None
        return {path: pod for path, pod in found.items() if pod is not None}

    def container(self, name: str) -> tuple[str, int | None]:
        """The name and main process of the container whose cgroup is called so; ("", None): not told."""
        _, called, pid = self._containers.get(container_id(name), (None, "", None))
        return called, pid


def _online(pod: PodTold) -> bool:
    return pod.qos is not Qos.BATCH


def classed(pod: PodTold, by_path: Qos) -> Qos:
    """Its class by label, else by path; what the system needs or wants to be left alone is never Batch."""
    qos = pod.qos or by_path
    return Qos.MID if qos is Qos.BATCH and (pod.critical or pod.hands_off) else qos


NOTHING = Told()
