"""A link made from the configuration, and a thread for it where there is no server to share one with."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial

import grpc
import structlog

from nodeagent.model.controller import ControllerSettings, node_name
from nodeagent.model.errors import AgentError
from nodeagent.model.settings import Mode
from nodeagent.rpc.link import END_S, Link, Security
from nodeagent.rpc.orders import Take, take_none
from nodeagent.rpc.status import Who, in_force
from nodeagent.rpc.tls import Identity, TlsFiles

START_TIMEOUT_S = 10.0

log = structlog.get_logger()


def link_to(
    settings: ControllerSettings,
    *,
    env: Mapping[str, str],
    hostname: str,
    version: str,
    mode: Mode,
    take: Take = take_none,
    refuse: Take = take_none,
) -> Link:
    """The link to the controller at `settings.address`, not yet running.

    Directives go to `take` where the settings let the controller direct, else to `refuse`.
    """
    who = Who(node_name(settings.node_name, env, hostname), version)
    obeyed = partial(in_force, configured=mode)
    return Link(settings, who, in_force=obeyed, security=security(settings), take=take, refuse=refuse)


def security(settings: ControllerSettings) -> Security:
    """TLS with the files of the settings, read again when they change; plain where they name none."""
    files = TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_ca)
    if not all(files):
        return Security(lambda: None, lambda: None, lambda: None)
    trust = _Trust(files)
    return Security(trust.credentials, trust.state, trust.not_after_unix)


class _Trust:
    """The identity in files that need not be there yet, when the agent starts. On the link's event loop."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._identity: Identity | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """What the last `state` has found; Failed while the files have never been good."""
        return self._found().channel_credentials()

    def state(self) -> object:
        """Another object once the files hold something else that is good, None before."""
        with contextlib.suppress(AgentError):  # `credentials` says why
            identity = self._found()
            identity.refresh()
            while identity.news:
                news = identity.news.popleft()
                getattr(log, news.level)(news.name, of="controller", **news.keys)
            return identity.material
        return None

    def not_after_unix(self) -> float | None:
        """For any thread."""
        return None if self._identity is None else self._identity.material.not_after_unix

    def _found(self) -> Identity:
        if self._identity is None:
            self._identity = Identity(self._files)
        return self._identity


class LinkThread:
    """A daemon thread with an event loop for a link alone."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="link", daemon=True)
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._halt = asyncio.Event()

    def start(self) -> None:
        """Begin to connect; does not wait for the controller."""
        self._thread.start()
        self._started.result(START_TIMEOUT_S)

    def stop(self) -> None:
        """Withdraw the offer, end the stream; waits for a moment at most."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._started.result(START_TIMEOUT_S).call_soon_threadsafe(self._halt.set)
        self._thread.join(END_S + 5.0)

    async def _main(self) -> None:
        async with self._link.running():
            self._started.set_result(asyncio.get_running_loop())
            await self._halt.wait()
