"""`nodeagent nic`: how the running agent shapes each NIC, and what each class sends now.

    eth0  shared, up, 10 Gbit/s
      htb: a tree of classes at the root of the NIC
      out, 5.9 Gbit/s of 9.5 Gbit/s               now    guarantee      ceiling   backlog    drops
      LS     ██████████▌░░░░░░░░░░░░░░░░░  3.2 Gbit/s   5.7 Gbit/s   9.5 Gbit/s    12 KiB        0

A bar is full at what all classes have together: solid is what is sent, light what may be.
"""

from __future__ import annotations

import contextlib
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import NamedTuple

import click
import msgspec

from nodeagent.model.errors import Failed
from nodeagent.model.nic import Classifier, Scheduler
from nodeagent.model.nic_told import ClassTold, NetTold, NicTold, TreeTold
from nodeagent.model.pod import Qos
from nodeagent.model.units import format_bps, format_bytes
from nodeagent.report.nic_lines import SHOWN, rate, state
from nodeagent.rpc.channel import Target
from nodeagent.rpc.client import network

ANSWER_S = 10.0
EVERY_S = 1.0
WIDTH = 100
BAR = 30
LISTED = 20
PARTS = " ▏▎▍▌▋▊▉█"  # eighths
ASCII = str.maketrans(dict.fromkeys("▏▎▍▌▋▊▉█", "#") | {"░": ".", "…": "..."})
STEP = {
    Scheduler.HTB: "a tree of classes at the root of the NIC",
    Scheduler.EDT: "eBPF sets departure times, the fq that is there keeps them",
    Scheduler.VETH: "trees of classes at the pods' own interfaces",
    Scheduler.OBSERVE: "not shaped",
}
TELLS = {
    Classifier.NFT: "nftables",
    Classifier.BPF: "eBPF",
    Classifier.NET_CLS: "net_cls and nftables",
    Classifier.U32: "tc filters, by address alone",
    Classifier.NONE: "nothing",
}


class Line(NamedTuple):
    """One line, and the class that it is about."""

    text: str
    qos: Qos | None = None
    head: bool = False


def show(target: Target, *, as_json: bool, watch: bool) -> None:
    """Print what the agent tells; with `watch` again each second until Ctrl-C, on a terminal in place."""
    form = to_json if as_json else as_text
    if watch and not as_json and sys.stdout.isatty():
        _watch(target)
        return
    click.echo(_printable(form(ask(target))))
    with contextlib.suppress(KeyboardInterrupt):
        while watch:
            time.sleep(EVERY_S)
            click.echo(_printable(form(ask(target))))


def ask(target: Target) -> NetTold:
    """What the running agent tells; Failed or Refused, with what to do, when it does not."""
    found = network(target, timeout_s=ANSWER_S)
    if found is None:
        raise Failed("the agent shapes no traffic", hint='set agent.enforce = ["cpu", "nic"]')
    return found


def to_json(found: NetTold) -> str:
    """The same as one line of JSON; rates in bits per second, "no limit" is null."""
    return msgspec.json.encode(found).decode()


def as_text(found: NetTold) -> str:
    """A tree per NIC, and what tells whose a packet is."""
    return "\n".join(line.text for line in lines(found))


def lines(found: NetTold) -> Iterator[Line]:
    """The same line by line, at most `WIDTH` columns wide where names are of a usual length."""
    for nic in found.nics:
        yield from _nic(nic)
        yield Line("")
    if not found.nics:
        yield from _wrapped("no NIC is looked after: none has a default route, or matches a [[nics]] entry")
    yield from _marks(found)
    for what in found.failed:
        yield from _wrapped(f"not done: {what}")


def _watch(target: Target) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from nodeagent.report.screen import COLOUR

    def picture(found: NetTold) -> Text:
        styled = [
            (f"{line.text}\n", COLOUR[line.qos] if line.qos else "bold" if line.head else "dim")
            for line in lines(found)
        ]
        return Text.assemble(*styled, no_wrap=True, overflow="ellipsis")

    with contextlib.suppress(KeyboardInterrupt), Live(console=Console(), auto_refresh=False) as live:
        while True:
            live.update(picture(ask(target)), refresh=True)
            time.sleep(EVERY_S)


def _printable(text: str) -> str:
    """The bars in ASCII where the terminal's encoding has no blocks."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return text.translate(ASCII)
    return text


def _nic(nic: NicTold) -> Iterator[Line]:
    yield Line(f"{nic.name}  {nic.role}, {state(nic)}", head=True)
    yield from _wrapped(f"{nic.scheduler}: {STEP[nic.scheduler]}", "  ")
    if nic.why:
        yield from _wrapped(f"why: {nic.why}", "  ")
    for direction, tree in (("out", nic.egress), ("in", nic.ingress)):
        if tree is not None:
            yield from _tree(direction, tree)


def _tree(direction: str, tree: TreeTold) -> Iterator[Line]:
    rates = [each.rate_bps for each in tree.classes if each.rate_bps is not None]
    now = f"{format_bps(sum(rates))} of " if rates else ""
    title = f"{direction}, {now}{format_bps(tree.top_bps)}"
    yield Line(_row(f"{title:<37}", ("now", "guarantee", "ceiling", "backlog", "drops")))
    for each in tree.classes:
        backlog = "?" if each.backlog_bytes is None else format_bytes(each.backlog_bytes)
        limits = (format_bps(each.guarantee_bps), format_bps(each.ceiling_bps))
        name = f"{SHOWN[each.qos]:<6} {_bar(each, tree.top_bps)}"
        yield Line(_row(name, (rate(each), *limits, backlog, _count(each.drops))), each.qos)
        if each.qos is Qos.BATCH and each.why:
            yield from _wrapped(f"ceiling: {each.why}", "         ")
    if all(each.bytes is None for each in tree.classes):
        yield Line("  planned only: the kernel does not have it (yet, or the agent only observes)")


def _row(left: str, cells: tuple[str, str, str, str, str]) -> str:
    now, guarantee, ceiling, backlog, drops = cells
    return f"  {left} {now:>11} {guarantee:>12} {ceiling:>12} {backlog:>10} {drops:>8}"


def _bar(each: ClassTold, top_bps: float) -> str:
    """Solid for what is sent, in eighths of a column; light up to the ceiling."""
    sent = _columns(each.rate_bps or 0.0, top_bps)
    whole, part = int(sent), int(sent % 1 * 8)
    solid = "█" * whole + (PARTS[part] if part else "")
    room = max(len(solid), round(_columns(each.ceiling_bps, top_bps)))
    return f"{solid}{'░' * (room - len(solid))}".ljust(BAR)


def _columns(bps: float, top_bps: float) -> float:
    return BAR * min(1.0, bps / top_bps) if top_bps > 0.0 else 0.0


def _count(number: int | None) -> str:
    if number is None:
        return "?"
    if number < 10**7:
        return str(number)
    return f"{number / 1e6:.1f}M" if number < 10**9 else f"{number / 1e9:.1f}G"


def _marks(found: NetTold) -> Iterator[Line]:
    entries = f": {_some(found.cgroups, 'cgroup')}, {_some(found.addresses, 'address', 'es')}"
    why = f" ({found.why})" if found.why else ""
    here = "" if found.classifier is Classifier.NONE else entries
    yield from _wrapped(f"packets are told by {TELLS[found.classifier]}{here}{why}")
    if not found.unclassified:
        return
    yield Line(f"{_some(len(found.unclassified), 'pod')} whose traffic passes for LS:")
    for each in found.unclassified[:LISTED]:
        yield from _wrapped(f"{each.name}: {each.why}", "  ")
    if len(found.unclassified) > LISTED:
        yield Line(f"  … and {len(found.unclassified) - LISTED} more")


def _some(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{'' if number == 1 else plural}"


def _wrapped(text: str, indent: str = "") -> Iterator[Line]:
    yield from map(Line, textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  "))
