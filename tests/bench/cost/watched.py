"""A running agent under what an operator puts on it: a gRPC watcher, and scrapes of its metrics."""

from __future__ import annotations

import contextlib
import os
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.v1 import nodeagent_pb2 as pb
from nodeagent.v1.nodeagent_pb2_grpc import NodeAgentStub
from tests.live.running import RunningAgent, until


def ticks(agent: RunningAgent) -> float:
    """The number of ticks so far, from a scrape."""
    lines = agent.get("/metrics").splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("nodeagent_ticks_total{"))


@contextlib.contextmanager
def watching(agent: RunningAgent) -> Iterator[list[object]]:
    """A client that watches the capacity until the context ends; its answers."""
    answers: list[object] = []
    until(lambda: bool(agent.named("pod.appeared")), "the first tick")
    with grpc.insecure_channel(f"unix:{agent.runtime}/nodeagent.sock") as channel:
        stream = NodeAgentStub(channel).WatchCapacity(pb.WatchCapacityRequest())

        def listen() -> None:
            with contextlib.suppress(grpc.RpcError):
                answers.extend(iter(stream))

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            yield answers
        finally:
            stream.cancel()
            listener.join()


@contextlib.contextmanager
def memory_cgroup() -> Iterator[tuple[list[str], Path | None]]:
    """Words that execute a command in a memory cgroup of its own, and the file of its kernel memory in bytes.

    Without a v1 memory controller that tells it: no words and None.
    """
    memory = find_hierarchies().roots.get("memory")
    if memory is None or memory.version != 1 or not Path(memory.root, "memory.kmem.usage_in_bytes").exists():
        yield [], None
        return
    own = Path(memory.root, f"na-bench-agent-{os.getpid()}")
    own.mkdir()
    try:
        enter = f'echo 0 > {shlex.quote(str(own / "cgroup.procs"))} && exec "$@"'
        yield ["sh", "-c", enter, "sh"], own / "memory.kmem.usage_in_bytes"
    finally:
        until(lambda: not (own / "cgroup.procs").read_text(), "the agent has left")
        own.rmdir()
