"""Which cgroups there are: every directory of one hierarchy with its inode.

Invariant: an unreadable root raises, since an unreadable pod list is not an empty one; a directory that
vanishes meanwhile is left out with all below it, which is what its removal means.
"""

from __future__ import annotations

import os

from nodeagent.kernel.errno import translated
from nodeagent.model.errors import Failed, Gone
from nodeagent.model.pod import CgroupDir


def walk(root: str, *, max_depth: int = 16, max_dirs: int = 20_000) -> tuple[CgroupDir, ...]:
    """The root ("") and all directories below it, each followed by its own; siblings are sorted by name.

    Symbolic links are not followed. Directories deeper than `max_depth` and those whose name is not UTF-8
    (journal and wire cannot carry it) are left out: their use counts for the cgroup that they are in.
    Raises Refused, Gone or Unsupported for an unreadable directory, Failed for more than `max_dirs`.
    """
    try:
        found = [CgroupDir("", os.stat(root).st_ino)]
        pending = _children(root, "")
    except OSError as error:
        raise translated(error, root) from error
    while pending:
        child = pending.pop()
        found.append(child)
        if len(found) + len(pending) > max_dirs:
            raise Failed(
                f"{root}: more than {max_dirs} cgroups",
                hint="something leaks cgroups here: compare `find DIR -type d | wc -l` of those in it",
            )
        if child.path.count("/") + 1 < max_depth:
            pending += _children_if_there(root, child.path)
    return tuple(found)


def subdirectories(root: str, path: str) -> tuple[CgroupDir, ...]:
    """The directories directly in `path`, sorted by name; empty when it has vanished; else as `walk`."""
    return tuple(reversed(_children_if_there(root, path)))


def _children_if_there(root: str, path: str) -> list[CgroupDir]:
    try:
        return _children(root, path)
    except OSError as error:
        found = translated(error, f"{root}/{path}")
        if isinstance(found, Gone):
            return []
        raise found from error


def _children(root: str, path: str) -> list[CgroupDir]:
    """In descending order of names, as a stack wants them."""
    prefix = f"{path}/" if path else ""
    with os.scandir(f"{root}/{path}") as entries:
        dirs = [(entry.name, entry.inode()) for entry in entries if entry.is_dir(follow_symlinks=False)]
    dirs.sort(reverse=True)
    return [CgroupDir(prefix + name, inode) for name, inode in dirs if _is_utf8(name)]


def _is_utf8(name: str) -> bool:
    return name.isascii() or not any("\ud800" <= char <= "\udfff" for char in name)
