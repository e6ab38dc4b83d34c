"""A link made from the configuration, and a thread for it where there is no server to share one with."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial

import grpc

from nodeagent.model.controller import ControllerSettings, node_name
from nodeagent.model.errors import Failed
from nodeagent.model.settings import Mode
from nodeagent.rpc.link import END_S, Link, Security
from nodeagent.rpc.orders import Take, take_none
from nodeagent.rpc.status import Who, in_force

START_TIMEOUT_S = 10.0
MAX_PEM_BYTES = 1 << 20


def link_to(
    settings: ControllerSettings,
    *,
    env: Mapping[str, str],
    hostname: str,
    version: str,
    mode: Mode,
    take: Take = take_none,
) -> Link:
    """The link to the controller at `settings.address`, not yet running."""
    who = Who(node_name(settings.node_name, env, hostname), version)
    obeyed = partial(in_force, configured=mode)
    return Link(settings, who, in_force=obeyed, security=security(settings), take=take)


def security(settings: ControllerSettings) -> Security:
    """TLS with the files of the settings, read at each connection; plain where they name none."""
    paths = (settings.tls_ca, settings.tls_cert, settings.tls_key)
    if not all(paths):
        return Security(lambda: None, lambda: None)

    def credentials() -> grpc.ChannelCredentials:
        ca, cert, key = map(_read, paths)
        return grpc.ssl_channel_credentials(ca, key, cert)

    return Security(credentials, lambda: tuple(map(_state, paths)))


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


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_PEM_BYTES)
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}", hint="controller.tls_ca, tls_cert and tls_key") from None


def _state(path: str) -> tuple[int, int, int] | None:
    """Another one when the file behind the path is another one, also behind links that were swapped."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
