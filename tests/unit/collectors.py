"""Real Collector servers, some of which do not behave, and a real link to them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from nodeagent.model.controller import ControllerSettings
from nodeagent.model.settings import Mode
from nodeagent.rpc.fold import fold
from nodeagent.rpc.link import Link
from nodeagent.rpc.links import LinkThread, link_to
from nodeagent.rpc.orders import Take, take_none
from nodeagent.v1 import collector_pb2 as pb
from nodeagent.v1.collector_pb2_grpc import CollectorServicer, add_CollectorServicer_to_server

SMALL_WINDOW: dict[str, Any] = {"http2.bdp_probe": 0}  # of 64 KiB, or gRPC makes it as large as memory allows
QUICK = {"report_s": 0.1, "heartbeat_s": 0.5, "backoff_s": 0.05, "backoff_max_s": 0.2}


class Heard:
    """One stream as the controller has it."""

    def __init__(self) -> None:
        self.requests: list[pb.ReportRequest] = []
        self.status: pb.NodeStatus | None = None
        self.down: queue.Queue[pb.ReportResponse | None] = queue.Queue()
        self.ended = threading.Event()

    def kinds(self) -> list[str | None]:
        return [request.WhichOneof("body") for request in self.requests]

    def cores(self) -> float | None:
        return None if self.status is None else self.status.capacity.cpu.available_cores


class Collector(CollectorServicer):
    """Keeps all that it hears; while `open` is not set it reads nothing, and with `code` it refuses."""

    def __init__(self, code: grpc.StatusCode | None = None) -> None:
        self.streams: list[Heard] = []
        self.open = threading.Event()
        self.open.set()
        self.code = code

    def Report(  # noqa: N802  # as the protocol calls it
        self, requests: Iterator[pb.ReportRequest], context: Any
    ) -> Iterator[pb.ReportResponse]:
        if self.code is not None:
            context.abort(self.code, "not you")
        heard = Heard()
        self.streams.append(heard)
        context.add_callback(self.open.set if not context.is_active() else lambda: heard.down.put(None))
        threading.Thread(target=self._read, args=(requests, heard), daemon=True).start()
        while (response := heard.down.get()) is not None:
            yield response

    def _read(self, requests: Iterator[pb.ReportRequest], heard: Heard) -> None:
        self.open.wait(60.0)
        try:
            for request in requests:
                heard.requests.append(request)
                heard.status = fold(heard.status, request)
        except grpc.RpcError:
            pass  # the agent is gone
        heard.ended.set()
        heard.down.put(None)


@contextmanager
def collecting(
    address: str,
    collector: Collector | None = None,
    credentials: grpc.ServerCredentials | None = None,
    **options: int,  # of gRPC, without "grpc."
) -> Iterator[tuple[Collector, str]]:
    """A server and the address that it listens at."""
    collector = collector or Collector()
    server = grpc.server(
        ThreadPoolExecutor(8),
        options=[("grpc.so_reuseport", 0), *((f"grpc.{key}", value) for key, value in options.items())],
        maximum_concurrent_rpcs=8,
    )
    add_CollectorServicer_to_server(collector, server)
    port = (
        server.add_insecure_port(address)
        if credentials is None
        else server.add_secure_port(address, credentials)
    )
    server.start()
    try:
        yield collector, address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"
    finally:
        collector.open.set()
        server.stop(0.0).wait(10.0)


@contextmanager
def linked(
    address: str, *, take: Take = take_none, refuse: Take = take_none, **settings: Any
) -> Iterator[Link]:
    """A link that is running, ended on leaving."""
    link = link_to(
        ControllerSettings(address=address, **{**QUICK, **settings}),
        env={"NODE_NAME": "node-7"},
        hostname="host",
        version="0.1",
        mode=Mode.OBSERVE,
        take=take,
        refuse=refuse,
    )
    thread = LinkThread(link)
    thread.start()
    try:
        yield link
    finally:
        thread.stop()
