"""What a call costs with mutual TLS, and what clients that behave and clients that do not cost the loop.

A call's latency counts from when it was due (see open_loop). The clients are processes of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import grpc

from nodeagent.rpc.caller import Access
from nodeagent.rpc.entrance import Terms
from nodeagent.rpc.server import RpcServer
from nodeagent.rpc.tls import Identity, TlsFiles
from tests.bench.lateness import lateness_s
from tests.bench.table import Figure, show
from tests.live.running import RunningAgent, running, until
from tests.unit import samples
from tests.unit.certificates import Authority

PER_S = 200.0
MEASURED_S, ROUNDS = 8.0, 3
WATCHERS = 20
CALLERS = 60
CAPACITY = "/nodeagent.v1.NodeAgent/GetCapacity"
TICK_S, TICKS_S = 0.25, 40.0
UNCHANGED_MS = 2.0
LOAD = (sys.executable, "-m", "tests.bench.rpc_load")


def main() -> bool:
    """Print both tables; True when the targets were held."""
    with tempfile.TemporaryDirectory(prefix="na-bench-") as directory:
        return all([calls(Path(directory)), flood(Path(directory))])


def calls(home: Path) -> bool:
    """GetCapacity by mutual TLS against an empty call of a bare server, at one rate, in turns."""
    authority = Authority(home)
    mine = authority.issue("DNS:bench.example")
    found: dict[str, list[float]] = {"GetCapacity": [], "empty call": []}
    with empty_server() as bare, capacity_server(authority) as ours:
        for _ in range(ROUNDS):
            found["empty call"] += asked(bare, "/bench.Empty/Call", None)
            found["GetCapacity"] += asked(ours, CAPACITY, mine)
    p50, p99 = ({name: quantile_ms(each, ratio) for name, each in found.items()} for ratio in (0.5, 0.99))
    return show(
        f"GetCapacity by mutual TLS on loopback, {PER_S:g} calls/s in Poisson arrivals",
        [
            Figure("empty unary call, plain TCP, p50", p50["empty call"], "ms"),
            Figure("GetCapacity, p50", p50["GetCapacity"], "ms"),
            Figure("empty unary call, plain TCP, p99", p99["empty call"], "ms"),
            Figure("GetCapacity, p99", p99["GetCapacity"], "ms"),
            Figure("ratio of the p99", p99["GetCapacity"] / p99["empty call"], "x", 5.0),
        ],
    )


def flood(home: Path) -> bool:
    """How late ticks begin and how long they take: alone, and with watchers and a flood of refused calls."""
    figures, p99 = [], {}
    for name in ("alone", "crowded"):
        (home / name).mkdir()
        with running(
            home / name, agent__mode="observe", agent__tick_s=TICK_S, http__address="127.0.0.1:0"
        ) as agent:
            until(lambda agent=agent: told(agent, "nodeagent_ticks_total") > 8, "warm")  # type: ignore[misc]
            address = f"unix:{agent.runtime}/nodeagent.sock"
            with crowd(address) if name == "crowded" else contextlib.nullcontext():
                time.sleep(2.0)
                began, before = time.monotonic(), costs(agent)
                time.sleep(TICKS_S)
                used, ended = [b - a for a, b in zip(before, costs(agent), strict=True)], time.monotonic()
        late = lateness_s(home / name / "state" / "journal", TICK_S, began, ended)
        p99[name] = quantile_ms(late, 0.99)
        refused, cpu_s, ticks_s, ticks = used
        figures += [
            Figure(f"{name}: tick lateness p50", quantile_ms(late, 0.5), "ms"),
            Figure(f"{name}: tick lateness p99", p99[name], "ms"),
            Figure(f"{name}: mean duration of a tick", ticks_s / ticks * 1e3, "ms"),
            Figure(f"{name}: calls refused", refused / (ended - began), "per s"),
            Figure(f"{name}: CPU of the agent", cpu_s / (ended - began) * 100, "%"),
        ]
    figures.append(
        Figure("lateness p99, crowded above alone", p99["crowded"] - p99["alone"], "ms", UNCHANGED_MS)
    )
    return show(
        f"Ticks of {TICK_S * 1e3:.0f} ms: alone, then {WATCHERS} watchers and {CALLERS} callers", figures
    )


@contextlib.contextmanager
def capacity_server(authority: Authority) -> Iterator[str]:
    """The agent's server with TLS alone, as it is by default; its address."""
    tls = Identity(authority.issue("IP:127.0.0.1"))
    options = {"tls": tls, "tls_address": "127.0.0.1:0", "terms": Terms(Access(readers=("bench.example",)))}
    server = RpcServer("", hostname="node", version="0.1", **options)  # type: ignore[arg-type]
    server.start()
    server.publish(samples.tick(1, pods=100))
    try:
        yield server.tls_address
    finally:
        server.stop(0.0)


@contextlib.contextmanager
def empty_server() -> Iterator[str]:
    """A bare server of the same kind (grpc.aio, a thread of its own) with a call that does nothing."""
    started: Future[str] = Future()
    stop = threading.Event()

    async def empty(_request: bytes, _context: object) -> bytes:
        return b""

    async def serve() -> None:
        server = grpc.aio.server()
        call = {"Call": grpc.unary_unary_rpc_method_handler(empty)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Empty", call),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        started.set_result(f"127.0.0.1:{port}")
        await asyncio.to_thread(stop.wait)
        await server.stop(0.0)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        yield started.result()
    finally:
        stop.set()
        thread.join()


def asked(address: str, method: str, files: TlsFiles | None) -> list[float]:
    """Seconds that each call took."""
    words = [*LOAD, "paced", address, method, str(PER_S), str(MEASURED_S), *(files or ())]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()]


@contextlib.contextmanager
def crowd(address: str) -> Iterator[None]:
    """Watchers and callers, from when they have begun until the context ends."""
    words = [*LOAD, "crowd", address, str(WATCHERS), str(CALLERS)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield


def costs(agent: RunningAgent) -> tuple[float, float, float, float]:
    """So far: calls refused, CPU seconds, seconds in ticks, ticks."""
    names = ("grpc_refused_total", "self_cpu_seconds_total", "tick_duration_seconds_sum", "ticks_total")
    refused, cpu_s, ticks_s, ticks = (told(agent, f"nodeagent_{name}") for name in names)
    return refused, cpu_s, ticks_s, ticks


def told(agent: RunningAgent, name: str) -> float:
    """The sum of a family's series."""
    lines = (
        line for line in agent.get("/metrics").splitlines() if line.startswith((f"{name}{{", f"{name} "))
    )
    return sum(float(line.split()[-1]) for line in lines)


def quantile_ms(values: list[float], ratio: float) -> float:
    """What this share of them does not exceed."""
    return sorted(values)[math.ceil(ratio * len(values)) - 1] * 1e3


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
