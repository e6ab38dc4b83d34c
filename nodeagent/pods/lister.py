"""Asks the kubelet, and where it does not answer the container runtime, in a thread of its own.

    loop: latest() -> Listing, at once      poke(): ask now      thread: ask, publish, wait poll_s

Invariants: a slow or dead kubelet delays nobody; a failure replaces no list; an empty list is not believed
while pods of the kubelet are there.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from nodeagent.model.errors import AgentError, Failed
from nodeagent.model.kubernetes import KubernetesSettings, PodTold
from nodeagent.pods.kubelet import KubeletClient
from nodeagent.pods.kubelet_list import read_pods

if TYPE_CHECKING:  # it takes grpc, and most nodes never ask it
    from nodeagent.pods.cri import Runtime

LEAST_GAP_S = 0.2  # between two answers, however often it is poked
JOIN_S = 5.0
KUBELET, CRI, PATHS = "kubelet", "cri", "paths"
CRI_SOCKETS = ("/run/containerd/containerd.sock", "/run/crio/crio.sock")

Answer = tuple[tuple[PodTold, ...], str]  # the pods, and what of the answer could not be read


class Listing(Struct, frozen=True):
    """The last good list, and how the last attempt went.

    `at` is the monotonic time of that list's answer, None as long as there was none; `source` who gave it
    ("kubelet", "cri"; "paths" without one). `asked` counts attempts. `error` says why the last attempt gave
    no list, or not the kubelet's, or what of it could not be read.
    """

    source: str = PATHS
    at: float | None = None
    pods: tuple[PodTold, ...] = ()
    asked: int = 0
    error: str = ""


class PodLister:
    """One thread, started by the first `latest`; `close` it. `url` or `socket` "" is not asked."""

    def __init__(self, settings: KubernetesSettings, url: str, socket: str) -> None:
        self.expects_pods = False  # whether pods of the kubelet are there, so that no list can be empty
        self._settings = settings
        self._kubelet = KubeletClient(url, settings) if url else None
        self._socket = socket
        self._runtime: Runtime | None = None
        self._detailed: dict[str, PodTold] = {}  # what the kubelet said last, by uid
        self._listing = Listing()
        self._poked = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def latest(self) -> Listing:
        """What is known now; it never waits."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="pod-list", daemon=True)
            self._thread.start()
        return self._listing

    def first(self, timeout_s: float) -> None:
        """Wait until everybody has been asked once: for commands that look but once."""
        until = time.monotonic() + timeout_s
        while not self.latest().asked and time.monotonic() < until:
            time.sleep(0.01)

    def poke(self) -> None:
        """A pod is new: ask now."""
        self._poked.set()

    def close(self) -> None:
        """End the thread, unless it waits for an answer: then it ends with that."""
        self._stopped.set()
        self._poked.set()
        if self._thread is not None:
            self._thread.join(JOIN_S)

    def ask(self) -> Listing:
        """One attempt, here and now: the kubelet, else the runtime, else what was before and why."""
        before, errors = self._listing, []
        for source, asked in self._sources():
            try:
                pods, unread = asked()
            except AgentError as failed:
                errors.append(f"{failed} ({failed.hint})" if failed.hint else str(failed))
                continue
            except Exception as bug:  # what pods say of themselves must never end the agent
                errors.append(f"{source}: {bug!r}, a bug: report it")
                continue
            if pods == before.pods:
                pods = before.pods  # the same object, by which it is known that nothing is to be done
            why = "; ".join(text for text in (*errors, unread) if text)
            return Listing(source, time.monotonic(), pods, before.asked + 1, why)
        return replace(before, asked=before.asked + 1, error="; ".join(errors))

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                self._poked.clear()
                self._listing = self.ask()
                if not self._stopped.wait(LEAST_GAP_S):
                    self._poked.wait(max(0.0, self._settings.poll_s - LEAST_GAP_S))
        finally:
            if self._runtime is not None:
                self._runtime.close()

    def _sources(self) -> list[tuple[str, Callable[[], Answer]]]:
        kubelet = [(KUBELET, self._ask_kubelet)] if self._kubelet is not None else []
        return [*kubelet, (CRI, self._ask_runtime)] if self._socket else kubelet

    def _ask_kubelet(self) -> Answer:
        assert self._kubelet is not None
        pods, unread = read_pods(self._kubelet.fetch(), self._settings)
        self._check(pods, self._kubelet.url)
        self._detailed = {pod.uid: pod for pod in pods}
        return pods, f"{unread} pods of its list could not be read" if unread else ""

    def _ask_runtime(self) -> Answer:
        if self._runtime is None:
            from nodeagent.pods.cri import Runtime

            self._runtime = Runtime(self._socket, self._settings)
        pods = self._runtime.pods()
        self._check(pods, self._socket)
        return tuple(self._with_details(pod) for pod in pods), ""

    def _check(self, pods: tuple[PodTold, ...], where: str) -> None:
        if not pods and self.expects_pods:
            raise Failed(f"{where} lists no pods, but there are cgroups of pods")

    def _with_details(self, pod: PodTold) -> PodTold:
        """What the runtime tells of a pod that the kubelet has told more of."""
        known = self._detailed.get(pod.uid)
        if known is None:
            return pod
        return replace(known, containers=pod.containers, sandboxes=pod.sandboxes)


def cri_socket(endpoint: str, host_root: str) -> str:
    """The runtime's socket as seen from here; "" where "auto" finds none, or none is wanted."""
    if endpoint == "auto":
        found = (host_root.rstrip("/") + path for path in CRI_SOCKETS)
        return next((path for path in found if os.path.exists(path)), "")
    return endpoint.removeprefix("unix://")
