"""Our HTB trees on devices: what they are, what went through them, and making them as they shall be.

Invariant: a root that somebody has set (its handle is neither 0 nor ours) is neither changed nor removed,
also if it comes between our look and our write: nothing is ever replaced.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from types import TracebackType

from nodeagent.kernel.nic import htb
from nodeagent.kernel.nic.htb import Held, Queue
from nodeagent.kernel.nic.htb_steps import (
    ROOT,
    RTM_DELTCLASS,
    RTM_GETQDISC,
    RTM_GETTCLASS,
    RTM_NEWQDISC,
    TC_H_ROOT,
    Shape,
    Step,
    handle_of,
    is_ours,
    removal,
    steps,
)
from nodeagent.kernel.nic.rtnetlink import NLM_F_DUMP, Rtnetlink, tcmsg, translated
from nodeagent.model.errors import Refused, Unsupported
from nodeagent.model.nic import ClassSeen, Tree
from nodeagent.model.pod import Qos

# A long dump skips a device when one before it goes meanwhile: tc_dump_qdisc() counts them.
_LOOKS = 2
_QOS = {handle_of(qos): qos for qos in Qos}


class Trees:
    """Our HTB trees on the devices of this network namespace, by interface index; close it."""

    def __init__(self) -> None:
        self._rtnetlink = Rtnetlink()
        self._fq_codel = True  # until the kernel says no

    def close(self) -> None:
        self._rtnetlink.close()

    def __enter__(self) -> Trees:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.close()

    def read(self, index: int) -> tuple[ClassSeen, ...] | None:
        """Our classes there, LS first, with bits per second; None without a tree of ours.

        Gone, Refused, Garbled.
        """
        with _doing("read classes", index):
            classes = self._classes(index)
            if not classes and not is_ours(self._shape(index).root):
                return None
        return tuple(_seen(qos, classes[handle]) for handle, qos in _QOS.items() if handle in classes)

    def set(self, index: int, tree: Tree) -> int:
        """Make it so; how many writes it took, 0 in a steady state.

        Refused when the root is somebody's, and, once all else is done, when somebody's class in our tree is
        in use. Unsupported without sch_htb. Gone. A rate is kept to the byte per second, a burst to 64 ns.
        """
        done, refused, had_fq_codel = 0, None, self._fq_codel
        for step in self.steps(index, tree):
            try:
                done += self.take(index, step)
            except Refused as error:
                if step.message != RTM_DELTCLASS:
                    raise
                refused = error
        if refused:
            raise refused
        return done if self._fq_codel == had_fq_codel else done + self.set(index, tree)

    def steps(self, index: int, tree: Tree) -> tuple[Step, ...]:
        """The writes that `set` would do, in order. Refused, Gone, Garbled."""
        with _doing("read tree", index):
            shape = self._shape(index)
        root = shape.root
        if root is not None and not is_ours(root):
            raise Refused(
                f"{_device(index)}: its root qdisc is {root.kind} {htb.shown(root.handle)}, set by somebody",
                hint="nodeagent lets it be; `tc qdisc del dev DEVICE root` gives the device to nodeagent",
            )
        return tuple(steps(shape, tree, self._fq_codel))

    def take(self, index: int, step: Step) -> bool:
        """Do one write; False when the kernel has no fq_codel, which is remembered.

        Gone, Refused, Unsupported.
        """
        body = tcmsg(index, step.handle, step.parent) + step.attributes
        with _doing(step.what, index):
            try:
                self._rtnetlink.ask(step.message, step.flags, body)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
                if step.optional:  # the next steps have a fifo in its place
                    self._fq_codel = False
                    return False
                if step.message == RTM_NEWQDISC and step.parent == TC_H_ROOT:
                    raise Unsupported(f"{step.what}: {error.strerror}", hint="modprobe sch_htb") from error
                raise
        return True

    def remove(self, index: int) -> bool:
        """Take our tree away: the kernel puts its default in its place. False when there was none. Gone."""
        with _doing("read root", index):
            found = is_ours(self._shape(index).root)
        return found and self.take(index, removal())

    def ours(self) -> tuple[int, ...]:
        """Indexes of the devices that have a tree of ours. Refused, Garbled."""
        with _doing("read qdiscs"):
            queues = [htb.held_queue(message) for _ in range(_LOOKS) for message in self._qdiscs()]
        return tuple(sorted({queue.device for queue in queues if is_ours(queue)}))

    def _classes(self, index: int) -> dict[int, Held]:
        """By handle; those of qdiscs by another handle are not told (tcm_parent)."""
        answer = self._rtnetlink.ask(RTM_GETTCLASS, NLM_F_DUMP, tcmsg(index, parent=ROOT))
        found = [held for held in map(htb.held_class, answer) if held is not None]
        return {held.handle: held for held in found}

    def _shape(self, index: int) -> Shape:
        """What is there now. OSError when the device is gone."""
        queues = {queue.parent: queue for queue in self._on(index) if queue.handle}
        root = queues.get(TC_H_ROOT)
        return Shape(root, self._classes(index) if is_ours(root) else {}, queues)

    def _on(self, index: int) -> list[Queue]:
        for _ in range(_LOOKS):
            found = [htb.held_queue(each) for each in self._qdiscs() if htb.device_of(each) == index]
            if found:
                return found
        socket.if_indextoname(index)  # none is shown on a device that was never up, or is gone
        return []

    def _qdiscs(self) -> list[bytes]:
        """Of all devices, 0.4 ms for 500: the answer about one would go to all who listen (`tc monitor`)."""
        return self._rtnetlink.ask(RTM_GETQDISC, NLM_F_DUMP, tcmsg(0))


def _seen(qos: Qos, held: Held) -> ClassSeen:
    counts = held.counts
    return ClassSeen(
        qos=qos,
        rate_bps=held.parms.rate * 8.0,
        ceil_bps=held.parms.ceil * 8.0,
        bytes=counts.bytes,
        packets=counts.packets,
        drops=counts.drops,
        overlimits=counts.overlimits,
        backlog_bytes=counts.backlog_bytes,
    )


@contextlib.contextmanager
def _doing(what: str, index: int | None = None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise translated(error, what if index is None else f"{_device(index)}: {what}") from error


def _device(index: int) -> str:
    """For the operator, who knows names."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return f"interface {index}"
