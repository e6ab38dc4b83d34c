"""Pages that are to follow their pods to other NUMA nodes, and how far they have come."""

from __future__ import annotations

from msgspec import Struct

SMALL_BYTES = 4 << 20  # so much a write of cpuset.mems may move by itself: milliseconds


class PageMove(Struct, frozen=True, array_like=True, gc=False):
    """The processes in `cgroup` and below it shall have their pages on the NUMA nodes `mems` ("0-1").

    `inode` is the pod's: a cgroup made anew under the same name is another pod with pages of its own.
    """

    uid: str
    inode: int
    cgroup: str
    mems: str


class PagesMoving(Struct, frozen=True, array_like=True, gc=False):
    """How far one move has come. `started_at` is monotonic seconds.

    `left_bytes` are mapped pages outside of the wanted nodes: as last counted, less what was handled since;
    None before the first count. `settled`: the last whole round found nothing more that can be moved, and
    what was counted after it is `left_bytes`, of which `stuck_bytes` do not move (pinned, or refused).
    `unable` is why this host cannot move pages at all, "" where it can; `why` is why this move could
    not go on the last time that it was tried, "" where it could.
    """

    move: PageMove
    started_at: float
    moved_bytes: int = 0
    left_bytes: int | None = None
    stuck_bytes: int = 0
    settled: bool = False
    unable: str = ""
    why: str = ""
