"""The gRPC server of the controller: Collector and Cluster, health and reflection, on one event loop.

Invariant: plain TCP is for loopback; streams, connections, messages and keepalive pings are bounded.
"""

from __future__ import annotations

import os
import resource
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from nodeagent.collect.access import Access, Role, TlsFiles
from nodeagent.collect.cluster import MAX_WATCHERS, Cluster
from nodeagent.collect.cluster import SERVICE as CLUSTER
from nodeagent.collect.stream import CODE, Ending, Stream
from nodeagent.collect.tally import Tally
from nodeagent.collect.view import View
from nodeagent.model.errors import Misconfigured
from nodeagent.rpc.address import Tcp, Unix, identity, listen, parse
from nodeagent.v1 import collector_pb2 as pb

COLLECTOR: str = pb.DESCRIPTOR.services_by_name["Collector"].full_name
MAX_REPORT_BYTES = 256 << 10
MAX_VIEW_BYTES = 256 << 20
OTHER_CALLS = 64  # at a time, besides reports and watchers
OTHER_FILES = 128
STOPPING = Ending("stopping", CODE.UNAVAILABLE, "the controller is stopping")

Context = Any  # grpc.aio.ServicerContext: grpc ships no annotations


class Reports:
    """The service Collector: one Stream a call, at most `max_streams` at a time."""

    def __init__(self, view: View, tally: Tally, access: Access, max_streams: int) -> None:
        self._view = view
        self._tally = tally
        self._access = access
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
        await self._access.check(context, Role.AGENT)
        if len(self._open) >= self._max_streams:
            self._tally.endings["limit"] += 1
            self._tally.say("stream.refused", peer=context.peer(), why="too many streams")
            await context.abort(CODE.RESOURCE_EXHAUSTED, f"{self._max_streams} agents are reporting already")
        stream = Stream(self._view, self._tally, context)
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
        self, address: str, tls: TlsFiles | None, reports: Reports, cluster: Cluster, max_nodes: int
    ) -> None:
        self.address = address
        self._where = where(address, tls)
        self._tls = tls
        self._reports = reports
        self._cluster = cluster
        self._max_nodes = max_nodes
        self._bound: tuple[int, int] | None = None
        self._health = health.aio.HealthServicer()

    async def start(self) -> None:
        """Listen; Failed when that cannot be."""
        calls = self._max_nodes + MAX_WATCHERS + OTHER_CALLS
        self._server = grpc.aio.server(options=_options(calls), maximum_concurrent_rpcs=calls)
        self._server.add_generic_rpc_handlers((self._reports.handlers(), self._cluster.handlers()))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        services = (COLLECTOR, CLUSTER, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(services, self._server)
        self.address = listen(self._where, self._add_port)
        self._bound = identity(self._where.path) if isinstance(self._where, Unix) else None
        await self._server.start()
        for service in ("", COLLECTOR, CLUSTER):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, grace_s: float = 1.0) -> None:
        """End all streams and remove the socket."""
        self._reports.end_streams()
        self._cluster.end_streams()
        await self._server.stop(grace_s)
        if isinstance(self._where, Unix) and self._bound and identity(self._where.path) == self._bound:
            os.unlink(self._where.path)

    def _add_port(self, address: str) -> int:
        if self._tls is None or isinstance(self._where, Unix):
            return int(self._server.add_insecure_port(address))
        return int(self._server.add_secure_port(address, self._tls.server_credentials()))


def where(address: str, tls: TlsFiles | None) -> Unix | Tcp:
    """Where to listen or to connect to: with TLS any host, else as rpc.address; Misconfigured."""
    try:
        return parse(address)
    except Misconfigured:
        host, _, port = address.rpartition(":")
        if tls is None or not host or not port.isdecimal() or int(port) > 65535:
            raise
        return Tcp(host.removeprefix("[").removesuffix("]"), int(port))


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
        ("grpc.keepalive_time_ms", 30_000),  # finds agents that are gone without a word
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # or agents' pings end in GOAWAY
    ]
