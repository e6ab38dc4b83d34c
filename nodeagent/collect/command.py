"""The words of `nodeagent collect`; what they need is imported when it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from nodeagent.model.errors import Misconfigured
from nodeagent.words import Group, output_option

if TYPE_CHECKING:
    from nodeagent.rpc.tls import TlsFiles

DEFAULT = "127.0.0.1:9470"
Command = Callable[..., Any]


def tls_options(command: Command) -> Command:
    """--tls-cert, --tls-key, --tls-ca and --tls-name, as `tls_cert`, `tls_key`, `tls_ca` and `tls_name`."""
    for name, metavar, text in (
        ("--tls-name", "NAME", "The name in the certificate of who is asked, where it is not HOST."),
        ("--tls-ca", "FILE", "PEM file: the CAs that the others' certificates must have."),
        ("--tls-key", "FILE", "PEM file: its key."),
        ("--tls-cert", "FILE", "PEM file: the certificate; all TCP is mTLS with it, else only on loopback."),
    ):
        command = click.option(name, metavar=metavar, default="", help=text)(command)
    return command


def words(_ctx: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Commas separate, and the option may be given again."""
    return tuple(word.strip() for value in values for word in value.split(",") if word.strip())


@click.group(cls=Group, invoke_without_command=True)
@click.option(
    "--listen",
    metavar="ADDRESS",
    default=DEFAULT,
    show_default=True,
    help="Where agents report and clients ask: HOST:PORT or unix:/path.",
)
@click.option(
    "--query",
    metavar="ADDRESS,...",
    multiple=True,
    callback=words,
    help="Ask these agents (HOST:PORT or unix:/path), besides listening. May be given again.",
)
@tls_options
@click.option(
    "--agents",
    metavar="GLOB,...",
    multiple=True,
    default=("**",),
    callback=words,
    help='With TLS: who may report, by a name in the certificate (SAN); "*" ends at a slash.  [default: **]',
)
@click.option(
    "--node-names-from-certificate",
    "own_names",
    is_flag=True,
    help="With TLS: an agent reports only as a node that its certificate names: DNS:NODE or URI:.../NODE.",
)
@click.option(
    "--readers",
    metavar="GLOB,...",
    multiple=True,
    default=("**",),
    callback=words,
    help="With TLS: who may read the view.  [default: **]",
)
@click.option(
    "--directors",
    metavar="GLOB,...",
    multiple=True,
    callback=words,
    help='Who may send directives to nodes: such names, or "loopback"; on a unix socket root and its owner.',
)
@click.option(
    "--http",
    metavar="ADDRESS",
    default="127.0.0.1:9471",
    show_default=True,
    help='Where /metrics, /livez and /readyz are; "" = nowhere.',
)
@click.option(
    "--max-nodes", type=click.IntRange(1, 8192), default=5000, show_default=True, help="Nodes, and streams."
)
@click.option(
    "--metrics-nodes",
    type=click.IntRange(0, 8192),
    default=0,
    show_default=True,
    help="How many nodes /metrics shows one by one.",
)
@click.option(
    "--clock-skew",
    "clock_skew_s",
    type=click.FloatRange(0.0, 3600.0),
    metavar="SECONDS",
    default=2.0,
    show_default=True,
    help="By how much nodes' clocks may be behind this one before their capacity is taken for stale.",
)
@click.option(
    "--refresh",
    "refresh_s",
    type=click.FloatRange(0.1, 3600.0),
    metavar="SECONDS",
    default=1.0,
    show_default=True,
    help="Time between two tables, or two lines.",
)
@output_option
@click.pass_context
def collect(  # noqa: PLR0913, PLR0917  one argument per option that is not simply handed on
    ctx: click.Context,
    /,
    tls_cert: str,
    tls_key: str,
    tls_ca: str,
    agents: tuple[str, ...],
    readers: tuple[str, ...],
    directors: tuple[str, ...],
    own_names: bool,
    output: str,
    **given: Any,
) -> None:
    """A small controller: adds up what many agents offer, serves it, and shows it until Ctrl-C.

    Agents connect to it (their controller.address), or it asks them (--query). A node counts for nothing once
    its capacity is not valid any more. On a terminal a table is drawn anew, elsewhere there is a line per
    change.

    \b
      nodeagent collect                                      agents on this machine
      nodeagent collect --query unix:/run/nodeagent/nodeagent.sock
      nodeagent collect --listen 10.0.0.1:9470 --tls-cert c.pem --tls-key k.pem --tls-ca ca.pem
      nodeagent collect view                                 what the running one has gathered
    """
    if ctx.invoked_subcommand is not None:
        return
    from nodeagent.collect.access import Allowed
    from nodeagent.collect.run import Options, run
    from nodeagent.model.settings import Level
    from nodeagent.report.logs import set_up

    on_screen = output == "text" and sys.stdout.isatty()
    set_up(Level.INFO, as_json=output == "json" or not sys.stderr.isatty(), quiet=on_screen)
    allowed = Allowed(agents, readers, directors, own_names)
    tls = _tls(tls_cert, tls_key, tls_ca, needed=own_names)
    run(Options(tls=tls, allowed=allowed, as_json=output == "json", on_screen=on_screen, **given))


@collect.command()
@click.option(
    "--address", metavar="ADDRESS", default=DEFAULT, show_default=True, help="The controller's --listen."
)
@tls_options
@click.option("--nodes/--no-nodes", default=True, show_default=True, help="Also the nodes one by one.")
@output_option
def view(
    address: str, tls_cert: str, tls_key: str, tls_ca: str, tls_name: str, nodes: bool, output: str
) -> None:
    """What a running controller has gathered, once; 1 when none answers."""
    from nodeagent.collect.ask import ask
    from nodeagent.collect.screen import show, to_json

    found = ask(address, _tls(tls_cert, tls_key, tls_ca), tls_name, nodes=nodes, timeout_s=10.0)
    if output == "json":
        click.echo(to_json(found))
    else:
        show(found, address)


def _tls(cert: str, key: str, ca: str, *, needed: bool = False) -> TlsFiles | None:
    from nodeagent.rpc.tls import TlsFiles

    if not (cert or key or ca or needed):
        return None
    if not (cert and key and ca):
        hint = "--node-names-from-certificate needs them" if needed else "give all three, or none"
        raise Misconfigured("--tls-cert, --tls-key and --tls-ca go together", hint)
    return TlsFiles(cert, key, ca)
