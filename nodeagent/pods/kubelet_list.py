"""The kubelet's answer -> what is told of each pod: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nodeagent.model.kubernetes import ContainerTold, KubernetesSettings, PodTold
from nodeagent.model.pod import Qos
from nodeagent.pods.apps import app_wish
from nodeagent.pods.document import ContainerStatus, PodDocument, PodSpecDocument, Status, read_documents
from nodeagent.pods.labels import CONFIG_MIRROR, NUMA, Priced, wishes
from nodeagent.pods.requests import first_requested, requested

CONFIG_HASH = "kubernetes.io/config.hash"


def read_pods(raw: bytes, settings: KubernetesSettings) -> tuple[tuple[PodTold, ...], int]:
    """The pods in a /pods answer, and how many entries could not be read; Garbled for any other answer."""
    documents, unread = read_documents(raw)
    return tuple(pod_told(each, settings) for each in documents), unread


def pod_told(pod: PodDocument, settings: KubernetesSettings) -> PodTold:
    """One pod. Requests in cores and bytes; of Batch pods from the batch resources, where they have any."""
    meta, spec = pod.metadata, pod.spec or PodSpecDocument()
    labels, annotations = meta.labels or {}, meta.annotations or {}
    priced = Priced(spec.priority_class_name or "", spec.priority)
    wish = wishes(meta.namespace, labels, annotations, priced, settings)
    cpus, memory = requested(spec, "cpu"), requested(spec, "memory")
    if wish.qos is Qos.BATCH or (wish.qos is None and cpus is None):
        milli = first_requested(spec, settings.batch_cpu)
        cpus = cpus if milli is None else milli / 1000.0
        size = first_requested(spec, settings.batch_memory)
        memory = memory if size is None else size
    wrong, status = list(wish.wrong), pod.status or Status()
    bind = wish.numa_bind
    if bind and not wish.exclusive and cpus is None:
        wrong.append(f"{NUMA} = bind needs a CPU request")
        bind = False
    app = app_wish(annotations, _addresses(status), wrong, host_network=bool(spec.host_network))
    return PodTold(
        uid=meta.uid,
        namespace=meta.namespace,
        name=meta.name,
        qos=wish.qos,
        priority=wish.priority,
        cpus=cpus,
        memory=None if memory is None else int(memory),
        numa_bind=bind,
        exclusive=wish.exclusive,
        near=wish.near if bind else "",
        hands_off=wish.hands_off,
        critical=wish.critical,
        containers=tuple(_containers(status)),
        aliases=_aliases(annotations),
        wrong=tuple(wrong),
        app=app,
    )


def _addresses(status: Status) -> tuple[str, ...]:
    """Each once, the first one first."""
    given = (status.pod_ip or "", *(each.ip for each in status.pod_ips or ()))
    return tuple(dict.fromkeys(each for each in given if each))


def _aliases(annotations: Mapping[str, str]) -> tuple[str, ...]:
    """The hashes that name the cgroup of a static pod; whoever passes for one is never Batch."""
    if CONFIG_MIRROR not in annotations:
        return ()
    hashes = (annotations[CONFIG_MIRROR], annotations.get(CONFIG_HASH, ""))
    return tuple(dict.fromkeys(each for each in hashes if each))


def _containers(status: Status) -> Iterable[ContainerTold]:
    kinds = (status.container_statuses, status.init_container_statuses, status.ephemeral_container_statuses)
    for each in (each for kind in kinds for each in kind or ()):
        if (found := _id(each)) and each.name:
            yield ContainerTold(found, each.name)


def _id(status: ContainerStatus) -> str:
    """Without the runtime: "containerd://9f86..." -> "9f86..."."""
    return (status.container_id or "").rpartition("://")[2]
