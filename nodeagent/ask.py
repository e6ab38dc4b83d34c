"""`nodeagent explain` and `nodeagent events`: what the running agent says of itself.

The commands are here and not in cli.py; what they need is imported when they are called.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import click

from nodeagent.target import target, target_options
from nodeagent.words import config_options, configured, output_option

ANSWER_S = 10.0
CAPACITY = "capacity"
TOPICS = ("signal", "action", "drift", "pod", "capacity", "interference")


@click.command()
@click.argument("subject", metavar="[capacity|POD]", default=CAPACITY)
@target_options
@config_options
@output_option
def explain(path: str | None, overrides: Sequence[str], subject: str, output: str) -> None:
    """Why this much is offered to Batch (capacity, the default), or why POD's limits are what they are.

    POD is a uid or a name. For each value: the rule, the same with the numbers of the agent's last tick,
    where they came from, what was written to the kernel and what was read back.

    \b
      nodeagent explain                 why this capacity
      nodeagent explain transcode-3     why this pod's limits
    """
    from nodeagent.report.explained import as_json, as_text
    from nodeagent.rpc.client import explain as ask

    where = target(configured(path, overrides).settings.grpc.address)
    found = ask(where, None if subject == CAPACITY else subject, timeout_s=ANSWER_S)
    click.echo(as_json(found) if output == "json" else as_text(found))


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on with those to come, until Ctrl-C.")
@click.option(
    "--topic", "topics", multiple=True, type=click.Choice(TOPICS), help="Only this; may be given again."
)
@click.option("--debug", is_flag=True, help="Each single write and each step of a limit too.")
@target_options
@config_options
@output_option
def events(
    path: str | None,
    overrides: Sequence[str],
    follow: bool,
    topics: tuple[str, ...],
    debug: bool,
    output: str,
) -> None:
    """What happened on this node: pods, signals, limits, writes that failed, other writers; a line each.

    The last few hundred that the running agent still knows; the same as in its log. With -o json an object
    a line.
    """
    from nodeagent.report.happened import lines
    from nodeagent.rpc.happened import watched

    where = target(configured(path, overrides).settings.grpc.address)
    with contextlib.suppress(KeyboardInterrupt):
        for seen in watched(where, topics, debug=debug, follow=follow, timeout_s=ANSWER_S):
            for line in lines(seen, as_json=output == "json"):
                click.echo(line)
