"""Clients of a gRPC server, in a process of their own: `python rpc_load.py paced|crowd ADDRESS ...`.

paced ADDRESS METHOD PER_S SECONDS [CERT KEY CA]   prints each call's seconds, from when it was due
crowd ADDRESS WATCHERS CALLERS                     watches, and calls without a pause, till stdin ends
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from typing import Any

import grpc

from nodeagent.rpc.tls import Identity, TlsFiles
from tests.bench.open_loop import first_in_line, schedule

CAPACITY = "/nodeagent.v1.NodeAgent/GetCapacity"
WATCH = "/nodeagent.v1.NodeAgent/WatchCapacity"
OWN = [("grpc.use_local_subchannel_pool", 1)]


async def paced(address: str, method: str, per_s: float, seconds: float, files: list[str]) -> None:
    """Call when the schedule says so, whatever became of the calls before."""
    credentials = Identity(TlsFiles(*files)).channel_credentials() if files else None
    made = grpc.aio.secure_channel(address, credentials) if files else grpc.aio.insecure_channel(address)
    async with made as channel:
        call = channel.unary_unary(method)
        await call(b"", wait_for_ready=True)
        due_s = schedule(per_s, seconds)
        latencies: list[float] = []

        async def one(due: float) -> None:
            await call(b"")
            latencies.append(time.monotonic() - due)

        began, tasks = time.monotonic(), set()
        for each in due_s:
            await asyncio.sleep(max(0.0, began + each - time.monotonic()))
            tasks.add(asyncio.create_task(one(began + each)))
        await asyncio.gather(*tasks)
    print(*latencies)


async def crowd(address: str, watchers: int, callers: int) -> None:
    """Watch on connections of their own; call and call again on one connection for each ten callers."""
    tasks = [asyncio.create_task(_watch(address)) for _ in range(watchers)]
    channels = [grpc.aio.insecure_channel(address, options=OWN) for _ in range(max(1, callers // 10))]
    tasks += [asyncio.create_task(_call(channels[n % len(channels)])) for n in range(callers)]
    print("begun", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    os._exit(0)


async def _watch(address: str) -> None:
    stream: Any = grpc.aio.insecure_channel(address, options=OWN).unary_stream(WATCH)(b"")
    async for _ in stream:
        pass


async def _call(channel: grpc.aio.Channel) -> None:
    call = channel.unary_unary(CAPACITY)
    while True:
        with contextlib.suppress(grpc.RpcError):
            await call(b"", timeout=30.0)


def main() -> None:
    """As the words say."""
    mode, address, *words = sys.argv[1:]
    if mode == "paced":
        with first_in_line():
            asyncio.run(paced(address, words[0], float(words[1]), float(words[2]), words[3:]))
        return
    os.nice(19)  # real clients are on other machines: what counts here is the server's own work
    asyncio.run(crowd(address, int(words[0]), int(words[1])))


if __name__ == "__main__":
    main()
