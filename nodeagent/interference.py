"""`nodeagent interference`: who is slowed by whom on this node, what was tried and done, and what came of it.

since     lasted  victim    resource  antagonist   trial        action          state
14:02:11     7 s  search-7  cpu       transcode-3  kept: 10 %   quota           over, recovered in 4 s
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click
import msgspec

from nodeagent.model.interference import Episode, Restraint, Rung, TrialResult
from nodeagent.model.interference_told import (
    Listed,
    antagonists,
    clock,
    deeds,
    evidence,
    named,
    recovered_s,
    restrained,
    seconds,
    step,
    story,
)
from nodeagent.report.text import printable
from nodeagent.target import target, target_options
from nodeagent.words import config_options, configured, output_option

ANSWER_S = 10.0
HEAD = ("since", "lasted", "victim", "resource", "antagonist", "trial", "action", "state")
STORIES = 5


@click.command()
@click.argument("victim", metavar="[POD]", default="")
@click.option("--open", "open_only", is_flag=True, help="Only what is not over.")
@target_options
@config_options
@output_option
def interference(
    path: str | None, overrides: Sequence[str], victim: str, open_only: bool, output: str
) -> None:
    """Which online pods are slowed by their neighbours, now and lately; of POD (uid or name) or of all.

    For each: since when, by whom as far as that is known, whether a trial has shown it, and what was done.
    Below it which Batch pods are held back now, and which alarms turned out to be nobody else's doing.
    """
    from nodeagent.rpc.interference_client import listed

    where = target(configured(path, overrides).settings.grpc.address)
    found = listed(where, victim, open_only=open_only, timeout_s=ANSWER_S)
    click.echo(as_json(found) if output == "json" else as_text(found))


def as_json(found: Listed) -> str:
    """The same for programs; each episode with its story, names of antagonists and time to recovery."""
    plain = msgspec.to_builtins(found)
    for each, episode in zip(plain["episodes"], found.episodes, strict=True):
        names = [named(episode, [uid]) for uid in antagonists(episode)]
        each |= {"antagonists": names, "recovered_s": recovered_s(episode), "story": story(episode)}
    return msgspec.json.encode(plain).decode()


def as_text(found: Listed) -> str:
    """A row for each episode, the stories of the first, who is held back, and what was rejected."""
    lines = list(_table(found)) if found.episodes else ["nobody online is or was slowed by others"]
    stories = [printable(story(each)) for each in found.episodes[:STORIES]]
    lines += ["", *stories] if stories else []
    if found.left_out:
        lines.append(f"({found.left_out} older ones are left out)")
    lines += ["", "held back now:", *map(_held, found.restraints)] if found.restraints else []
    lines += ["", "nobody else's doing:"] if found.rejections else []
    lines += [
        f"  {printable(name)}: {evidence(each.alarm)}, {each.gate.value}: {each.why}"
        for name, each in found.rejections
    ]
    return "\n".join(lines)


def _table(found: Listed) -> Iterator[str]:
    rows = [HEAD, *(_row(each, found.observed_unix) for each in found.episodes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            text.rjust(width) if n == 1 else text.ljust(width)
            for n, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def _row(each: Episode, now: float) -> tuple[str, ...]:
    until = now if each.cleared_unix is None else each.cleared_unix
    who, took = antagonists(each), recovered_s(each)
    over = "over" if took is None else f"over, recovered in {seconds(took)}"
    state = f"{each.state.value}, held" if each.held else each.state.value
    return (
        clock(each.opened_unix),
        seconds(until - each.opened_unix),
        printable(each.victim_name),
        each.channel.value,
        printable(named(each, who)) or "-",
        _trial(each),
        _action(each),
        state if each.cleared_unix is None else over,
    )


def _trial(episode: Episode) -> str:
    """The latest, with what was left of the victim's trouble."""
    if not episode.trials:
        return "-"
    last = episode.trials[-1]
    left = ""
    if last.during is not None and last.before > 0.0 and last.result is not TrialResult.RUNNING:
        left = f": {last.during / last.before:.0%} left"
    return f"{last.result.value}{left}"


def _action(episode: Episode) -> str:
    return "+".join(dict.fromkeys(step(each.rung) for each in deeds(episode))) or "-"


def _held(each: Restraint) -> str:
    asked = "asked to be evicted; " if each.rung is Rung.EVICT else ""
    left = seconds(each.until)
    return f"  {printable(each.cgroup)}: {asked}{restrained(each)}; {printable(each.why)}; lease {left}"
