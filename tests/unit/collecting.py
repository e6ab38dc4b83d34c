"""`nodeagent collect` as a process of its own, and agents of tests that talk to it."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc

from nodeagent.v1 import collector_pb2 as pb
from nodeagent.v1.collector_pb2_grpc import ClusterStub, CollectorStub
from tests.unit import cluster_nodes as nodes
from tests.unit.rpc_clients import WAIT_S, eventually

COLLECT = (sys.executable, "-m", "nodeagent", "collect")


class Controller:
    """A running controller; `log` has its events, `out` what it shows."""

    def __init__(self, home: Path, *words: str) -> None:
        self.log, self.out = home / "collect.log", home / "collect.out"
        with self.log.open("wb") as log, self.out.open("wb") as out:
            given = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", *words]
            self.process = subprocess.Popen([*COLLECT, *given], stderr=log, stdout=out)
        assert eventually(lambda: bool(self.said("collect.listening")) or self.process.poll() is not None)
        assert self.process.poll() is None, self.log.read_text()
        where = self.said("collect.listening")[0]
        self.address: str = where["address"]
        self.http: str = where["http"]
        limit = ("grpc.max_receive_message_length", -1)
        self.channel = grpc.insecure_channel(self.address, options=[limit])
        self.cluster = ClusterStub(self.channel)

    def said(self, event: str) -> list[dict[str, Any]]:
        """The events of that name so far."""
        lines = self.log.read_bytes().split(b"\n")[:-1]
        events = [json.loads(line) for line in lines if line.startswith(b"{")]
        return [each for each in events if each["event"] == event]

    def view(self, *, nodes: bool = True) -> pb.ClusterView:
        """What it has gathered."""
        return self.cluster.GetView(pb.GetViewRequest(nodes=nodes), timeout=WAIT_S).view  # type: ignore[no-any-return]

    def node(self, name: str) -> pb.NodeView | None:
        """One node of it, None when it does not know that."""
        return next((node for node in self.view().nodes if node.node_name == name), None)

    def page(self, path: str = "/metrics") -> str:
        with urllib.request.urlopen(f"http://{self.http}{path}", timeout=WAIT_S) as answer:
            body: bytes = answer.read()
        return body.decode()


@contextlib.contextmanager
def collecting(home: Path, *words: str) -> Iterator[Controller]:
    """A controller that is ended on leaving."""
    controller = Controller(home, *words)
    try:
        yield controller
    finally:
        controller.channel.close()
        controller.process.terminate()
        controller.process.wait(WAIT_S)


class Agent:
    """One stream to a controller over a connection of its own."""

    def __init__(self, controller: Controller, name: str, channel: grpc.Channel | None = None) -> None:
        private = ("grpc.use_local_subchannel_pool", 1)
        self.name = name
        self.channel = channel or grpc.insecure_channel(controller.address, options=[private])
        self._controller = controller
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.call = CollectorStub(self.channel).Report(iter(self._requests.get, None))

    def send(self, *requests: pb.ReportRequest) -> None:
        for request in requests:
            self._requests.put(request)

    def offer(self, seq: int, cores: float, **more: Any) -> Agent:
        """A full status, which the controller has when this returns."""
        self.send(nodes.full(self.name, nodes.capacity(seq, time.time(), cores, **more)))
        assert eventually(lambda: self.told(seq)), self._controller.log.read_text()
        return self

    def told(self, seq: int) -> bool:
        """The controller has heard of this tick."""
        node = self._controller.node(self.name)
        return node is not None and node.status.capacity.seq == seq

    def code(self) -> tuple[grpc.StatusCode, str]:
        """How the controller ended the stream."""
        with contextlib.suppress(grpc.RpcError):
            for _ in self.call:
                pass
        return self.call.code(), self.call.details()

    def close(self) -> None:
        self._requests.put(None)
        self.channel.close()


@contextlib.contextmanager
def reporting(controller: Controller, *names: str) -> Iterator[list[Agent]]:
    """Agents that are gone on leaving."""
    agents = [Agent(controller, name) for name in names]
    try:
        yield agents
    finally:
        for agent in agents:
            agent.close()


def counted(controller: Controller, condition: Callable[[pb.ClusterView], bool]) -> bool:
    """The view comes to this in time."""
    return eventually(lambda: condition(controller.view()))
