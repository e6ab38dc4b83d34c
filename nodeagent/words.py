"""What the commands of the command line have in common: options, and words that become values."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from nodeagent.model.errors import Failed

if TYPE_CHECKING:
    from nodeagent.rpc.channel import Target

MAX_CORES = 65536.0
HOST_ROOT = "agent.host_root"
GIVEN = "nodeagent.target"
TARGET = (
    (
        "--address",
        "address",
        "ADDRESS",
        "Whom to ask: unix:/path or HOST:PORT.  [default: grpc.address]",
    ),
    ("--tls-cert", "tls_cert", "FILE", "Ask by mutual TLS, with this certificate (PEM)."),
    ("--tls-key", "tls_key", "FILE", "Its key."),
    ("--tls-ca", "tls_ca", "FILE", "CAs, one of which the agent's certificate must have."),
    ("--tls-name", "tls_name", "NAME", "The name in the agent's certificate, where it is not HOST."),
)
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


def target_options(command: Command) -> Command:
    """--address and the files of TLS: where the agent is and who asks; `target` gives them back."""
    for option, name, metavar, text in reversed(TARGET):
        command = click.option(
            option,
            metavar=metavar,
            envvar=f"NODEAGENT_{name.upper()}",
            show_envvar=True,
            expose_value=False,
            callback=_keep_target,
            help=text,
        )(command)
    return command


def target(default: str) -> Target:
    """What the `target_options` name: the agent there, else the one at the address `default`."""
    from nodeagent.rpc.channel import Target
    from nodeagent.rpc.tls import TlsFiles

    given: dict[str, str] = click.get_current_context().meta.get(GIVEN, {})
    files = [given[name] for name in ("tls_cert", "tls_key", "tls_ca") if name in given]
    if 0 < len(files) < 3 or (files and "address" not in given) or ("tls_name" in given and not files):
        raise click.UsageError("--tls-cert, --tls-key and --tls-ca go together, with an --address HOST:PORT")
    address = given.get("address", default)
    if not address:
        raise Failed("the agent is not to be asked: grpc.address is empty", hint="give --address")
    return Target(address, TlsFiles(*files) if files else None, given.get("tls_name", ""))


def _keep_target(ctx: click.Context, option: click.Parameter, value: str | None) -> None:
    if value and option.name is not None:
        ctx.meta.setdefault(GIVEN, {})[option.name] = value


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
