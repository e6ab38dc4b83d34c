"""`nodeagent defragment`: ask the running agent to move bound pods together, and show what came of it."""

from __future__ import annotations

import msgspec

from nodeagent.config import Config
from nodeagent.model.placement import Move, Tidied
from nodeagent.rpc.client import defragment

ANSWER_S = 10.0


def ask(config: Config, *, dry_run: bool) -> Tidied:
    """The agent's answer, which comes with its next tick; Failed or Refused when there is none."""
    agent = config.settings.agent
    timeout_s = 2 * agent.tick_s + ANSWER_S
    return defragment(agent.control_address, dry_run=dry_run, timeout_s=timeout_s)


def as_json(done: Tidied) -> str:
    """The answer as it is."""
    return msgspec.json.encode(done).decode()


def as_text(done: Tidied) -> str:
    """A line per pod that moves, and what that is good for."""
    verb = "moved" if done.written else "would move"
    lines = [f"{verb:<11}{_move(move)}" for move in done.moves]
    if not lines:
        lines = ["nothing to move: nobody would be on fewer NUMA nodes, and nobody more would have a place"]
    if done.freed_nodes:
        lines.append(f"{'freed' if done.written else 'would free'} NUMA nodes {done.freed_nodes}")
    lines.append(f"{done.bound} bound, {done.unplaced} without room")
    lines += [f"failed     {error}" for error in done.errors]
    if not (done.written or done.dry_run):
        lines.append("nothing was written: the agent only observes")
    return "\n".join(lines)


def _move(move: Move) -> str:
    cpus = f"CPUs {move.old_cpus or 'of the pool'} -> {move.new_cpus or 'of the pool'}"
    mems = f", memory {move.old_mems} -> {move.new_mems}" if move.old_mems != move.new_mems else ""
    return f"{move.name}: {cpus}{mems}"
