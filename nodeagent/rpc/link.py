"""The link to a controller: one outbound stream after the other, for as long as the agent runs.

Invariant: publish() never waits; a controller that is dead, slow or silent costs a timer and a connection.
Its log has one line for each change: link.connected, link.lost, and link.failed for each new reason that
keeps it from connecting.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import grpc
import structlog

from nodeagent.model.controller import ControllerSettings, LinkSeen, where
from nodeagent.model.decision import Tick
from nodeagent.model.errors import AgentError
from nodeagent.rpc.account import Account
from nodeagent.rpc.backoff import Backoff
from nodeagent.rpc.keepalive import keepalive
from nodeagent.rpc.mailbox import Mailbox
from nodeagent.rpc.orders import Take, take_none
from nodeagent.rpc.status import InForce, Who
from nodeagent.rpc.stream import Counts, Lost, Stream

METHOD = "/nodeagent.v1.Collector/Report"
MAX_RESPONSE_BYTES = 64 << 10
POLITE_PING_S = 310.0  # servers that set nothing take a ping every 5 minutes, and hang up on more
END_S = 1.5
MAX_REASONS = 8  # that are told for one outage

log = structlog.get_logger()


class Security(NamedTuple):
    """`credentials`, asked for at each connection, None = plain; another `state`: connect anew.

    `not_after_unix` is when the certificate ends, None without one.
    """

    credentials: Callable[[], grpc.ChannelCredentials | None]
    state: Callable[[], object]
    not_after_unix: Callable[[], float | None]


class Link:
    """Reports to the controller of `settings`, whose address is valid and not ""."""

    def __init__(
        self,
        settings: ControllerSettings,
        who: Who,
        *,
        in_force: Callable[[Tick], InForce],
        security: Security,
        take: Take = take_none,
        refuse: Take = take_none,
    ) -> None:
        self._settings = settings
        self._who = who
        self._in_force = in_force
        self._security = security
        self._take = take if settings.directives else refuse
        self._mailbox = Mailbox()
        self._counts = Counts()
        self._backoff = Backoff(settings.backoff_s, settings.backoff_max_s)
        self._connects = self._losses = 0
        self._connected = False
        self._settled_at = 0.0
        self._ping_s: float | None = None
        self._told: set[str] = set()  # reasons, since it was connected last
        self._stream: Stream | None = None
        self._halt = asyncio.Event()

    def publish(self, tick: Tick) -> None:
        """Tell of this tick next. Called by the agent's loop: O(1), waits for nothing."""
        self._mailbox.put(tick)

    def seen(self) -> LinkSeen:
        """How it fares; for any thread."""
        counts = self._counts
        return LinkSeen(
            connected=self._connected,
            connects=self._connects,
            losses=self._losses,
            sent=dict(counts.sent),
            directives=dict(counts.directives),
            sent_unix=counts.sent_unix,
            tls_not_after_unix=self._security.not_after_unix(),
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connect, report and connect again on this event loop; at the end the offer is withdrawn."""
        self._mailbox.attach()
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._halt.set()
            if self._stream is not None:
                self._stream.stopping = True
            self._mailbox.wake()
            begun = self._stream is not None and self._stream.begun
            await asyncio.wait({task}, timeout=END_S if begun else 0.0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._connected = False

    async def _run(self) -> None:
        while not self._halt.is_set():
            try:
                await self._connect_and_report()
                return
            except Lost as lost:
                reason = lost
            except AgentError as error:
                reason = Lost(f"{error}" + (f"; hint: {error.hint}" if error.hint else ""))
            except Exception as error:  # whatever it is, the node goes on without a controller
                reason = Lost(f"bug: {error!r}")
            pause_s = self._backoff.pause_s(time.monotonic() - self._settled_at if self._connected else 0.0)
            self._lost(reason, pause_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._halt.wait()

    async def _connect_and_report(self) -> None:
        state = self._security.state()
        settings = self._settings
        account = Account(self._who, settings.report_s, settings.heartbeat_s)
        async with self._channel() as channel:
            call = channel.stream_stream(METHOD)()
            self._stream = Stream(
                call,
                self._mailbox,
                account,
                in_force=self._in_force,
                take=self._take,
                issuer=f"controller:{settings.address}",
                counts=self._counts,
                settled=self._settled,
                outdated=lambda: "" if self._security.state() == state else "the files of TLS are others now",
            )
            try:
                await self._stream.run()
            finally:
                self._stream = None

    def _channel(self) -> grpc.aio.Channel:
        place = where(self._settings.address)
        assert place is not None, self._settings.address
        options: list[tuple[str, str | int]] = [
            ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new connection
            ("grpc.enable_http_proxy", 0),  # what the environment names is for other programs
            ("grpc.enable_retries", 0),
            ("grpc.service_config_disable_resolution", 1),
            ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
            *keepalive(self._ping_s),
            ("grpc.http2.max_pings_without_data", 0),
        ]
        credentials = self._security.credentials()
        if credentials is None:
            return grpc.aio.insecure_channel(place.target, options=options)
        if name := self._settings.server_name:
            options += [("grpc.ssl_target_name_override", name), ("grpc.default_authority", name)]
        return grpc.aio.secure_channel(place.target, credentials, options=options)

    def _settled(self) -> None:
        self._connected, self._settled_at = True, time.monotonic()
        self._told.clear()
        self._connects += 1
        log.info("link.connected", address=self._settings.address, node_name=self._who.node_name)

    def _lost(self, lost: Lost, pause_s: float) -> None:
        why = str(lost)
        if re.search("too.many.pings|ENHANCE_YOUR_CALM", why, re.IGNORECASE):
            self._ping_s = POLITE_PING_S
        self._losses += 1
        gist = re.sub(r"\d+", "", why)
        news = self._connected or (gist not in self._told and len(self._told) < MAX_REASONS)
        level = "debug" if not news else "info" if lost.planned else "warning"
        event = "link.lost" if self._connected else "link.failed"
        getattr(log, level)(event, address=self._settings.address, why=why, next_try_s=round(pause_s, 2))
        self._connected = False
        if len(self._told) < MAX_REASONS:
            self._told.add(gist)
