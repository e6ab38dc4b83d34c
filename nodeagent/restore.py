"""Put every original value back: what `nodeagent restore` does after a crash.

Invariant: what another writer changed meanwhile is left as it is, and told; what cannot be put back stays
in the ledger, so that restoring again goes on where this ended.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from nodeagent.core.diff import diff, left_alone
from nodeagent.core.nic.net_class import unremembered
from nodeagent.keep import Keeper
from nodeagent.kernel.knobs import Knobs
from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.kernel.node_lock import NodeLock
from nodeagent.kernel.reader import boot_id
from nodeagent.kernel.targets import around
from nodeagent.lock import Lock
from nodeagent.model.errors import AgentError, Failed
from nodeagent.model.plan import Change, Held, Knob, KnobReading, Outcome, Setting, shown
from nodeagent.originals import Originals

PASSES = 3  # a value held up by one above it needs another pass


class Restored(Struct, frozen=True):
    """What became of every knob in the ledger, and the ledger's own warnings.

    `left` holds a value of another writer; `gone` went with its cgroup; `failed` are still in the ledger,
    with the reason. `nics` tells what was removed of what shaped traffic, one line each.
    """

    put_back: tuple[Outcome, ...]
    left: tuple[KnobReading, ...]
    gone: tuple[Knob, ...]
    failed: tuple[tuple[Knob, str], ...]
    warnings: tuple[str, ...]
    nics: tuple[str, ...] = ()
    nics_failed: tuple[str, ...] = ()


def restore(state_dir: str, host_root: str = "/", *, nics: bool = True) -> Restored:
    """Give back all that the ledger in `state_dir` holds, and let traffic go unshaped.

    Without `nics` it stays shaped until the next agent takes that over. Failed while an agent is alive on it.
    """
    if not os.path.isdir(state_dir):
        raise Failed(f"{state_dir}: no such directory", hint="name the agent's state directory")
    with Lock(state_dir):
        originals = Originals(state_dir, boot_id(host_root))
        hierarchies = find_hierarchies(host_root)
        knobs = Knobs(hierarchies)
        keeper = Keeper(host_root, hierarchies.versions, originals)
        knobs.gives = keeper.gives
        try:
            done = give_back(originals, knobs, keeper)
            return _with_nics(done, hierarchies.walk_root) if nics else done
        finally:
            knobs.close()
            originals.close()


def _with_nics(done: Restored, root: str) -> Restored:
    """What shapes traffic is in no ledger: the kernel tells what is ours, of whichever state directory."""
    from nodeagent.kernel.nic.network import remove_all  # here: the agent itself does without

    lock = NodeLock(root)
    try:
        lock.acquire()
    except AgentError as error:
        return replace(done, warnings=(*done.warnings, f"NICs are let be: {error}"))
    try:
        left = remove_all()
    except AgentError as error:
        return replace(done, nics_failed=(f"NICs: {error}",))
    finally:
        lock.release()
    return replace(done, nics=left.removed, nics_failed=left.failed)


def old_nics(root: str, *, locked: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Remove what an earlier run left at NICs that nobody shapes any more; what was removed, what failed.

    It would bound Batch by what was true then, and take an address for the pod that had it. `locked`: the
    lock of the node, at `root`, is held; else nothing is done where another agent holds it.
    """
    from nodeagent.kernel.nic.network import remove_all  # here: few nodes need it

    lock = NodeLock(root)
    try:
        if not locked:
            lock.acquire()
    except AgentError:
        return (), ()
    try:
        return remove_all(sure=False)
    except AgentError as error:
        return (), (str(error),)
    finally:
        lock.release()


def give_back(originals: Originals, knobs: Knobs, keeper: Keeper | None = None) -> Restored:
    """Put back what `originals` holds, in an order that the kernel accepts; without `keeper` files alone."""
    keeper = keeper or Keeper("/", {}, originals)
    _take_in(originals, knobs)
    gone: list[Knob] = []
    left: list[KnobReading] = []
    tried: dict[Knob, Outcome] = {}
    for _ in range(PASSES):
        readings = knobs.read(_with_those_around(originals.held), originals.held)
        originals.recognise(readings, knobs.inode)
        theirs = {reading.knob: reading for reading in left_alone({}, readings)}
        ends = dict.fromkeys(knobs.vanished(originals.held)) | {k: r.actual for k, r in theirs.items()}
        stuck = keeper.release(ends, leaving=True)
        ends = {knob: end for knob, end in ends.items() if knob not in stuck}
        gone += [knob for knob in ends if knob not in theirs]
        left += [reading for knob, reading in theirs.items() if knob in ends]
        originals.forget(ends)
        changes = originals.intend(diff({}, readings), knobs.inode)
        keeper.release(dict.fromkeys(c.knob for c in changes if c.gives_back), leaving=True)
        outcomes = knobs.apply(changes)
        originals.confirm(outcomes)
        tried |= {outcome.change.knob: outcome for outcome in outcomes}
        if not originals.held:
            break
    failed = {knob: _reason(tried.get(knob), held) for knob, held in originals.held.items()}
    return Restored(
        put_back=tuple(outcome for knob, outcome in tried.items() if outcome.ok and knob not in failed),
        left=tuple(left),
        gone=tuple(gone),
        failed=tuple(failed.items()),
        warnings=(*originals.warnings, *keeper.news),
    )


def _take_in(originals: Originals, knobs: Knobs) -> None:
    """cgroup v1 makes a cgroup with the network class of the one around it: ours, since the last tick."""
    with contextlib.suppress(AgentError):  # what is in the ledger is given back all the same
        fresh = knobs.classes_below(originals.held)
        readings = knobs.read(fresh, originals.held) if fresh else ()
        plan = {r.knob: Setting(r.knob, r.actual, "nic", "made with it") for r in readings if unremembered(r)}
        taken = [change for change in diff(plan, readings) if change.knob in plan]
        originals.confirm(knobs.apply(originals.intend(taken, knobs.inode)))


def _with_those_around(held: Iterable[Knob]) -> set[Knob]:
    """cgroup v1 takes no set or quota that does not fit into those around it, ours or not."""
    return {Knob(knob.kind, path) for knob in held for path in (*around([knob.target]), knob.target)}


def _reason(last: Outcome | None, held: Held) -> str:
    if held.kept is not None and (last is None or last.ok):
        return "systemd still keeps our value; try again when it answers"
    if last is None:
        return "it cannot be read"
    return last.error or f"only {shown(last.change.new, last.change.knob.kind)} fits below what is above it"


def as_json(done: Restored) -> str:
    """Everything, as one JSON object."""
    return msgspec.json.encode(done).decode()


def as_text(done: Restored) -> str:
    """One line per knob, then the totals."""
    lines = [f"restored  {_step(o.change)}" for o in done.put_back]
    lines += [
        f"left      {r.knob}: somebody else wrote {shown(r.actual, r.knob.kind)} since" for r in done.left
    ]
    lines += [f"gone      {knob}" for knob in done.gone]
    lines += [f"failed    {knob}: {why}" for knob, why in done.failed]
    lines += [f"removed   {line}" for line in done.nics]
    lines += [f"failed    {line}" for line in done.nics_failed]
    lines += [f"warning   {line}" for line in done.warnings]
    failed = len(done.failed) + len(done.nics_failed)
    counts = (len(done.put_back), len(done.left), len(done.gone), failed)
    return "\n".join([*lines, "{} restored, {} left, {} gone, {} failed".format(*counts)])


def _step(change: Change) -> str:
    kind = change.knob.kind
    return f"{change.knob}: {shown(change.old, kind)} -> {shown(change.new, kind)}"
