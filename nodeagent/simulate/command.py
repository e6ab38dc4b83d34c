"""`nodeagent simulate`: what this node would lend, by a policy, had it gone as a trace tells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import click

from nodeagent.model.errors import Failed
from nodeagent.model.units import parse_bytes
from nodeagent.simulate.trace import Trace
from nodeagent.words import config_options, configured, output_option, parsed, progress

FORMATS = ("csv", "alibaba-machine", "alibaba-container")
MAX_CPUS = 8192
BYTES_PER_CORE = 4 << 30

HELP = """What would this node lend by this policy? Plays TRACE ("-": standard input) on a model of it.

The agent's own `decide` sees the modelled node tick by tick; Batch takes all that it is let; a scheduler
fills what is offered with Batch tasks of --task-cores. Nothing of this host is read or written.

\b
Answers, over the time in which online use is known:
  lent       CPU time that Batch got; offered: what was promised to it, and how often that changed
  ceiling    Batch's part of what was used above cores x capacity.cpu_ceiling_ratio
  starved    CPU time that online work wanted, would have got without Batch, and did not get
  withdrawn  offered below what the tasks that run were promised; squeezed: they got less than that

\b
  nodeagent simulate day.csv --cores 32
  nodeagent simulate day.csv --cores 32 --set capacity.cpu_ceiling_ratio=0.8
  zcat day.csv.gz | nodeagent simulate - --cores 32 --step 5 -o json
  nodeagent simulate machine_usage.tar.gz --format alibaba-machine --machine m_1932 --cores 96

\b
TRACE, also packed by gzip or tar:
  csv                seconds,cores used by all online work; or seconds,cores of pod 1,cores of pod 2,...
                     A sample holds until the next one; an empty cell: not known. A first line
                     "seconds,web,search" names the pods, "#" begins a comment, time must rise.
  alibaba-machine    machine_usage.csv of Alibaba's cluster-trace-v2018 (all work, Batch included)
  alibaba-container  its container_usage.csv (online work alone; needs --meta container_meta.csv)
"""


class Number(click.FloatRange):
    """A number within bounds; click's own would take nan, too."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """As click's; it fails for what is not finite."""
        found = float(super().convert(value, param, ctx))
        return (
            found if math.isfinite(found) else self.fail(f"{found} is not a number to count with", param, ctx)
        )


@click.command(help=HELP)
@click.argument("trace", metavar="TRACE")
@click.option("--cores", type=click.IntRange(1, MAX_CPUS), required=True, help="CPUs of the node.")
@click.option("--memory", metavar="N", help='Memory of the node: "64Gi".  [default: 4 GiB for each CPU]')
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="csv",
    show_default=True,
    help="Of TRACE; see above.",
)
@click.option("--machine", metavar="ID", default="", help="alibaba-*: the machine to take, such as m_1932.")
@click.option(
    "--meta", metavar="FILE", default="", help="alibaba-container: container_meta.csv, for requests."
)
@click.option(
    "--step",
    type=Number(0.1, 3600.0),
    default=None,
    help="Seconds from tick to tick.  [default: agent.tick_s]",
)
@click.option(
    "--hold",
    type=Number(0.1, 86400.0),
    default=None,
    help="Seconds that a sample holds while none follows; then online use is not known.  "
    "[default: 3 times the samples' usual distance]",
)
@click.option("--warm-up", type=Number(0.0, 1e10), default=0.0, help="Seconds that only teach: not counted.")
@click.option(
    "--task-cores",
    type=Number(0.1, 1024.0),
    default=1.0,
    show_default=True,
    help="Of a Batch task.",
)
@click.option("--task-s", type=Number(1.0, 1e6), default=600.0, show_default=True, help="Its mean length.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Of the tasks' lengths; the same gives the same."
)
@config_options
@output_option
def simulate(  # noqa: PLR0913, PLR0917  one argument per option
    path: str | None,
    overrides: Sequence[str],
    trace: str,
    cores: int,
    memory: str | None,
    form: str,
    machine: str,
    meta: str,
    step: float | None,
    hold: float | None,
    warm_up: float,
    task_cores: float,
    task_s: float,
    seed: int,
    output: str,
) -> None:
    """Of `HELP`."""
    from nodeagent.simulate.ours import Ours
    from nodeagent.simulate.play import Shape, play
    from nodeagent.simulate.render import as_json, as_text

    config = configured(path, overrides)
    size = parsed("--memory", memory, parse_bytes) or cores * BYTES_PER_CORE
    told = _read(trace, form, machine, meta, cores, hold)
    if warm_up >= told.end_s - told.begin_s:
        raise Failed(f"--warm-up {warm_up:g}: the trace is over by then", "take a shorter one")
    ceiling_ratio, tick_s = config.policy.capacity.cpu_ceiling_ratio, config.settings.agent.tick_s
    shape = Shape(cores, ceiling_ratio, step or tick_s, task_cores, task_s, seed)
    tell = progress()
    found = play(
        told, shape, Ours(config.policy, cores, size, [pod.name for pod in told.pods]), warm_up, tell
    )
    if tell is not None:
        click.echo(err=True)
    click.echo(as_json(found) if output == "json" else as_text(found))


def _read(path: str, form: str, machine: str, meta: str, cores: int, hold_s: float | None) -> Trace:
    """The trace as the options say; UsageError where one is missing."""
    from nodeagent.simulate import alibaba, table

    if form == "csv":
        return table.read(path, hold_s)
    if not machine:
        raise click.UsageError(f"--format {form} needs --machine: the file has thousands of them")
    if form == "alibaba-machine":
        return alibaba.machine_usage(path, machine, cores, hold_s)
    if not meta:
        raise click.UsageError(f"--format {form} needs --meta: percentages are of what containers request")
    return alibaba.container_usage(path, meta, machine, hold_s)
