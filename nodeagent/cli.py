"""The command line: each command parses its words, calls one function, and says what came out.

Exit codes: 0 done, 1 a failure, 2 wrong usage, 78 a wrong configuration; `exec` gives its command's own.
What only one command needs is imported by that command, so that the daemon stays small.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from nodeagent import __version__
from nodeagent.ask import events, explain
from nodeagent.direct import direct
from nodeagent.interference import interference
from nodeagent.model.errors import AgentError
from nodeagent.model.units import parse_bytes
from nodeagent.target import target, target_options
from nodeagent.words import (
    Tree,
    config_options,
    cores_in,
    fail,
    leave,
    output_option,
    parsed,
    progress,
    say_no_more,
)
from nodeagent.words import configured as _config


@click.group(cls=Tree, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="nodeagent")
def cli() -> None:
    """Let batch work use what latency-sensitive work leaves idle, and take it back before anyone notices.

    \b
    Start here (as root):
      nodeagent doctor                            what this node supports, and how to fix the rest
      nodeagent once                              what the agent sees and would write; writes nothing
      nodeagent run                               the agent; Ctrl-C gives everything back
      nodeagent exec --qos ls -- ./server         a latency-sensitive command
      nodeagent exec --qos batch -- make -j       a batch command, bounded by what is left

    Without configuration the agent writes only below its own cgroup `nodeagent` and observes all else.
    """


@cli.command()
@config_options
@output_option
def run(path: str | None, overrides: Sequence[str], output: str) -> None:
    """Run the agent until SIGTERM or Ctrl-C, then give back every value that it has changed.

    On a terminal it shows one refreshed screen; otherwise, or with -o json, it logs structured events, one
    per change. SIGHUP reads the configuration again; a bad file is refused and the old policy stays.
    """
    from nodeagent.garbage import lean_allocator, left_out

    lean_allocator()
    with left_out("rich"):  # structlog would draw tracebacks with it, at 4 MiB
        from nodeagent.agent import Agent
        from nodeagent.report.logs import set_up

    config = _config(path, overrides)
    on_screen = output == "text" and sys.stdout.isatty()
    set_up(config.settings.log.level, as_json=output == "json" or not sys.stderr.isatty(), quiet=on_screen)
    if not on_screen:
        Agent(config, lambda: _config(path, overrides), None).run()
        return
    from nodeagent.report.screen import Screen

    screen = Screen(f"nodeagent {__version__} [{config.settings.agent.mode.value}]")
    try:
        Agent(config, lambda: _config(path, overrides), screen.show).run()
    finally:
        screen.close()


@cli.command()
@config_options
@output_option
def once(path: str | None, overrides: Sequence[str], output: str) -> None:
    """One tick: what is seen, what would be written and why. Writes nothing, needs no running agent.

    Rates need two readings, so this takes one tick length (1 s by default).
    """
    from nodeagent.once import as_json, as_text, look

    seen = look(_config(path, overrides))
    click.echo(as_json(seen) if output == "json" else as_text(seen))


@cli.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--qos", type=click.Choice(["ls", "mid", "batch"]), required=True, help="QoS class.")
@click.option(
    "--priority",
    type=click.Choice(["high", "medium", "low"]),
    default="medium",
    show_default=True,
    help="Inside batch: who is cut first (low) and last (high).",
)
@click.option("--cpus", metavar="N", help="CPU request in cores; the weight among pods of its class.")
@click.option(
    "--cpu-limit",
    metavar="N",
    help="CPU limit in cores. With an agent running, an ls pod that is throttled may exceed it for a while, "
    "out of what it left unused before; see [burst] in `nodeagent check`.",
)
@click.option("--memory", metavar="N", help='Memory request: bytes, or "512Mi", "2G".')
@click.option(
    "--numa",
    type=click.Choice(["bind", "none"]),
    default="none",
    show_default=True,
    help="bind: whole cores of its own on as few NUMA nodes as fit --cpus and --memory, with memory there.",
)
@click.option("--exclusive", is_flag=True, help="With --numa bind: whole NUMA nodes, shared with nobody.")
@click.option("--near", default="", metavar="NIC", help="With --numa bind: close to this NIC (or GPU).")
@click.option("--hands-off", is_flag=True, help="The agent writes nothing of this pod (not for batch).")
@click.option("--name", help="Name of the pod.  [default: the command's name and the pid]")
@click.option("--run-dir", default=None, metavar="DIR", help="As the agent's agent.run_dir.")
@output_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(  # noqa: PLR0913, PLR0917  one argument per option
    qos: str,
    priority: str,
    cpus: str | None,
    cpu_limit: str | None,
    memory: str | None,
    numa: str,
    exclusive: bool,
    near: str,
    hands_off: bool,
    name: str | None,
    run_dir: str | None,
    output: str,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND in a pod cgroup of its own: nodeagent/<qos>/<name> in every hierarchy.

    Signals are forwarded; the exit status is COMMAND's (127: not found). What it leaves running is ended.

    \b
      nodeagent exec --qos ls --cpus 8 --memory 16Gi --numa bind --near eth1 -- ./server
    """
    from nodeagent.model.pod import Priority, Qos
    from nodeagent.pods.launch import launch

    status = launch(
        command,
        qos=Qos(qos),
        priority=Priority(priority),
        cpus=parsed("--cpus", cpus, cores_in),
        cpu_limit=parsed("--cpu-limit", cpu_limit, cores_in),
        memory=parsed("--memory", memory, parse_bytes),
        numa_bind=numa == "bind",
        exclusive=exclusive,
        near=near,
        hands_off=hands_off,
        name=name,
        run_dir=run_dir or os.environ.get("RUNTIME_DIRECTORY") or "/run/nodeagent",
    )
    leave(status, output)


@cli.command()
@click.argument("file", required=False)
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override one value.")
@click.option("--example", is_flag=True, help="A file to begin with instead: all keys, commented out.")
@output_option
def check(file: str | None, overrides: Sequence[str], example: bool, output: str) -> None:
    """Print the effective configuration with the origin and meaning of each value; 78 when FILE is wrong."""
    from nodeagent import check as configuration
    from nodeagent.check import as_json, as_text, effective

    if example:
        text = configuration.example()
        click.echo(configuration.example_as_json(text) if output == "json" else text.rstrip("\n"))
        return
    rows = effective(_config(file, overrides))
    click.echo(as_json(rows) if output == "json" else as_text(rows))


@cli.command()
@config_options
@output_option
def doctor(path: str | None, overrides: Sequence[str], output: str) -> None:
    """What this node supports, what is in the way, how to fix it. Changes nothing; 1 if something fails."""
    from nodeagent.doctor import as_json, as_text, examine, failed

    findings = examine(_config(path, overrides))
    click.echo(as_json(findings) if output == "json" else as_text(findings))
    sys.exit(1 if failed(findings) else 0)


@cli.command()
@click.argument("directory")
@click.option(
    "--policy", "policy_file", metavar="FILE", help="Decide by this configuration's policy instead."
)
@output_option
def replay(directory: str, policy_file: str | None, output: str) -> None:
    """Decide every tick of a journal anew; 1 if one decision differs from the recorded one.

    DIRECTORY is the agent's state directory or the journal in it. With --policy FILE it prints where that
    policy would have decided otherwise, with a summary of both; recorded readings do not react to that.
    """
    from nodeagent import replay as journal

    policy = _config(policy_file, ()).policy if policy_file else None
    done = journal.replay(directory, policy, progress())
    click.echo(journal.as_json(done) if output == "json" else journal.as_text(done))
    sys.exit(1 if done.differing_count else 0)


@cli.command()
@click.option("--dry-run", is_flag=True, help="Tell what would be moved; move nothing.")
@config_options
@output_option
def defragment(path: str | None, overrides: Sequence[str], dry_run: bool, output: str) -> None:
    """Let the running agent move bound pods together, so that more have a place, or on fewer NUMA nodes.

    The agent does this only when asked, once, in its next tick. As root; 1 if a write failed.
    """
    from nodeagent.defragment import as_json, as_text, ask

    done = ask(_config(path, overrides), dry_run=dry_run)
    click.echo(as_json(done) if output == "json" else as_text(done))
    sys.exit(1 if done.errors else 0)


@cli.command()
@click.option("--watch", is_flag=True, help="Again each second, until Ctrl-C.")
@target_options
@config_options
@output_option
def nic(path: str | None, overrides: Sequence[str], watch: bool, output: str) -> None:
    """How the running agent shapes each NIC: a bar for each class, with its limits, queue and drops.

    Asks the agent, so it needs one that runs with "nic" in agent.enforce; rates are those of its last tick.
    """
    from nodeagent.nic import show

    show(target(_config(path, overrides).settings.grpc.address), as_json=output == "json", watch=watch)


@cli.command()
@click.option("--keep-nics", is_flag=True, help="Leave traffic shaped: the next agent takes that over.")
@config_options
@output_option
def restore(path: str | None, overrides: Sequence[str], output: str, keep_nics: bool) -> None:
    """Put back every original value that a killed agent left changed. Refused while an agent is alive.

    Values that somebody else has changed since are left as they are and told.
    """
    from nodeagent import restore as undo

    agent = _config(path, overrides).settings.agent
    done = undo.restore(agent.state_dir, agent.host_root, nics=not keep_nics)
    click.echo(undo.as_json(done) if output == "json" else undo.as_text(done))
    sys.exit(1 if done.failed or done.nics_failed else 0)


for command in (direct, explain, events, interference):
    cli.add_command(command)


def main() -> None:
    """Entry point: every expected error becomes one line on stderr and an exit code."""
    status: object = 0
    try:
        status = cli.main(standalone_mode=False, prog_name="nodeagent")
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(error.exit_code)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "nodeagent"
        fail(error.format_message(), f"{command} --help", error.exit_code)
    except click.exceptions.Abort:
        fail("interrupted", "", 130)
    except AgentError as error:
        fail(str(error), error.hint, error.exit_code)
    except BrokenPipeError:
        say_no_more()
        sys.exit(1)
    except OSError as error:  # a full disk behind stdout, a directory that cannot be made
        say_no_more()
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{error.strerror or error}", "", 1)
    sys.exit(status if isinstance(status, int) else 0)
