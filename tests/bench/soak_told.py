"""What the soak has shown, as figures; and whether the controller knows the node as it is."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import grpc

from nodeagent.v1 import collector_pb2, directive_pb2
from nodeagent.v1 import nodeagent_pb2 as pb
from nodeagent.v1.collector_pb2_grpc import ClusterStub
from nodeagent.v1.nodeagent_pb2_grpc import NodeAgentStub
from tests.bench.bench_rpc import TICK_S, quantile_ms
from tests.bench.lateness import lateness_s
from tests.bench.soak_clients import NODE, Clients
from tests.bench.soak_seen import Sample, slope
from tests.bench.table import Figure
from tests.live.running import RunningAgent

PATIENCE_S = 20.0
HELD_CORES = 0.25
FILLING_RATIO, SETTLED_RATIO = 0.2, 0.5  # rings of events, directives and free lists are full by the half
SLOPE_KIB = 64.0  # an hour: 1.5 MiB a day; what a busy sample is off by chance makes half of it
SETTLED_H = 12.0  # before, what is bounded still fills up
SPARE = 4.0  # what is on its way just then, and gRPC's pool of threads; of one an hour 20 would be left
NEAR_CORES = 0.011  # less is not told at once
IN_FORCE = directive_pb2.DIRECTIVE_STATE_IN_FORCE


async def view_is_right(clients: Clients) -> bool:
    """A last hold comes down by the controller; what the agent then offers is what the controller tells."""
    hold = directive_pb2.HoldCapacity(cpu_cores=HELD_CORES)
    directive = directive_pb2.Directive(id="soak-last", hold_capacity=hold)
    directive.lease.FromSeconds(600)
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            await clients.order(directive, 5.0)
            if await _alike(clients):
                return True
        except grpc.RpcError:
            pass
        await asyncio.sleep(0.5)
    return False


async def _alike(clients: Clients) -> bool:
    async with clients.secure(clients.where.controller) as channel, clients.unix() as own:
        view = (await ClusterStub(channel).GetView(collector_pb2.GetViewRequest(nodes=True))).view
        offer = (await NodeAgentStub(own).GetCapacity(pb.GetCapacityRequest())).capacity
    if [node.node_name for node in view.nodes if node.connected and not node.stale] != [NODE]:
        return False
    status = view.nodes[0].status
    held = {each.directive.id for each in status.directives if each.state == IN_FORCE}
    cores = status.capacity.cpu.available_cores
    return (
        "soak-last" in held
        and cores == view.available_cores
        and abs(cores - offer.cpu.available_cores) <= NEAR_CORES
        and offer.cpu.available_cores <= HELD_CORES
        and status.capacity.boot_id == offer.boot_id
    )


class Seen(Protocol):
    """What is told of."""

    agent: RunningAgent
    done: Counter[str]
    samples: list[Sample]
    quiet: list[tuple[Sample, Counter[str]]]


def figures(seen: Seen, hour_s: float, *, right: bool, page: str) -> list[Figure]:
    """All rows; `page` is the last /metrics."""
    began, ended = seen.samples[0].at, seen.samples[-1].at
    late = lateness_s(seen.agent.state / "journal", TICK_S, began, ended)
    return [
        *(Figure(name, number, "times") for name, number in sorted(seen.done.items())),
        *_agent(page, seen.agent),
        *_memory(seen.samples, hour_s),
        *held(seen.samples, seen.quiet),
        Figure("tick lateness p50", quantile_ms(late, 0.5), "ms"),
        Figure("tick lateness p99", quantile_ms(late, 0.99), "ms"),
        Figure("the controller knows the node as it is", float(right), "", least=1.0),
    ]


def _agent(page: str, agent: RunningAgent) -> list[Figure]:
    """What the agent itself has counted."""
    names = {
        "streams to the controller begun": "nodeagent_controller_connects_total",
        "streams and attempts lost": "nodeagent_controller_losses_total",
        "calls refused": "nodeagent_grpc_refused_total",
        "ticks": "nodeagent_ticks_total",
    }
    events = {
        "certificates taken into use": "tls.reloaded",
        "broken pairs refused": "tls.refused",
        "configurations taken": "config.reloaded",
        "configurations refused": "config.refused",
    }
    rows = [Figure(f"agent: {what}", total(page, name), "") for what, name in names.items()]
    return rows + [Figure(f"agent: {what}", len(agent.named(name)), "") for what, name in events.items()]


def _memory(samples: Sequence[Sample], hour_s: float) -> list[Figure]:
    start = samples[0].at
    rss = [((each.at - start) / hour_s, each.rss_kib) for each in samples]
    fifth, half = (rss[int(len(rss) * ratio) :] for ratio in (FILLING_RATIO, SETTLED_RATIO))
    most = SLOPE_KIB if rss[-1][0] >= SETTLED_H else None
    return [
        Figure("resident memory at 20 %", fifth[0][1] / 1024, "MiB"),
        Figure("resident memory at the end", rss[-1][1] / 1024, "MiB"),
        Figure("  its most", max(kib for _, kib in rss) / 1024, "MiB"),
        Figure("slope of the last 80 %", slope(fifth), "KiB/h"),
        Figure("slope of the second half", slope(half), "KiB/h", most=most),
    ]


def held(samples: Sequence[Sample], quiet: Sequence[tuple[Sample, Counter[str]]]) -> list[Figure]:
    """With clients and pods, and in quiet, before and after it all."""
    busy = samples[len(samples) // 10 :]
    (before, kinds_before), (after, kinds_after) = quiet
    own_before, own_after = own(kinds_before), own(kinds_after)
    if own_after.total() > own_before.total() + SPARE:
        print(f"descriptors that were not there: {dict(own_after - own_before)}", file=sys.stderr)
    more = own_after.total() - own_before.total()
    return [
        Figure("descriptors with clients and pods, least", min(each.descriptors for each in busy), "fds"),
        Figure("descriptors with clients and pods, most", max(each.descriptors for each in busy), "fds"),
        Figure("descriptors in quiet, early", own_before.total(), "fds"),
        Figure("descriptors in quiet, more at the end", more, "fds", most=SPARE),
        Figure("threads in quiet, early", before.threads, "threads"),
        Figure("threads in quiet, more at the end", after.threads - before.threads, "threads", most=SPARE),
    ]


def own(kinds: Counter[str]) -> Counter[str]:
    """Without the files of cgroups that are there: others have pods on this machine as well."""
    there = [kind for kind in kinds if kind.startswith("/sys/fs/cgroup/") and "(deleted)" not in kind]
    return Counter({kind: number for kind, number in kinds.items() if kind not in there})


def total(page: str, name: str) -> float:
    """Of a family's series."""
    lines = (line for line in page.splitlines() if line.startswith((f"{name}{{", f"{name} ")))
    return sum(float(line.split()[-1]) for line in lines)
