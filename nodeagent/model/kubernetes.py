"""What Kubernetes says of the pods on this node, and the [kubernetes] section: how that is asked for.

Invariant: None and "" are "not told", which never makes a pod Batch.
"""

from __future__ import annotations

import enum
from typing import Annotated

from msgspec import Meta, Struct

from nodeagent.model.app import AppWish
from nodeagent.model.pod import Priority, Qos

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


class Enabled(enum.StrEnum):
    AUTO = "auto"
    ON = "on"
    OFF = "off"


class KubernetesSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Pods by name, label and request, from the kubelet or the container runtime."""

    enabled: Annotated[
        Enabled,
        Meta(description="auto: where there is a service account token or agent.kubelet_dir; on; off"),
    ] = Enabled.AUTO
    kubelet_url: Annotated[
        str,
        Meta(
            max_length=300,
            description="https://HOST:10250, or http://127.0.0.1:10255 (read-only port); default: https on "
            "$NODE_IP or 127.0.0.1 with a token, else the read-only port",
        ),
    ] = ""
    token_file: Annotated[
        str, Meta(max_length=4096, description="bearer token for https, read again each time")
    ] = f"{SERVICE_ACCOUNT}/token"
    ca_file: Annotated[
        str,
        Meta(max_length=4096, description="who signs the kubelet's certificate (or that certificate itself)"),
    ] = f"{SERVICE_ACCOUNT}/ca.crt"
    server_name: Annotated[
        str, Meta(max_length=253, description="name in the kubelet's certificate, if not the host of the URL")
    ] = ""
    insecure_skip_verify: Annotated[
        bool,
        Meta(description="believe and send the token to whoever answers: only where the network is trusted"),
    ] = False
    poll_s: Annotated[
        float, Meta(ge=0.2, le=600.0, description="time between two lists; a new pod is asked for at once")
    ] = 5.0
    timeout_s: Annotated[float, Meta(ge=0.1, le=60.0, description="longest that one answer may take")] = 2.0
    stale_after_s: Annotated[
        float, Meta(ge=1.0, le=86400.0, description="a list that cannot be renewed is used for so long")
    ] = 300.0
    qos_label: Annotated[
        str,
        Meta(min_length=1, max_length=317, description="pod label that names the class: LS, MID or BATCH"),
    ] = "nodeagent.io/qos"
    priority_label: Annotated[
        str,
        Meta(
            min_length=1, max_length=317, description="pod label: high, medium or low, matters inside batch"
        ),
    ] = "nodeagent.io/priority"
    batch_cpu: Annotated[
        tuple[str, ...], Meta(description="resources in milli-cores that Batch pods request, first one first")
    ] = ("nodeagent.io/batch-cpu", "kubernetes.io/batch-cpu")
    batch_memory: Annotated[
        tuple[str, ...], Meta(description="resources in bytes that Batch pods request, first one first")
    ] = ("nodeagent.io/batch-memory", "kubernetes.io/batch-memory")
    cri_endpoint: Annotated[
        str,
        Meta(
            max_length=300,
            description='unix:///path of the container runtime, asked where the kubelet is not; "auto": '
            'containerd or CRI-O; "" = never',
        ),
    ] = "auto"

    @property
    def awaited(self) -> bool:
        """Whether the kubelet is to answer: until it has, nothing of Kubernetes is taken for Batch."""
        return self.enabled is Enabled.ON or bool(self.kubelet_url)


class ContainerTold(Struct, frozen=True, array_like=True, gc=False):
    """A container of a pod: the runtime's id, its name, and its main process where the runtime tells it."""

    id: str
    name: str
    pid: int | None = None


class PodTold(Struct, frozen=True, kw_only=True):
    """One pod as Kubernetes describes it. `qos` None: as its cgroup's path says.

    `critical` pods (static ones, the system's) are never Batch but by an operator's rule. `aliases` are
    other uids by which its cgroup may be called. `wrong` are labels and annotations that were not understood.
    """

    uid: str
    namespace: str
    name: str
    qos: Qos | None = None
    priority: Priority = Priority.MEDIUM
    cpus: float | None = None
    memory: int | None = None
    numa_bind: bool = False
    exclusive: bool = False
    near: str = ""
    hands_off: bool = False
    critical: bool = False
    containers: tuple[ContainerTold, ...] = ()
    sandboxes: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    app: AppWish = AppWish()

    @property
    def full_name(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"


class ListState(enum.StrEnum):
    """WAITING: nobody has answered yet. NEVER: nor will anybody, it seems. EXPIRED: of no more use."""

    WAITING = "waiting"
    FRESH = "fresh"
    STALE = "stale"
    EXPIRED = "expired"
    NEVER = "never"


class PodList(Struct, frozen=True, gc=False):
    """The list that the pods of a snapshot were joined with.

    `source` is "kubelet", "cri", or "paths" while there is no list. `at` is the monotonic time of its
    answer, `error` why there is no newer one. `wrong` are pods by name with what was not understood of them.
    """

    source: str
    state: ListState
    at: float | None = None
    pods: int = 0
    error: str = ""
    wrong: tuple[tuple[str, str], ...] = ()
