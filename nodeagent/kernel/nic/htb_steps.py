"""The writes that make the tree of one device as it shall be (pure).

    4e51: root, default 4e51:10     to a class that is not there packets go past the tree, unshaped
      4e51:1         top: what all share
        4e51:10 LS   4e51:20 MID   4e51:30 BATCH     each with a leaf queue 4e52: 4e53: 4e54:

Invariants: after every prefix of the steps, the steps anew finish the work; a class that is in its place is
changed, never deleted and added; what is as wanted is not written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from nodeagent.kernel.nic import htb
from nodeagent.kernel.nic.htb import Held, Parms, Queue
from nodeagent.kernel.nic.rtnetlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE
from nodeagent.model.nic import MAJOR, MINORS, HtbClass, Tree
from nodeagent.model.pod import Qos

# linux/rtnetlink.h, linux/pkt_sched.h
RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTCLASS, RTM_DELTCLASS, RTM_GETTCLASS = 40, 41, 42
TC_H_ROOT = 0xFFFFFFFF

ROOT = MAJOR << 16
TOP = ROOT | 1
DEFAULT = MINORS[Qos.LS]
_QUEUE_PACKETS = 1000
_NEW = NLM_F_CREATE | NLM_F_EXCL  # never over what somebody has set meanwhile


class Step(NamedTuple):
    """One write. `what` says it in words; an `optional` one may fail where the kernel lacks the kind."""

    message: int
    flags: int
    handle: int
    parent: int
    attributes: bytes
    what: str
    optional: bool = False


class Shape(NamedTuple):
    """What a device has: its root, None if that is the kernel's own; where it is ours, the classes by handle;
    and the qdiscs that somebody has set, we among them, by their parent.
    """

    root: Queue | None
    classes: Mapping[int, Held]
    queues: Mapping[int, Queue]


def is_ours(root: Queue | None) -> bool:
    """Only an HTB by our handle: something else that is called so is somebody's."""
    return root is not None and root.parent == TC_H_ROOT and root.handle == ROOT and root.kind == "htb"


def steps(shape: Shape, tree: Tree, fq_codel: bool) -> Iterator[Step]:
    """The writes that are missing, in order; the root must be ours or the kernel's own.

    `fq_codel` tells that the kernel has it: leaves without a limit get one, else a fifo.
    """
    classes = shape.classes
    if shape.root is None:
        yield _root_step()
    elif shape.root.default != DEFAULT:
        # the kernel cannot change it: for the time of the next steps packets go past the tree
        yield removal()
        yield _root_step()
        classes = {}
    misplaced = _misplaced(classes, {TOP, *(handle_of(each.qos) for each in tree.classes)})
    for held in misplaced:
        yield Step(RTM_DELTCLASS, 0, held.handle, held.parent, b"", f"delete class {htb.shown(held.handle)}")
    kept = {handle: held for handle, held in classes.items() if held not in misplaced}
    yield from _class_steps(kept.get(TOP), TOP, ROOT, htb.top_parms(tree))
    for each in tree.classes:
        handle = handle_of(each.qos)
        yield from _class_steps(kept.get(handle), handle, TOP, htb.class_parms(each))
        yield from _leaf_steps(shape.queues.get(handle) if handle in kept else None, handle, each, fq_codel)


def removal() -> Step:
    """Takes our root away, and no other that has come in its place: its kind and handle are compared."""
    return Step(RTM_DELQDISC, 0, ROOT, TC_H_ROOT, htb.queue_attributes("htb"), "delete htb")


def handle_of(qos: Qos) -> int:
    """The class of a QoS class."""
    return ROOT | MINORS[qos]


def leaf_of(qos: Qos) -> int:
    """The queue of that class: 4e52: for LS, 4e53: for MID, 4e54: for BATCH."""
    return MAJOR + (MINORS[qos] >> 4) << 16


def _root_step() -> Step:
    return Step(RTM_NEWQDISC, _NEW, ROOT, TC_H_ROOT, htb.root_attributes(DEFAULT), "add htb")


def _misplaced(classes: Mapping[int, Held], wanted: set[int]) -> list[Held]:
    """Classes that are not ours, or not where they belong, and all below such; those below come first."""

    def depth(held: Held) -> int:
        above = classes.get(held.parent)
        return 0 if above is None else 1 + depth(above)

    def in_place(held: Held | None) -> bool:
        if held is None or held.handle == TOP:
            return held is not None and held.parent == TC_H_ROOT
        return held.handle in wanted and held.parent == TOP and in_place(classes.get(TOP))

    found = [held for held in classes.values() if not in_place(held)]
    return sorted(found, key=depth, reverse=True)


def _class_steps(held: Held | None, handle: int, parent: int, parms: Parms) -> Iterator[Step]:
    """None when it is as wanted; the kernel ignores quantum and prio of the top."""
    alike = 4 if handle == TOP else len(parms)
    if held is None or held.parms[:alike] != parms[:alike]:
        flags, verb = (_NEW, "add") if held is None else (NLM_F_REPLACE, "change")
        what = f"{verb} class {htb.shown(handle)}"
        yield Step(RTM_NEWTCLASS, flags, handle, parent, htb.class_attributes(parms), what)


def _leaf_steps(queue: Queue | None, parent: int, wanted: HtbClass, fq_codel: bool) -> Iterator[Step]:
    """`queue` is what is there; None is the kernel's own.

    That is a pfifo of the device's txqueuelen, which drops every packet where that is 0: so never that one.
    A pfifo of ours stays when fq_codel comes: what waits in it would be lost.
    """
    handle = leaf_of(wanted.qos)
    fifo = not fq_codel or (queue is not None and (queue.handle, queue.kind) == (handle, "pfifo"))
    kind, limit = ("pfifo", _QUEUE_PACKETS) if fifo else ("fq_codel", None)
    if wanted.queue_bytes:
        kind, limit = "bfifo", min(wanted.queue_bytes, htb.MAX_LIMIT)
    attributes = htb.queue_attributes(kind, limit)
    if queue is not None and (queue.handle, queue.kind) != (handle, kind):
        name = f"{queue.kind} {htb.shown(queue.handle)}"
        yield Step(RTM_DELQDISC, 0, queue.handle, parent, b"", f"delete {name}")
        queue = None
    if queue is None:
        what = f"add {kind} {htb.shown(handle)}"
        yield Step(RTM_NEWQDISC, _NEW, handle, parent, attributes, what, optional=kind == "fq_codel")
    elif queue.limit != limit:
        what = f"change {kind} {htb.shown(handle)}"
        yield Step(RTM_NEWQDISC, NLM_F_REPLACE, handle, parent, attributes, what)
