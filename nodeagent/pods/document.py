"""A pod as the kubelet's /pods gives it, as far as it matters here; all else is skipped.

Invariant: one pod that cannot be read costs that pod; an answer that is no list of pods is refused whole.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct, field

from nodeagent.model.errors import Garbled

MAX_PODS = 4096
MAX_CONTAINERS = 512  # in one pod

Amounts = dict[str, str | int | float | None]


class Resources(Struct, frozen=True):
    """What a container, or a pod as a whole, requests and is limited to."""

    requests: Amounts | None = None
    limits: Amounts | None = None


class ContainerSpec(Struct, frozen=True, rename="camel"):
    """One container; an init container with `restart_policy` "Always" is a sidecar, which runs on."""

    name: str = ""
    resources: Resources | None = None
    restart_policy: str | None = None


class ContainerStatus(Struct, frozen=True, rename="camel"):
    """`container_id` is "containerd://ID", or nothing before it was made."""

    name: str = ""
    container_id: str | None = field(default=None, name="containerID")


class Metadata(Struct, frozen=True):
    """Who it is."""

    uid: str
    name: str
    namespace: str
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class PodSpecDocument(Struct, frozen=True, rename="camel"):
    """What it wants."""

    containers: list[ContainerSpec] | None = None
    init_containers: list[ContainerSpec] | None = None
    overhead: Amounts | None = None
    resources: Resources | None = None
    priority: int | None = None
    priority_class_name: str | None = None
    host_network: bool | None = None


class Address(Struct, frozen=True):
    """One of a pod's addresses."""

    ip: str = ""


class Status(Struct, frozen=True, rename="camel"):
    """Which containers it has, and its addresses (of the host, where it has no network of its own)."""

    pod_ip: str | None = field(default=None, name="podIP")
    pod_ips: list[Address] | None = field(default=None, name="podIPs")

    container_statuses: list[ContainerStatus] | None = None
    init_container_statuses: list[ContainerStatus] | None = None
    ephemeral_container_statuses: list[ContainerStatus] | None = None


class PodDocument(Struct, frozen=True):
    """v1.Pod."""

    metadata: Metadata
    spec: PodSpecDocument | None = None
    status: Status | None = None


class _List(Struct, frozen=True):
    kind: str
    items: list[Raw] | None = None


def read_documents(raw: bytes) -> tuple[tuple[PodDocument, ...], int]:
    """The pods of a v1.PodList, and how many of its entries are none; Garbled for anything else."""
    try:
        listed = msgspec.json.decode(raw, type=_List)
    except (ValueError, RecursionError) as error:  # msgspec's and Unicode's errors are ValueErrors
        raise Garbled(f"not a list of pods: {error}") from error
    if listed.kind != "PodList":
        raise Garbled(f"not a list of pods: kind is {listed.kind[:40]!a}")
    items = listed.items or []
    if len(items) > MAX_PODS:
        raise Garbled(f"more than {MAX_PODS} pods")
    found = [_document(item) for item in items]
    return tuple(each for each in found if each is not None), found.count(None)


def _document(raw: Raw) -> PodDocument | None:
    try:
        pod = msgspec.json.decode(raw, type=PodDocument)
    except (ValueError, RecursionError):
        return None
    meta, spec = pod.metadata, pod.spec or PodSpecDocument()
    named = all(is_name(text) for text in (meta.uid, meta.name, meta.namespace))
    fits = len(spec.containers or ()) <= MAX_CONTAINERS and len(spec.init_containers or ()) <= MAX_CONTAINERS
    return pod if named and fits else None


def is_name(text: str) -> bool:
    """True for what may be shown and compared: a name, a namespace, a uid."""
    return 0 < len(text) <= 253 and text.isascii() and text.isprintable() and "/" not in text
