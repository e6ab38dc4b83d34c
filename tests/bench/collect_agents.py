"""Many simulated agents in one process: a stream each, a report each second; prints what it did as JSON.

    python -m tests.bench.collect_agents ADDRESS FIRST COUNT CHANNELS SECONDS BASE_UNIX

Full first, then half deltas and half heartbeats, spread over the second. The first MARKERS agents carry the
time of their tick, in microseconds since BASE_UNIX, as the memory of a NUMA node of their own.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from typing import Any

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc

from nodeagent.v1 import collector_pb2 as pb
from tests.unit import cluster_nodes as nodes

MARKERS = 20
FIRST_MARKER_ZONE = 1000
METHOD = "/nodeagent.v1.Collector/Report"


class Load:
    """What all agents of this process have done."""

    def __init__(self, first: int, count: int, seconds: float, base_unix: float) -> None:
        self.agents = range(first, first + count)
        self.seconds = seconds
        self.base_unix = base_unix
        self.sent: Counter[str] = Counter()
        self.resyncs = 0
        self.lost: Counter[str] = Counter()
        self.late_s: list[float] = []
        self.open = 0

    def request(self, agent: int, seq: int) -> pb.ReportRequest:
        """What the agent says in this tick; its stamp is now."""
        now = time.time()
        marked = agent < MARKERS
        if seq > 1 and not marked and random.random() < 0.5:
            return nodes.heartbeat(seq, now)
        cores = 4.0 + random.random()
        zones = [(0, cores / 2, 4 * nodes.GIB), (1, cores / 2, 4 * nodes.GIB)]
        if marked:
            zones.append((FIRST_MARKER_ZONE + agent, 0.0, int((now - self.base_unix) * 1e6)))
        offered = nodes.capacity(seq, now, cores, zones=zones, terms=True)
        return nodes.full(f"node-{agent:05}", offered) if seq == 1 else nodes.delta(offered)


async def agent(load: Load, number: int, channel: Any, ramp_s: float) -> None:
    """One agent's life: connects within the ramp, then ticks at its own moment of each second."""
    loop = asyncio.get_running_loop()
    begin = loop.time() + random.random() * ramp_s
    await asyncio.sleep(begin - loop.time())
    call = channel.stream_stream(METHOD)()
    load.open += 1
    reading = asyncio.create_task(_answers(load, call))
    end = loop.time() + load.seconds
    seq = 0
    try:
        while begin < end:
            await asyncio.sleep(begin - loop.time())
            load.late_s.append(loop.time() - begin)
            seq += 1
            request = load.request(number, seq)
            await call.write(request.SerializeToString())
            load.sent[request.WhichOneof("body") or ""] += 1
            begin += 1.0
        await call.done_writing()
        await reading
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        load.lost[str(call.code())] += 1
    finally:
        load.open -= 1
        reading.cancel()


async def _answers(load: Load, call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        load.resyncs += 1


async def run(load: Load, address: str, channels: int, ramp_s: float) -> None:
    """All of them."""
    options = [("grpc.use_local_subchannel_pool", 1)]  # or channels of one address share a connection
    opened = [grpc.aio.insecure_channel(address, options=options) for _ in range(channels)]
    await asyncio.gather(*(agent(load, number, opened[number % channels], ramp_s) for number in load.agents))


def main(words: list[str]) -> None:
    """Run, then print one line of JSON."""
    address, first, count, channels, seconds, base_unix = words
    load = Load(int(first), int(count), float(seconds), float(base_unix))
    asyncio.run(run(load, address, int(channels), ramp_s=max(5.0, int(count) / 200)))
    late = sorted(load.late_s)
    print(
        json.dumps(
            {
                "sent": load.sent,
                "resyncs": load.resyncs,
                "lost": load.lost,
                "late_p50_s": late[len(late) // 2],
                "late_p99_s": late[len(late) * 99 // 100],
                "cpu_s": time.process_time(),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
