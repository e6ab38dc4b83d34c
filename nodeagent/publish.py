"""Tells the offer to the Kubernetes API server, on a thread of its own: the loop only ever sets a reference.

Invariant: at most one request is under way and the newest offer wins; an offer that has run out is told as 0
while this thread lives; whatever the API server does, it is asked again after a pause that grows,
or at once when the offer is withdrawn.
"""

from __future__ import annotations

import importlib.util
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol

import structlog

from nodeagent.core.publish import Patch, Told, amounts, due, patch, removal, withdrawn
from nodeagent.model.decision import Tick
from nodeagent.model.errors import AgentError, Misconfigured
from nodeagent.model.publish import PublishSettings

LOOK_S = 1.0  # how often it is asked whether something is due, without a tick
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
LEAVE_S = 3.0  # for the last patch, when the agent ends
log = structlog.get_logger()

Send = Callable[[Patch], None]  # AgentError when it was not taken


class Count(Protocol):
    """Hears how each attempt went."""

    def __call__(self, *, ok: bool) -> None: ...


class Publisher:
    """`connect` is called on the thread and gives what sends a patch; `count` hears how each attempt went."""

    def __init__(self, settings: PublishSettings, connect: Callable[[], Send], count: Count) -> None:
        self._settings = settings
        self._connect = connect
        self._count = count
        self._latest: Tick | None = None
        self._wake = threading.Event()
        self._halt = threading.Event()
        self._send: Send | None = None
        self._told: Told | None = None
        self._why = ""
        self._thread = threading.Thread(target=self._run, name="publish", daemon=True)

    def start(self) -> None:
        """Publish from now on."""
        self._thread.start()

    def publish(self, tick: Tick, *_: object) -> None:
        """Tell this tick's offer, if it is worth it. Called by the loop: O(1), waits for nothing."""
        self._latest = tick
        self._wake.set()

    def stop(self) -> None:
        """Take the resources away and end; an API server that does not answer is given LEAVE_S."""
        self._halt.set()
        self._wake.set()
        self._thread.join(LEAVE_S + 1.0)

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._halt.is_set():
            self._wake.wait(LOOK_S)
            self._wake.clear()
            if self._halt.is_set() or self._latest is None:
                continue
            if self._tell():
                pause_s = FIRST_PAUSE_S
            else:
                self._rest(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
        self._attempt(removal(self._settings))  # also what a killed run has left

    def _rest(self, pause_s: float) -> None:
        """Until the pause is over, or the offer is withdrawn meanwhile: that does not wait."""
        end, before = time.monotonic() + pause_s, self._now()
        while not self._halt.is_set() and (left_s := end - time.monotonic()) > 0.0:
            if withdrawn(before, self._now()):
                return
            self._wake.wait(min(left_s, LOOK_S))
            self._wake.clear()

    def _now(self) -> Told:
        tick = self._latest
        return amounts(tick.decision.capacity if tick else None, time.time(), time.monotonic())

    def _tell(self) -> bool:
        """False when it was to be told and was not taken."""
        now = self._now()
        if not due(self._told, now, self._settings):
            return True
        if not self._attempt(patch(now, time.time(), self._settings)):
            return False
        self._told = now
        return True

    def _attempt(self, body: Patch) -> bool:
        try:
            self._send = self._send or self._connect()
            self._send(body)
        except AgentError as error:
            self._send = None  # connect anew: tokens and addresses change
            self._count(ok=False)
            if str(error) != self._why:
                log.warning("publish.failed", why=str(error), hint=error.hint)
            self._why = str(error)
            return False
        self._count(ok=True)
        if self._why:
            log.info("publish.resumed", was=self._why)
        self._why = ""
        return True


def publishing(settings: PublishSettings, stack: ExitStack, count: Count) -> list[Callable[..., None]]:
    """What takes each tick, until `stack` is left: nothing if not enabled; may be Misconfigured."""
    if not settings.enabled:
        return []
    publisher = Publisher(settings, api_server(settings), count)
    publisher.start()
    stack.callback(publisher.stop)
    return [publisher.publish]


def node_name(settings: PublishSettings) -> str:
    """The node's name in Kubernetes."""
    return settings.node_name or os.environ.get("NODE_NAME", "") or socket.gethostname()


def api_server(settings: PublishSettings, timeout_s: float = LEAVE_S) -> Callable[[], Send]:
    """What connects to the API server of this pod, or of $KUBECONFIG; Misconfigured without lightkube."""
    if importlib.util.find_spec("lightkube") is None:
        hint = "pip install 'nodeagent[kubernetes]'"
        raise Misconfigured("publish.enabled needs the package lightkube", hint)

    def connect() -> Send:
        from nodeagent.kube import status_patcher  # here: it takes 10 MiB

        return status_patcher(node_name(settings), timeout_s=timeout_s)

    return connect
