"""Which agent a command asks, and as whom: the options of all commands that ask one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nodeagent.model.errors import Failed
from nodeagent.words import Command

if TYPE_CHECKING:
    from nodeagent.rpc.channel import Target

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
