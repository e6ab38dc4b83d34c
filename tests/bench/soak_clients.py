"""Clients of an agent that come and go: watchers that read, do not, or are killed; callers; directors."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import ssl
import urllib.request
from collections import Counter
from typing import Any, NamedTuple

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from nodeagent.rpc.tls import Identity
from nodeagent.v1 import collector_pb2, directive_pb2, event_pb2
from nodeagent.v1 import nodeagent_pb2 as pb
from nodeagent.v1.collector_pb2_grpc import ClusterStub
from nodeagent.v1.nodeagent_pb2_grpc import NodeAgentStub
from tests.bench.soak_keys import Keys
from tests.unit.rpc_strangers import Greedy, frame, literal

NODE = "soak-node"
OWN = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
ANSWER_S = 5.0
LIFE_S = 3.0
GREEDY_S = 12.0  # longer than the agent has patience with who reads nothing
FLOOD = 400
WATCH = "/nodeagent.v1.NodeAgent/WatchCapacity"


class Reach(NamedTuple):
    """Where the agent and its controller are."""

    socket: str
    tls: str
    http: str
    controller: str


class Clients:
    """Each method is one visit; what the agent or the link refuses is its right. `done` counts visits."""

    def __init__(self, where: Reach, keys: Keys, done: Counter[str]) -> None:
        self.where = where
        self._keys = keys
        self._done = done
        self._numbers = itertools.count(1)
        self._channel = self.unix()
        self._calls = itertools.cycle(self._kinds())
        self._orders = itertools.cycle(_orders())

    def secure(self, address: str) -> grpc.aio.Channel:
        """A connection with the reader's certificate of now."""
        credentials = Identity(self._keys.files["reader"]).channel_credentials()
        return grpc.aio.secure_channel(address, credentials, options=OWN)

    async def watch_unix(self) -> None:
        await self._watch(self.unix())
        self._done["watchers on the unix socket"] += 1

    async def watch_tls(self) -> None:
        await self._watch(self.secure(self.where.tls))
        self._done["watchers by TLS"] += 1

    async def stay(self) -> None:
        """A watcher that stays, until it is cut, and then comes again."""
        while True:
            async with self.unix() as channel:
                with contextlib.suppress(grpc.RpcError):
                    async for _ in _stream(channel):
                        pass
            self._done["long watches that ended"] += 1
            await asyncio.sleep(1.0)

    async def unread(self) -> None:
        """A watcher that never reads: by gRPC."""
        async with self.unix() as channel:
            stream = _stream(channel)
            await asyncio.sleep(random.uniform(0.0, 2 * LIFE_S))
            stream.cancel()
        self._done["watchers that never read"] += 1

    async def greedy(self) -> None:
        """Asks for many reports and leaves them in the socket until it is cut."""
        asker = Greedy(self.where.socket.removeprefix("unix:"), 16)
        await asyncio.sleep(random.uniform(0.0, GREEDY_S))
        asker.socket.close()
        self._done["clients that leave reports in the socket"] += 1

    async def killed(self) -> None:
        """A watcher whose process ends without a word: in the middle of a stream."""
        reader, writer = await self._raw(secure=random.random() < 0.5)
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(random.uniform(0.0, LIFE_S)):
                while await reader.read(1 << 16):
                    pass
        writer.transport.abort()
        self._done["watchers that were killed"] += 1

    async def half(self) -> None:
        """A connection to the TLS port without a handshake."""
        host, _, port = self.where.tls.rpartition(":")
        _reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(random.choice((b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n")))
        await asyncio.sleep(random.uniform(0.0, LIFE_S))
        writer.transport.abort()
        self._done["connections without a handshake"] += 1

    async def call(self) -> None:
        """The next of all kinds of calls."""
        await next(self._calls)()
        self._done["calls of all kinds"] += 1

    async def flood(self) -> None:
        """More at once than anybody may."""
        calls = (NodeAgentStub(self._channel).GetCapacity(pb.GetCapacityRequest()) for _ in range(FLOOD))
        await asyncio.gather(*calls, return_exceptions=True)
        self._done["floods"] += 1

    async def direct(self) -> None:
        """A directive on the unix socket, for a moment."""
        directive = self._directive(next(self._orders))
        await NodeAgentStub(self._channel).ApplyDirective(pb.ApplyDirectiveRequest(directive=directive))
        self._done["directives by ApplyDirective"] += 1

    async def send_down(self) -> None:
        """A directive by the controller and down the link."""
        await self.order(self._directive(next(self._orders)), ANSWER_S)
        self._done["directives down the link"] += 1

    async def order(self, directive: directive_pb2.Directive, timeout_s: float) -> None:
        """Have the controller send this one; grpc.RpcError."""
        request = collector_pb2.SendDirectiveRequest(node_name=NODE, directive=directive)
        async with self.secure(self.where.controller) as channel:
            await ClusterStub(channel).SendDirective(request, timeout=timeout_s)

    async def scrape(self) -> None:
        await asyncio.to_thread(self.page)
        self._done["scrapes"] += 1

    def page(self) -> str:
        """/metrics."""
        with urllib.request.urlopen(f"http://{self.where.http}/metrics", timeout=ANSWER_S) as answer:
            body: bytes = answer.read()
        return body.decode()

    def unix(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.where.socket, options=OWN)

    async def _watch(self, channel: grpc.aio.Channel) -> None:
        async with channel:
            stream = _stream(channel)
            with contextlib.suppress(TimeoutError, grpc.RpcError):
                async with asyncio.timeout(random.uniform(0.0, LIFE_S)):
                    async for _ in stream:
                        pass
            if random.random() < 0.5:  # else the end of the connection ends it
                stream.cancel()

    def _kinds(self) -> tuple[Any, ...]:
        stub = NodeAgentStub(self._channel)
        capacity = pb.ExplainRequest(capacity=pb.CapacitySubject())
        unknown = self._channel.unary_unary("/nodeagent.v1.NodeAgent/Unheard")
        garbage = self._channel.unary_unary("/nodeagent.v1.NodeAgent/Explain")
        return (
            lambda: stub.GetCapacity(pb.GetCapacityRequest()),
            lambda: stub.GetNodeReport(pb.GetNodeReportRequest()),
            lambda: stub.ListPods(pb.ListPodsRequest(page_size=3)),
            lambda: stub.Explain(capacity),
            lambda: stub.Explain(pb.ExplainRequest(pod="nobody")),
            lambda: stub.ListDirectives(pb.ListDirectivesRequest()),
            lambda: HealthStub(self._channel).Check(health_pb2.HealthCheckRequest()),
            lambda: unknown(b""),
            lambda: garbage(b"\xff\xff"),
            self._once_by_tls,
        )

    async def _once_by_tls(self) -> None:
        async with self.secure(self.where.tls) as channel:
            await NodeAgentStub(channel).GetCapacity(pb.GetCapacityRequest(), timeout=ANSWER_S)

    async def _raw(self, *, secure: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """HTTP/2 by hand: a watch has been asked for."""
        if secure:
            host, _, port = self.where.tls.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port), ssl=self._context())
        else:
            reader, writer = await asyncio.open_unix_connection(self.where.socket.removeprefix("unix:"))
        headers = {":method": "POST", ":scheme": "http", ":path": WATCH, ":authority": "127.0.0.1"}
        headers |= {"te": "trailers", "content-type": "application/grpc"}
        block = b"".join(literal((key.encode(), value.encode())) for key, value in headers.items())
        ask = frame(4, 0, 0, b"") + frame(1, 4, 1, block) + frame(0, 1, 1, b"\0" * 5)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + ask)
        return reader, writer

    def _context(self) -> ssl.SSLContext:
        certificate, key, ca = self._keys.files["reader"]
        context = ssl.create_default_context(cafile=ca)
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(certificate, key)
        return context

    def _directive(self, order: dict[str, Any]) -> directive_pb2.Directive:
        found = directive_pb2.Directive(id=f"soak-{next(self._numbers)}", reason="soak", **order)
        found.lease.FromMilliseconds(random.randint(500, 4000))
        return found


def _stream(channel: grpc.aio.Channel) -> Any:
    stub = NodeAgentStub(channel)
    if random.random() < 0.5:
        return stub.WatchCapacity(pb.WatchCapacityRequest())
    return stub.WatchEvents(pb.WatchEventsRequest(least_level=event_pb2.EVENT_LEVEL_DEBUG, run_id="another"))


def _orders() -> tuple[dict[str, Any], ...]:
    """One of each kind, some of which are refused."""
    return (
        {"hold_capacity": directive_pb2.HoldCapacity(cpu_cores=0.5, memory_bytes=1 << 28)},
        {"lend_node": directive_pb2.LendNode()},
        {"set_mode": directive_pb2.SetMode(mode=directive_pb2.MODE_OBSERVE)},
        {"set_mode": directive_pb2.SetMode(mode=directive_pb2.MODE_ENFORCE)},  # this agent observes
        {"end_directive": directive_pb2.EndDirective(id="unheard")},
        {"hold_capacity": directive_pb2.HoldCapacity(cpu_cores=-1.0)},
    )
