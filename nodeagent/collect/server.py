"""The gRPC server of the controller: Collector and Cluster, health and reflection, on one event loop.

Invariant: plain TCP is for loopback; streams, connections, messages and keepalive pings are bounded.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from nodeagent.collect.access import COLLECTOR, Allowed, guards, peer
from nodeagent.collect.cluster import MAX_WATCHERS, Cluster
from nodeagent.collect.cluster import SERVICE as CLUSTER
from nodeagent.collect.stream import CODE, Ending, Stream
from nodeagent.collect.tally import Tally
from nodeagent.collect.view import View
from nodeagent.rpc.address import Tcp, Unix, listen, parse, parse_tls
from nodeagent.rpc.cut import cut_untrusted
from nodeagent.rpc.door import Door
from nodeagent.rpc.guard import REFUSALS
from nodeagent.rpc.keepalive import keepalive
from nodeagent.rpc.tls import Identity

MAX_REPORT_BYTES = 256 << 10
MAX_VIEW_BYTES = 256 << 20
OTHER_CALLS = 64  # at a time, besides reports and watchers
OTHER_FILES = 128
STOPPING = Ending("stopping", CODE.UNAVAILABLE, "the controller is stopping")

Context = Any  # grpc.aio.ServicerContext: grpc ships no annotations


class Reports:
    """The service Collector: one Stream a call, at most `max_streams` at a time."""

    def __init__(self, view: View, tally: Tally, max_streams: int, *, own_names: bool = False) -> None:
        self._view = view
        self._tally = tally
        self._own_names = own_names
        self._max_streams = max_streams
        self._open: set[Stream] = set()

    def handlers(self) -> grpc.GenericRpcHandler:
        """All calls, for Server.add_generic_rpc_handlers; requests and responses stay bytes."""
        calls = {"Report": grpc.stream_stream_rpc_method_handler(self._report)}
        return grpc.method_handlers_generic_handler(COLLECTOR, calls)

    def end_streams(self) -> None:
        """Let every agent go."""
        for stream in self._open:
            stream.end(STOPPING)

    async def _report(self, _requests: object, context: Context) -> None:
        if len(self._open) >= self._max_streams:
            self._tally.endings["limit"] += 1
            self._tally.say("stream.refused", peer=peer(context), why="too many streams")
            await context.abort(CODE.RESOURCE_EXHAUSTED, f"{self._max_streams} agents are reporting already")
        stream = Stream(self._view, self._tally, context, own_names=self._own_names)
        self._open.add(stream)
        self._tally.streams += 1
        try:
            await stream.run()
        finally:
            self._tally.streams -= 1
            self._open.discard(stream)


class CollectServer:
    """Serves at `address` until stop(); afterwards `address` is the one for clients."""

    def __init__(
        self,
        address: str,
        tls: Identity | None,
        allowed: Allowed,
        reports: Reports,
        cluster: Cluster,
        max_nodes: int,
    ) -> None:
        self.address = address
        self._where = where(address, tls)
        self._tls = tls
        self._reports = reports
        self._cluster = cluster
        self._calls = max_nodes + MAX_WATCHERS + OTHER_CALLS
        self._door = Door(self._where, self._calls) if isinstance(self._where, Unix) else None
        inside = self._door.connections if self._door else {}
        self._guards = guards(allowed, max_nodes, self._calls, inside)
        self._health = health.aio.HealthServicer()
        self._watch: asyncio.Task[None] | None = None

    @property
    def refused(self) -> dict[str, int]:
        """Calls that were, by reason."""
        return {why: sum(guard.refused[why] for guard in self._guards) for why in REFUSALS}

    async def start(self) -> None:
        """Listen; Failed when that cannot be."""
        server = self._server = grpc.aio.server(
            interceptors=self._guards, options=_options(self._calls), maximum_concurrent_rpcs=self._calls
        )
        server.add_generic_rpc_handlers((self._reports.handlers(), self._cluster.handlers()))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        services = (COLLECTOR, CLUSTER, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(services, server)
        self.address = self._listen()
        await server.start()
        if self._door is not None:
            await self._door.serve()
        for service in ("", COLLECTOR, CLUSTER):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, grace_s: float = 1.0) -> None:
        """End all streams and remove the socket."""
        if self._watch is not None:
            self._watch.cancel()
        if self._door is not None:
            self._door.shut()
        self._reports.end_streams()
        self._cluster.end_streams()
        await self._server.stop(grace_s)
        if self._door is not None:
            await self._door.close()

    def _listen(self) -> str:
        server = self._server
        if self._door is not None:
            return self._door.open(server.add_insecure_port)
        if self._tls is None:
            return listen(self._where, server.add_insecure_port)
        credentials = self._tls.server_credentials()
        address = listen(self._where, lambda each: int(server.add_secure_port(each, credentials)))
        port = int(address.rpartition(":")[2])
        self._watch = asyncio.create_task(cut_untrusted(self._tls, port))
        return address


def where(address: str, tls: Identity | None) -> Unix | Tcp:
    """Where to listen: with TLS at any address of this host, else as rpc.address; Misconfigured."""
    return parse(address) if tls is None or address.startswith(("unix:", "/")) else parse_tls(address)


def allow_files(wanted: int) -> int:
    """Raise the limit of open files as far as it may be; how many connections that leaves room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = wanted + OTHER_FILES
    if soft < need:
        soft = need if hard == resource.RLIM_INFINITY else min(need, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(wanted, soft - OTHER_FILES)


def _options(calls: int) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # or a second controller would silently share the port
        ("grpc.max_receive_message_length", MAX_REPORT_BYTES),
        ("grpc.max_send_message_length", MAX_VIEW_BYTES),
        ("grpc.max_concurrent_streams", calls),
        ("grpc.max_allowed_incoming_connections", calls),
        *keepalive(),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # or agents' pings end in GOAWAY
    ]
