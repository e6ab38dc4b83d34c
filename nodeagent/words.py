"""What the commands of the command line have in common: options, and words that become values."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from nodeagent.config import Config

MAX_CORES = 65536.0
HOST_ROOT = "agent.host_root"
ELSEWHERE = {
    "collect": "nodeagent.collect.command",
    "simulate": "nodeagent.simulate.command",
}  # commands of their own: the daemon shall not import them
Command = Callable[..., Any]
T = TypeVar("T")


class Group(click.Group):
    """A group that answers an unknown command with the nearest known one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's; UsageError with a suggestion when there is no such command."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            known = (
                f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(self.list_commands(ctx))}"
            )
            raise click.UsageError(f"no such command {args[0]!r}; {known}", ctx)
        return super().resolve_command(ctx, args)


class Tree(Group):
    """The group of all commands, some of which are imported late."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As click's, with those elsewhere."""
        return sorted([*super().list_commands(ctx), *ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """As click's, with those elsewhere."""
        if cmd_name in ELSEWHERE:
            found: click.Command = getattr(importlib.import_module(ELSEWHERE[cmd_name]), cmd_name)
            return found
        return super().get_command(ctx, cmd_name)


def output_option(command: Command) -> Command:
    """-o text|json."""
    form = click.Choice(["text", "json"])
    return click.option(
        "-o", "--output", type=form, default="text", show_default=True, help="Form of the answer."
    )(command)


def _keep_host_root(ctx: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.meta[HOST_ROOT] = value


def config_options(command: Command) -> Command:
    """--config FILE, --set section.key=value and --host-root DIR (the same as --set agent.host_root=DIR)."""
    command = click.option(
        "--host-root",
        metavar="DIR",
        expose_value=False,
        callback=_keep_host_root,
        help="Where the host's / is seen, as agent.host_root: /host in a container.  [default: /]",
    )(command)
    command = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        help="Override one value; see `nodeagent check` for the names. May be given again.",
    )(command)
    return click.option(
        "-c",
        "--config",
        "path",
        metavar="FILE",
        envvar="NODEAGENT_CONFIG",
        help="TOML file.  [default: /etc/nodeagent/nodeagent.toml if it exists, else built-in defaults]",
    )(command)


def configured(path: str | None, overrides: Sequence[str]) -> Config:
    """The configuration as the options of `config_options` say; Misconfigured when it is wrong."""
    from nodeagent.config import DEFAULT_PATH, load, parse_override

    if path is None and os.path.exists(DEFAULT_PATH):
        path = DEFAULT_PATH
    given = click.get_current_context().meta
    named = {HOST_ROOT: given[HOST_ROOT]} if HOST_ROOT in given else {}
    return load(path, env=os.environ, overrides={**dict(map(parse_override, overrides)), **named})


def parsed(option: str, text: str | None, parse: Callable[[str], T]) -> T | None:
    """`text` as a value, None without it; BadParameter naming `option` where `parse` raises ValueError."""
    if text is None:
        return None
    try:
        return parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


def cores_in(text: str) -> float:
    """A number of cores; ValueError for anything else."""
    with contextlib.suppress(ValueError):
        if 0.0 < (cores := float(text)) <= MAX_CORES:
            return cores
    raise ValueError(f"{text[:40]!r} is not a number of cores above 0, such as 0.5 or 4")


def progress() -> Callable[[int], None] | None:
    """Counts ticks on standard error, None where nobody sees it."""
    if not sys.stderr.isatty():
        return None
    return lambda ticks: click.echo(f"\r{ticks} ticks", nl=False, err=True)


def say_no_more() -> None:
    """What is still in stdout's buffer goes nowhere, or Python would complain of it when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def leave(status: int, output: str) -> NoReturn:
    """Exit as a command did; as JSON it is said too, where its own output is not."""
    if output == "json":
        click.echo(f'{{"exit_status": {status}}}', err=True)
    sys.exit(status)


def fail(message: str, hint: str, code: int) -> NoReturn:
    """One line on standard error, and what to do about it."""
    line = " ".join(message.split())
    line = line[:1].lower() + line[1:]
    click.echo(f"nodeagent: {line.rstrip('.')}" + (f" ({hint})" if hint else ""), err=True)
    sys.exit(code)
