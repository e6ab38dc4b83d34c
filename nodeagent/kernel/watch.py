"""Notice cgroups that appear and vanish: inotify on their parents (cgroupfs tells it, v1 and v2).

Invariant: no change is lost. What could not be told (queue overflow, a directory made before its parent was
watched) counts as a change; what cannot be watched at all sets `degraded`, and the periodic scan is the net.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from inotify_simple import INotify, flags

from nodeagent.kernel.errno import translated
from nodeagent.kernel.tree import subdirectories
from nodeagent.model.errors import AgentError, Gone
from nodeagent.model.pod import CgroupDir

# Moved: v1 cgroups can be renamed.
_MASK = flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO | flags.ONLYDIR | flags.DONT_FOLLOW
_LIMITS = {
    errno.ENOSPC: "out of inotify watches: raise fs.inotify.max_user_watches",
    errno.EMFILE: "out of inotify instances: raise fs.inotify.max_user_instances",
    errno.ENFILE: "out of descriptors: raise fs.file-max",
}


class CgroupWatch:
    """Watches on directories of one hierarchy. `degraded` is empty, or why some of them are not watched."""

    def __init__(self) -> None:
        self.degraded = ""
        self._root = ""
        self._watched: dict[CgroupDir, int] = {}
        self._inotify: INotify | None = None
        try:
            self._inotify = INotify(nonblocking=True)
        except OSError as error:
            self._degrade(error, "inotify")

    def fileno(self) -> int:
        """Descriptor that is readable when something changed; -1 where inotify cannot be had."""
        return -1 if self._inotify is None else self._inotify.fileno()

    def sync(self, root: str, dirs: Iterable[CgroupDir]) -> bool:
        """Watch exactly `dirs` below `root`. True: something moved meanwhile, so walk and sync once more.

        `dirs` is the answer of a `walk`. A directory made between that walk and the watch on its parent
        told nobody; so each newly watched directory is listed once and compared with `dirs`.
        """
        if self._inotify is None:
            return False
        wanted = frozenset(dirs)
        kept = wanted if root == self._root else frozenset()
        self._forget(self._inotify, self._watched.keys() - kept)
        self._root = root
        self.degraded = ""
        moved = False
        for directory in sorted(wanted - self._watched.keys(), key=_depth):
            moved |= not self._add(self._inotify, directory) or _has_unknown(root, directory, wanted)
            if self.degraded:
                return False  # the limit is met: neither ask for thousands more, nor call that a change
        return moved

    def drain(self) -> bool:
        """Take all queued events without waiting. True if a directory appeared or vanished, or may have."""
        if self._inotify is None:
            return False
        told = flags.ISDIR | flags.Q_OVERFLOW
        return any(event.mask & told for event in self._inotify.read(timeout=0))

    def close(self) -> None:
        """Give the watches back; the descriptor is closed."""
        if self._inotify is not None:
            self._inotify.close()
        self._inotify = None
        self._watched.clear()

    def _add(self, inotify: INotify, directory: CgroupDir) -> bool:
        """False when the directory is not watched: it is gone, or `degraded` says why."""
        path = f"{self._root}/{directory.path}"
        try:
            self._watched[directory] = inotify.add_watch(path, _MASK)
        except OSError as error:
            self._degrade(error, path)
            return False
        return True

    def _degrade(self, error: OSError, path: str) -> None:
        found = translated(error, path)
        if not isinstance(found, Gone):
            self.degraded = _LIMITS.get(error.errno or 0, str(found))

    def _forget(self, inotify: INotify, dirs: Iterable[CgroupDir]) -> None:
        for directory in dirs:
            wd = self._watched.pop(directory)
            try:
                # Also for removed cgroups: the kernel counts their watch until it is taken away.
                inotify.rm_watch(wd)
            except OSError:  # EINVAL: it went with its inode
                continue


def _depth(directory: CgroupDir) -> tuple[int, str]:
    """Parents first, so that a child which vanishes meanwhile is told by its parent's watch."""
    return (directory.path.count("/") + (directory.path != ""), directory.path)


def _has_unknown(root: str, directory: CgroupDir, known: frozenset[CgroupDir]) -> bool:
    try:
        return not known.issuperset(subdirectories(root, directory.path))
    except AgentError:
        return False  # unreadable: the walk says so itself
