"""`nodeagent direct`: ask the running agent for something for a time, and show what is in force."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import click

from nodeagent.model.directive import (
    MAX_CORES,
    Directive,
    DirectiveStatus,
    End,
    Hold,
    Lend,
    Order,
    Recall,
    SetMode,
    State,
    Taken,
)
from nodeagent.model.settings import Mode
from nodeagent.model.units import format_bytes, format_duration, parse_bytes, parse_duration
from nodeagent.target import target, target_options
from nodeagent.words import Group, config_options, configured, output_option, parsed

TIMEOUT_S = 10.0
Command = Callable[..., Any]


@click.group(cls=Group)
def direct() -> None:
    """Ask the running agent for something for a time: a directive, whose lease ends by itself.

    \b
      nodeagent direct hold --cpu 4 --memory 8GiB --for 1h    offer, and let Batch use, at most this
      nodeagent direct observe --for 30m                      give everything back and write nothing
      nodeagent direct lend --for 8h                          offer all that is not used now
      nodeagent direct recall --by 10m --for 1h               offer nothing, Batch at its floor by then
      nodeagent direct end ID                                 end one before its time
      nodeagent direct list                                   those in force, and those that ended

    Durations are written as 90s, 10m, 1h30m or 2d. Sent again under the same --id one changes nothing.
    """


def _asking(command: Command) -> Command:
    """The options of everything that asks for something."""
    for option in (
        output_option,
        config_options,
        target_options,
        click.option("--dry-run", is_flag=True, help="Tell what would come of it; change nothing."),
        click.option("--reason", default="", metavar="TEXT", help="For people; it is recorded."),
        click.option("--id", "name", metavar="ID", help="Its name.  [default: a random one, shown]"),
    ):
        command = option(command)
    return command


def _leased(command: Command) -> Command:
    lease = click.option("--for", "lease", required=True, metavar="DURATION", help="How long, such as 30m.")
    return lease(_asking(command))


def _sent(make: Callable[..., Order]) -> Command:
    """A command whose own options make the order; the rest is the same for all."""

    @wraps(make)
    def command(
        *,
        path: str | None,
        overrides: Sequence[str],
        output: str,
        name: str | None,
        reason: str,
        dry_run: bool,
        lease: str | None = None,
        **own: Any,
    ) -> None:
        import secrets  # here: the daemon does without

        from nodeagent.rpc.direct_client import direct as send

        lease_s = parsed("--for", lease, parse_duration) or 0.0
        order = make(**own)
        directive = Directive(id=name or secrets.token_hex(8), lease_s=lease_s, reason=reason, order=order)
        done = send(
            target(configured(path, overrides).settings.grpc.address),
            directive,
            dry_run=dry_run,
            timeout_s=TIMEOUT_S,
        )
        click.echo(taken_as_json(done, dry_run) if output == "json" else taken_as_text(done, dry_run))

    return command


@direct.command()
@_leased
@_sent
def observe() -> Order:
    """Give back all that was set, and write nothing."""
    return SetMode(Mode.OBSERVE)


@direct.command()
@_leased
@_sent
def enforce() -> Order:
    """Write again where a directive says observe.

    Refused where the configuration says observe: a directive does not change that.
    """
    return SetMode(Mode.ENFORCE)


@direct.command()
@click.option("--cpu", metavar="N", help="At most so many cores.")
@click.option("--memory", metavar="SIZE", help='At most so much memory: bytes, or "8GiB", "512M".')
@_leased
@_sent
def hold(cpu: str | None, memory: str | None) -> Order:
    """Offer at most this, and let Batch use no more.

    Batch as a whole keeps its floor (cpu.floor_cores), and is not given what online work does not leave.
    """
    if cpu is None and memory is None:
        raise click.UsageError("give --cpu, --memory or both", click.get_current_context())
    return Hold(parsed("--cpu", cpu, _cores), parsed("--memory", memory, parse_bytes))


@direct.command()
@_leased
@_sent
def lend() -> Order:
    """Offer all that is not used now.

    Whatever online work used before; what it uses, and what is reserved, is not offered.
    """
    return Lend()


@direct.command()
@click.option(
    "--by",
    default="0s",
    metavar="DURATION",
    help="From now; by then Batch is at its floor.  [default: at once]",
)
@_leased
@_sent
def recall(by: str) -> Order:
    """Offer nothing, and take Batch to its floor.

    What Batch may use falls evenly from now on, and stays at its floor until the lease ends.
    """
    return Recall(time.time() + (parsed("--by", by, parse_duration) or 0.0))


@direct.command()
@click.argument("directive")
@_asking
@_sent
def end(directive: str) -> Order:
    """End the directive of this ID now."""
    return End(directive)


@direct.command("list")
@target_options
@config_options
@output_option
def list_(path: str | None, overrides: Sequence[str], output: str) -> None:
    """What is in force, and what ended lately; the oldest first."""
    from nodeagent.rpc.direct_client import directives

    known = directives(target(configured(path, overrides).settings.grpc.address), timeout_s=TIMEOUT_S)
    click.echo(known_as_json(known) if output == "json" else known_as_text(known, time.time()))


def taken_as_json(done: Taken, dry_run: bool) -> str:
    import msgspec

    told = {"status": done.status, "already_taken": done.already, "dry_run": dry_run}
    return msgspec.json.encode(told).decode()


def taken_as_text(done: Taken, dry_run: bool) -> str:
    """One line: what, until when, under which id."""
    status = done.status
    verb = "was taken before" if done.already else "would be taken" if dry_run else "taken"
    until = "" if isinstance(status.directive.order, End) else f" until {_clock(status.ends_unix)}"
    state = "" if status.state is State.IN_FORCE or not done.already else f"; it has {_over(status)}"
    return f"{verb}: {what(status.directive)}{until}, id {status.directive.id}{state}"


def known_as_json(known: tuple[DirectiveStatus, ...]) -> str:
    import msgspec

    return "[" + ",\n".join(msgspec.json.encode(status).decode() for status in known) + "]"


def known_as_text(known: tuple[DirectiveStatus, ...], now: float) -> str:
    """A row each."""
    if not known:
        return "no directive was taken"
    rows = [("ID", "STATE", "LEFT", "ISSUER", "WHAT", "REASON")]
    for status in known:
        in_force = status.state is State.IN_FORCE
        left = format_duration(status.ends_unix - now) if in_force else "-"
        of = status.directive
        rows.append((of.id, status.state.value.replace("_", " "), left, status.issuer, what(of), of.reason))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = (
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[5]]) for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def what(directive: Directive) -> str:
    """Its order in a few words."""
    order = directive.order
    if isinstance(order, Hold):
        cores = [] if order.cpu_cores is None else [f"{order.cpu_cores:g} cores"]
        size = [] if order.memory_bytes is None else [format_bytes(order.memory_bytes)]
        return f"hold at {', '.join(cores + size)}"
    if isinstance(order, Recall):
        return f"recall by {_clock(order.deadline_unix)}"
    if isinstance(order, End):
        return f"end {order.id}"
    return directive.kind


def _over(status: DirectiveStatus) -> str:
    return (
        f"{status.state.value} since" if status.state is State.EXPIRED else f"been {status.state.value} since"
    )


def _clock(unix: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix))


def _cores(text: str) -> float:
    try:
        cores = float(text)
    except ValueError:
        cores = -1.0
    if not 0.0 <= cores <= MAX_CORES:
        raise ValueError(f"{text[:40]!r} is not a number of cores, such as 0.5 or 4")
    return cores
