"""Pods, containers and their first processes as the container runtime tells them (CRI v1, else v1alpha2).

Second to the kubelet: it knows labels and annotations, but no requests. Imported only where it is asked.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TypeVar

import grpc
import msgspec
from google.protobuf.message import DecodeError, Message

from nodeagent.cri.v1 import cri_pb2 as pb
from nodeagent.model.errors import Failed, Garbled, Unsupported
from nodeagent.model.kubernetes import ContainerTold, KubernetesSettings, PodTold
from nodeagent.pods.document import Metadata, PodDocument, is_name
from nodeagent.pods.kubelet_list import pod_told

VERSIONS = ("v1", "v1alpha2")
MAX_ANSWER_BYTES = 16 << 20
MAX_ASKED = 128  # containers whose process is asked for in one turn
READY, RUNNING = 0, 1

M = TypeVar("M", bound=Message)


class _Info(msgspec.Struct, frozen=True):
    pid: int


class Runtime:
    """One container runtime, asked over its socket; for one thread. `close` it."""

    def __init__(self, path: str, settings: KubernetesSettings, version: str = VERSIONS[0]) -> None:
        self.path = path
        self.version = version  # that it was last asked by
        self._settings = settings
        self._pids: dict[str, int | None] = {}
        options = [("grpc.max_receive_message_length", MAX_ANSWER_BYTES), ("grpc.enable_http_proxy", 0)]
        self._channel = grpc.insecure_channel(f"unix:{path}", options=options)

    def pods(self) -> tuple[PodTold, ...]:
        """All pods that run; Failed, Garbled or Unsupported when the runtime does not tell."""
        deadline = time.monotonic() + self._settings.timeout_s
        boxes = self._versioned(deadline)
        listed = self._call("ListContainers", pb.ListContainersRequest(), pb.ListContainersResponse, deadline)
        running = [each for each in listed.containers if each.state == RUNNING]
        self._ask_pids([each.id for each in running], deadline)
        by_box: dict[str, list[ContainerTold]] = {}
        for each in running:
            told = ContainerTold(each.id, each.metadata.name, self._pids.get(each.id))
            by_box.setdefault(each.pod_sandbox_id, []).append(told)
        ready = [box for box in boxes.items if box.state == READY and _named(box.metadata)]
        return tuple(_merged(self._told(box, by_box.get(box.id, [])) for box in ready))

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def _told(self, box: pb.PodSandbox, containers: Iterable[ContainerTold]) -> PodTold:
        meta = box.metadata
        document = PodDocument(
            Metadata(meta.uid, meta.name, meta.namespace, dict(box.labels), dict(box.annotations))
        )
        told = pod_told(document, self._settings)
        return msgspec.structs.replace(told, containers=tuple(containers), sandboxes=(box.id,))

    def _versioned(self, deadline: float) -> pb.ListPodSandboxResponse:
        """The sandboxes, by a version of the interface that the runtime has, which may change."""
        request, answer = pb.ListPodSandboxRequest(), pb.ListPodSandboxResponse
        try:
            return self._call("ListPodSandbox", request, answer, deadline)
        except Unsupported:
            self.version = VERSIONS[VERSIONS.index(self.version) - 1]
            return self._call("ListPodSandbox", request, answer, deadline)

    def _ask_pids(self, ids: list[str], deadline: float) -> None:
        """The process of each container that is new."""
        self._pids = {each: self._pids[each] for each in ids if each in self._pids}
        for container in [each for each in ids if each not in self._pids][:MAX_ASKED]:
            if time.monotonic() > deadline:
                return
            self._pids[container] = self._pid(container, deadline)

    def _pid(self, container: str, deadline: float) -> int | None:
        request = pb.ContainerStatusRequest(container_id=container, verbose=True)
        try:
            answer = self._call("ContainerStatus", request, pb.ContainerStatusResponse, deadline)
            pid = msgspec.json.decode(answer.info.get("info", ""), type=_Info).pid
        except (Failed, Garbled, Unsupported, ValueError, RecursionError):
            return None  # it has ended, or the runtime tells its processes to nobody
        return pid if pid > 0 else None

    def _call(self, method: str, request: Message, answer: type[M], deadline: float) -> M:
        call = self._channel.unary_unary(f"/runtime.{self.version}.RuntimeService/{method}")
        try:
            raw = call(request.SerializeToString(), timeout=max(0.0, deadline - time.monotonic()))
            return answer.FromString(raw)
        except DecodeError:
            raise Garbled(f"{self.path}: {method}: not what CRI says") from None
        except grpc.RpcError as error:
            what = f"{self.path}: {method}: {error.code().name}: {(error.details() or '')[:200]}"
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                hint = 'in containerd\'s configuration: no "cri" in disabled_plugins'
                raise Unsupported(what, hint=hint) from None
            raise Failed(what, hint="is kubernetes.cri_endpoint right, and do we run as root?") from None


def _named(meta: pb.PodSandboxMetadata) -> bool:
    return all(is_name(text) for text in (meta.uid, meta.name, meta.namespace))


def _merged(told: Iterable[PodTold]) -> Iterable[PodTold]:
    """One for each uid: a pod whose sandbox was made anew may have two for a moment."""
    found: dict[str, PodTold] = {}
    for pod in told:
        old = found.get(pod.uid)
        found[pod.uid] = (
            pod
            if old is None
            else msgspec.structs.replace(
                pod, containers=old.containers + pod.containers, sandboxes=old.sandboxes + pod.sandboxes
            )
        )
    return found.values()
