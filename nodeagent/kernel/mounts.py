"""Where each cgroup controller is: v1 or v2, decided per controller from mountinfo.

    /sys/fs/cgroup/cpu,cpuacct   v1, two controllers      /sys/fs/cgroup/unified   v2, no or few controllers
    /sys/fs/cgroup/systemd       v1, named, none          /sys/fs/cgroup           v2, all controllers

Invariant: a controller is in one hierarchy only (the kernel guarantees it), and each hierarchy is named by
one visible mount point, that of its root where one is mounted (proc_pid_mountinfo(5)).
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from msgspec import Struct

from nodeagent.kernel.files import read_whole
from nodeagent.model.errors import Gone, Unsupported

MAX_MOUNTINFO_BYTES = 16 << 20
_V1_CONTROLLERS = {"cpu", "cpuacct", "cpuset", "memory", "blkio", "pids", "devices", "freezer", "hugetlb"}
_V1_CONTROLLERS |= {"net_cls", "net_prio", "perf_event", "rdma", "misc", "debug"}
_OCTAL = re.compile(r"\\([0-7]{3})")


class Hierarchy(Struct, frozen=True):
    """One mounted cgroup hierarchy. `root` is a path that this process can open, without a trailing slash.

    `name` is that of a v1 hierarchy mounted with name= ("systemd"), else "".
    """

    version: Literal[1, 2]
    root: str
    controllers: frozenset[str] = frozenset()
    name: str = ""


class Hierarchies(Struct, frozen=True):
    """`roots` by controller; `unified` is the v2 mount if any; `all` has named ones and v2 too, each once."""

    roots: dict[str, Hierarchy]
    unified: str | None
    all: tuple[Hierarchy, ...]

    @property
    def mode(self) -> Literal["v1", "v2", "hybrid"]:
        versions = {hierarchy.version for hierarchy in self.all}
        if versions == {2}:
            return "v2"
        return "hybrid" if 2 in versions else "v1"

    @property
    def versions(self) -> dict[str, int]:
        """Of each controller, the version of its hierarchy."""
        return {controller: at.version for controller, at in self.roots.items()}

    @property
    def walk(self) -> Hierarchy:
        """The hierarchy in which pods are looked for: cpu's, else the next best one. Unsupported if none."""
        for controller in ("cpu", "cpuacct", "memory"):
            if controller in self.roots:
                return self.roots[controller]
        if not self.all:
            raise Unsupported(
                "no cgroup hierarchy is mounted",
                hint="mount one: mount -t cgroup2 none /sys/fs/cgroup, or in a container mount the host's "
                "/sys and /proc and set agent.host_root",
            )
        return next((h for h in self.all if h.version == 2), self.all[0])

    @property
    def walk_root(self) -> str:
        return self.walk.root


def find_hierarchies(host_root: str = "/") -> Hierarchies:
    """All cgroup hierarchies of the host whose / is at `host_root`; Unsupported when there is none."""
    process = "self" if host_root.rstrip("/") == "" else "1"
    path = under(host_root, f"/proc/{process}/mountinfo")
    mounted = parse_mountinfo(_text(path), host_root)
    if mounted.unified is None:
        found = mounted
    else:
        found = with_v2_controllers(mounted, _text(f"{mounted.unified}/cgroup.controllers").split())
    found.walk  # noqa: B018  # raises Unsupported when nothing is mounted
    return found


def parse_mountinfo(text: str, host_root: str = "/") -> Hierarchies:
    """Hierarchies in a mountinfo text. v2 controllers are not told there: see `with_v2_controllers`."""
    mounts = {mount.order: mount for mount in map(_mount, text.splitlines()) if mount is not None}
    cgroups = [mount for mount in mounts.values() if mount.kind in ("cgroup", "cgroup2")]
    visible = [mount for mount in cgroups if not _hidden(mount, mounts)]
    visible.sort(key=lambda mount: mount.root != "/")  # stable: whole hierarchies first, then as mounted
    first: dict[str, _Mount] = {}
    for mount in visible:
        first.setdefault(mount.device, mount)
    every = tuple(_hierarchy(m, host_root) for m in sorted(first.values(), key=lambda m: m.order))
    roots = {name: h for h in every for name in sorted(h.controllers)}
    return Hierarchies(roots, next((h.root for h in every if h.version == 2), None), every)


def with_v2_controllers(mounted: Hierarchies, controllers: list[str]) -> Hierarchies:
    """`mounted` with the controllers that the v2 root's cgroup.controllers names."""
    names = frozenset(controllers) - mounted.roots.keys()
    every = tuple(
        Hierarchy(2, h.root, names) if h.version == 2 and h.root == mounted.unified else h
        for h in mounted.all
    )
    v2 = {name: h for h in every if h.version == 2 for name in sorted(names)}
    return Hierarchies(mounted.roots | v2, mounted.unified, every)


def under(host_root: str, path: str) -> str:
    """The absolute `path` of the host as seen below `host_root`."""
    return (host_root.rstrip("/") + path).rstrip("/") or "/"


class _Mount(NamedTuple):
    order: int
    parent: int
    device: str
    root: str
    point: str
    kind: str
    options: tuple[str, ...]


def _mount(line: str) -> _Mount | None:
    fields = line.split(" ")
    try:
        dash = fields.index("-", 6)
        kind, _source, options = fields[dash + 1 : dash + 4]
        order, parent = int(fields[0]), int(fields[1])
    except ValueError:
        return None
    root, point = (_OCTAL.sub(lambda m: chr(int(m[1], 8)), text) for text in fields[3:5])
    return _Mount(order, parent, fields[2], root, point, kind, tuple(options.split(",")))


def _hidden(mount: _Mount, mounts: dict[int, _Mount]) -> bool:
    """True when another mount lies over this one or over one that it is mounted in."""
    chain: dict[int, _Mount] = {}
    link: _Mount | None = mount
    while link is not None and link.order not in chain:
        chain[link.order] = link
        link = mounts.get(link.parent)
    return any(
        _covers(other, link)
        for link in chain.values()
        for other in mounts.values()
        if other.order not in chain
    )


def _covers(other: _Mount, link: _Mount) -> bool:
    if other.parent == link.order:
        return other.point == link.point
    # Had this sibling been there first, it would be the parent: so it came later and lies above.
    return other.parent == link.parent and link.point.startswith(other.point.rstrip("/") + "/")


def _hierarchy(mount: _Mount, host_root: str) -> Hierarchy:
    root = under(host_root, mount.point)
    if mount.kind == "cgroup2":
        return Hierarchy(2, root)
    name = next((option[5:] for option in mount.options if option.startswith("name=")), "")
    return Hierarchy(1, root, frozenset(_V1_CONTROLLERS.intersection(mount.options)), name)


def _text(path: str) -> str:
    try:
        return read_whole(path, MAX_MOUNTINFO_BYTES).decode("utf-8", "surrogateescape")
    except Gone as error:
        raise Unsupported(str(error), hint="is this a Linux host, and is agent.host_root right?") from error
