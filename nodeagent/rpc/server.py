"""The gRPC server: one daemon thread with an event loop of its own, next to the agent's loop.

    unix -- door.py: who is it --\\
    TCP, TLS --------------------- gRPC -- guard.py: how often, may it -- service.py

Invariant: publish() is one assignment and at most one wake-up; nothing that a client does or leaves undone
makes it wait, and no more is queued between the two threads than the events of a few ticks.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

import grpc
from grpc_health.v1 import health, health_pb2

from nodeagent.model.decision import Memory, Tick
from nodeagent.model.errors import Failed
from nodeagent.model.event import Event
from nodeagent.model.policy import Policy
from nodeagent.model.rpc_told import RpcTold
from nodeagent.rpc.address import listen, parse, parse_tls
from nodeagent.rpc.app_calls import SERVICE as APP_SIGNALS
from nodeagent.rpc.app_calls import AppCalls, Pushes
from nodeagent.rpc.control import Control
from nodeagent.rpc.cut import cut_untrusted
from nodeagent.rpc.directing import Taker
from nodeagent.rpc.door import CgroupOf, nowhere
from nodeagent.rpc.entrance import Terms, entrance
from nodeagent.rpc.keepalive import keepalive
from nodeagent.rpc.posted import Accountant, Posted
from nodeagent.rpc.service import SERVICE, Service
from nodeagent.rpc.tls import Identity

MAX_REQUEST_BYTES = 64 << 10
UNARY_CALLS = 32  # at a time, besides the watchers
START_TIMEOUT_S = 10.0
HANDSHAKE_MS = 10_000  # of TLS and HTTP/2 together
AGE_GRACE_MS = 60_000  # for calls that are open when a connection is old; then they are cut

Beside = Callable[[], contextlib.AbstractAsyncContextManager[None]]
DEFAULT, EMPTY = Policy(), Memory()


class RpcServer:
    """Serves nodeagent.v1.NodeAgent, health and reflection at `address` (see `address.parse`).

    With `tls` also at `tls_address`, for clients with a certificate of its CAs (address = "": there alone);
    `terms` say who may what, and how often.
    `control` is the unix socket for Control, which only root may open; "" = it is not served. `accountant`
    makes of a tick what Explain and ListPods tell; None: nothing is explained. `beside` is entered on the
    server's event loop once it serves, and left before it stops. `pushes` takes what applications tell;
    None: nothing is taken.
    Misconfigured at once for an address that is neither a unix socket nor on loopback.
    """

    _loop: asyncio.AbstractEventLoop | None = None
    _serving: asyncio.Task[None] | None = None
    _grace_s = 0.0
    _poked = False

    def __init__(  # noqa: PLR0913  # one for each setting
        self,
        address: str,
        *,
        hostname: str,
        version: str,
        heartbeat_s: float = 10.0,
        max_message_bytes: int = 4 << 20,
        max_watchers: int = 64,
        reflection: bool = True,
        control: str = "",
        directives: Taker | None = None,
        accountant: Accountant | None = None,
        beside: Beside = contextlib.nullcontext,
        tls: Identity | None = None,
        tls_address: str = "",
        terms: Terms = Terms(),  # noqa: B008  # a tuple
        pushes: Pushes | None = None,
    ) -> None:
        self.address, self.tls, self.tls_address = address, tls, tls_address
        self.control = Control(control)
        self.service = Service(
            hostname=hostname,
            version=version,
            heartbeat_s=heartbeat_s,
            max_message_bytes=max_message_bytes,
            max_watchers=max_watchers,
            directives=directives,
        )
        self._accountant = accountant
        self._where = parse(address) if address or not tls_address else None
        self._per_peer = max_watchers + UNARY_CALLS
        self._options = _options(max_message_bytes, self._per_peer, terms.max_connection_age_s)
        self._pushes = pushes
        self._door, self.guard = entrance(self._where, terms, self._per_peer, _cgroup_of(pushes))
        self._reflection, self._beside = reflection, beside
        self._health = health.aio.HealthServicer()
        self._thread = threading.Thread(target=self._run, name="rpc", daemon=True)
        self._halt = asyncio.Event()
        self._started: Future[None] = Future()

    def start(self) -> None:
        """Listen; then `address` and `tls_address` are those for clients. Failed when that cannot be."""
        self._thread.start()
        try:
            self._started.result(START_TIMEOUT_S)
        except TimeoutError:
            raise Failed(
                f"gRPC does not listen after {START_TIMEOUT_S:g} s", hint="is the node that busy?"
            ) from None

    def publish(
        self, tick: Tick, policy: Policy = DEFAULT, before: Memory = EMPTY, events: Sequence[Event] = ()
    ) -> None:
        """Serve this tick from now on. Called by the agent's loop: O(1), waits for nothing.

        `policy` and `before` are what it was decided with, `events` what happened in it.
        Without events the server's thread is woken only for watchers: who begins to watch reads the latest.
        """
        accountant = self._accountant
        account = None if accountant is None else partial(accountant, tick, policy, before)
        self.service.board.events.post(tick.snapshot.seq, tick.snapshot.unix, events)
        self.service.board.post(Posted(tick, time.monotonic(), account))
        heard = self.service.board.watchers or events or self._serving is None
        if heard and self._loop is not None and not self._poked:
            self._poked = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._wake)

    def told(self) -> RpcTold:
        """How the clients fare, and what is to be logged; news are told once. Called by the agent's loop."""
        news = []
        while self.tls is not None and self.tls.news:
            news.append(self.tls.news.popleft())
        return RpcTold(
            calls=self.guard.open_calls,
            refused=dict(self.guard.refused),
            not_after_unix=self.tls.material.not_after_unix if self.tls else None,
            files_ok=self.tls is None or not self.tls.complaint,
            news=tuple(news),
        )

    def stop(self, grace_s: float = 1.0) -> None:
        """Turn unhealthy, end the streams, wait up to `grace_s` for calls in flight, remove the socket."""
        if self._loop is None:
            return
        self._grace_s = grace_s
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._halt.set)
        self._thread.join(grace_s + 5.0)
        self._loop = None

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _serve(self) -> None:
        server = grpc.aio.server(
            interceptors=(self.guard,),
            options=self._options,
            maximum_concurrent_rpcs=4 * self._per_peer,  # the guard has limits for each client
        )
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        apps = () if self._pushes is None else (AppCalls(self._pushes).handlers(),)
        handlers = (self.service.handlers(), *apps)
        _add_services(server, handlers, self._health, self._reflection)
        server.add_generic_rpc_handlers((self.control.refusals(),))
        try:
            self._listen(server)
            await server.start()
            self._loop = asyncio.get_running_loop()
            self._wake()  # a tick may have been posted already
            if self._door is not None:
                await self._door.serve()
            async with self.control.served(self._options), self._beside():
                self._started.set_result(None)
                await self._until_halt()
            await self._end(server)
        finally:
            if self._door is not None:
                self._door.shut()

    def _listen(self, server: grpc.aio.Server) -> None:
        if self._door is not None:
            self.address = self._door.open(server.add_insecure_port)
        elif self._where is not None:
            self.address = listen(self._where, server.add_insecure_port)
        if self.tls_address and self.tls is not None:
            credentials = self.tls.server_credentials()
            self.tls_address = listen(
                parse_tls(self.tls_address), lambda address: server.add_secure_port(address, credentials)
            )

    async def _until_halt(self) -> None:
        if self.tls is None:
            await self._halt.wait()
            return
        watch = asyncio.create_task(cut_untrusted(self.tls, int(self.tls_address.rpartition(":")[2])))
        await self._halt.wait()
        watch.cancel()

    async def _end(self, server: grpc.aio.Server) -> None:
        # A watcher of the health service that does not read could hold its lock for ever.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._health.enter_graceful_shutdown(), 1.0)
        self.service.board.end()
        if self._door is not None:
            self._door.shut()
        await server.stop(self._grace_s)
        if self._door is not None:
            await self._door.close()

    def _wake(self) -> None:
        self._poked = False  # first: a tick that is posted from here on pokes again
        self.service.board.wake()
        if self._serving is None and self.service.latest is not None:
            self._serving = asyncio.create_task(self._set_health(health_pb2.HealthCheckResponse.SERVING))

    async def _set_health(self, status: int) -> None:
        for service in ("", SERVICE):
            await self._health.set(service, status)


def _add_services(
    server: grpc.aio.Server,
    handlers: tuple[grpc.GenericRpcHandler, ...],
    healthy: health.aio.HealthServicer,
    reflection: bool,
) -> None:
    from grpc_health.v1 import health_pb2_grpc

    server.add_generic_rpc_handlers(handlers)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    if reflection:
        from grpc_reflection.v1alpha import reflection as reflect

        names = (SERVICE, *((APP_SIGNALS,) if len(handlers) > 1 else ()), health.SERVICE_NAME)
        reflect.enable_server_reflection((*names, reflect.SERVICE_NAME), server)


def _cgroup_of(pushes: Pushes | None) -> CgroupOf:
    """Where a client's process is, which nobody asks where nothing is pushed."""
    return nowhere if pushes is None else pushes.cgroup_of


def _options(max_message_bytes: int, per_peer: int, max_age_s: float) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # or a second agent would silently share the port
        ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_concurrent_streams", per_peer),
        ("grpc.max_allowed_incoming_connections", 2 * per_peer),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.max_connection_age_ms", int(max_age_s * 1e3)),
        ("grpc.max_connection_age_grace_ms", AGE_GRACE_MS),
        *keepalive(),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # or clients' pings end in GOAWAY
    ]
