"""What the controller shows: a table that is drawn anew on a terminal, elsewhere a line per change.

2000 nodes: 1985 offering, 7 withdrawn, 8 stale   1992 streams, 1991 reports/s

            cores   memory  nodes
all     12345.67 45.1 TiB   1985
NUMA 0    ...

node           state      cores  of    memory  Batch may  ls/mid/batch  heard  mode     remarks
rack2-node-01  stale     (7.00)  16   (8 GiB)       6.00         3/4/5   12 s  enforce  not connected
"""

from __future__ import annotations

import heapq
import sys
import time
from collections.abc import Iterable

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nodeagent.collect.told import NodeLine, Summary
from nodeagent.collect.view import Node, State
from nodeagent.model.units import format_bytes

LISTED = 20
ZONES = 16
WIDTH = 140  # where there is no terminal to ask
COLOUR = {State.OFFERING: "green", State.WITHDRAWN: "yellow", State.STALE: "red"}
ORDER = {State.STALE: 0, State.WITHDRAWN: 1, State.OFFERING: 2}


def chosen(nodes: Iterable[Node]) -> list[Node]:
    """Those that are listed: first who is stale or has withdrawn, then who offers most."""
    return heapq.nsmallest(LISTED, nodes, key=lambda node: (ORDER[node.state], -_cores(node), node.name))


def picture(title: str, now: Summary, traffic: str = "") -> RenderableType:
    """The whole table."""
    known = now.fresh_nodes + now.stale_nodes
    counts = f"{known} node{'' if known == 1 else 's'}: {_counts(now)}"
    parts: list[RenderableType] = [Text(title, style="bold"), Text(f"{counts}{traffic and '   '}{traffic}")]
    parts += [Text(""), _sums(now)]
    if now.nodes:
        parts += [Text(""), _nodes(now)]
    if now.nodes and known > len(now.nodes):
        parts.append(Text(f"… and {known - len(now.nodes)} more", style="dim"))
    return Group(*parts)


def line(now: Summary, traffic: str = "") -> str:
    """The sums in one line, without the time."""
    zones = "".join(
        f"  numa{zone.numa_node} {zone.available_cores:.2f} cores {format_bytes(zone.available_bytes)}"
        for zone in now.zones[:ZONES]
    )
    offered = f"{now.available_cores:.2f} cores {format_bytes(now.available_bytes)}"
    return f"{offered}  {_counts(now)}{traffic and '  '}{traffic}{zones}"


def to_json(now: Summary) -> str:
    """One line of JSON; what is not known is null."""
    return msgspec.json.encode(now).decode()


def show(now: Summary, address: str) -> None:
    """Print the table once, with all its nodes."""
    width = None if sys.stdout.isatty() else WIDTH
    Console(width=width).print(picture(f"{address}  {clock(now.made_unix)}", now))


class Screen:
    """Draws in place; `close` leaves the last picture on the terminal."""

    def __init__(self) -> None:
        self._live = Live(console=Console(stderr=False), auto_refresh=False, transient=False)
        self._live.start()

    def show(self, drawn: RenderableType) -> None:
        """Replace what is drawn."""
        self._live.update(drawn, refresh=True)

    def close(self) -> None:
        """Stop refreshing."""
        self._live.stop()


def _counts(now: Summary) -> str:
    offering = now.fresh_nodes - now.withdrawn_nodes
    return f"{offering} offering, {now.withdrawn_nodes} withdrawn, {now.stale_nodes} stale"


def _cores(node: Node) -> int:
    return node.offer.micro_cores if node.offer else 0


def _sums(now: Summary) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    for name in ("cores", "memory", "nodes"):
        table.add_column(name, justify="right")
    offering = str(now.fresh_nodes - now.withdrawn_nodes)
    table.add_row(
        "all", f"{now.available_cores:.2f}", format_bytes(now.available_bytes), offering, style="bold"
    )
    for zone in now.zones[:ZONES]:
        size = format_bytes(zone.available_bytes)
        table.add_row(f"NUMA {zone.numa_node}", f"{zone.available_cores:.2f}", size, str(zone.nodes))
    if len(now.zones) > ZONES:
        table.add_row(f"… {len(now.zones) - ZONES} more", "", "", "", style="dim")
    return table


def _nodes(now: Summary) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("node", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("cores", "of", "memory", "Batch may", "ls/mid/batch", "heard"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("mode", no_wrap=True)
    table.add_column("remarks", no_wrap=True, overflow="ellipsis")
    for node in now.nodes:
        table.add_row(*map(Text, _row(node, now.made_unix)), style=COLOUR[node.state])  # a name is no markup
    return table


def _row(node: NodeLine, now_unix: float) -> tuple[str, ...]:
    limit, size = node.batch_limit_cores, node.available_bytes
    form = "({})" if node.state is State.STALE else "{}"  # what it said last, and what does not count
    return (
        node.name,
        node.state.value,
        "?" if node.available_cores is None else form.format(f"{node.available_cores:.2f}"),
        f"{node.total_cores:g}",
        "?" if size is None else form.format(format_bytes(size)),
        "?" if limit is None else f"{limit:.2f}",
        f"{node.pods_ls}/{node.pods_mid}/{node.pods_batch}",
        f"{max(0.0, now_unix - node.heard_unix):.0f} s" if node.heard_unix else "never",
        node.mode or "?",
        _remarks(node),
    )


def _remarks(node: NodeLine) -> str:
    slowed = f"{node.slowed_pods} slowed" if node.slowed_pods else ""
    parts = ["" if node.connected else "not connected", node.withdrawn, slowed, *sorted(set(node.signals))]
    return ", ".join(part for part in parts if part)


def clock(unix: float) -> str:
    """The time of day for a line."""
    return time.strftime("%H:%M:%S", time.localtime(unix))
