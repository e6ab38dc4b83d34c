"""The net_cls controller of cgroup v1: Linux Documentation/admin-guide/cgroup-v1/net_cls.rst.

    net_cls.classid      of all sockets that tasks here make, and since v3.14 of those that they have

A new cgroup begins with the class of the one around it; one that is there already keeps its own (Linux
net/core/netclassid_cgroup.c: cgrp_css_online, update_classid).

Invariant: a class is a whole number of 32 bits.
"""

from __future__ import annotations

from collections.abc import Iterable

from nodeagent.kernel.cgroup import Count, Found, KnobCgroup
from nodeagent.kernel.tree import subdirectories
from nodeagent.model.plan import MAX_CLASS, Kind, Value, numeric


class NetClsV1(KnobCgroup):
    """The net_cls controller of one cgroup."""

    controller = "net_cls"
    classid = Count("net_cls.classid")

    def read(self, kind: Kind) -> Found:  # noqa: ARG002  # it has one knob
        """Unsupported when this cgroup has no such knob, else Gone, Garbled or Refused."""
        return Found(float(self.classid), high=float(MAX_CLASS))

    def write(self, kind: Kind, value: Value) -> Value:  # noqa: ARG002
        """Set it, also for the sockets that are there."""
        self.classid = int(numeric(value))
        return value


def below(root: str, paths: Iterable[str]) -> set[str]:
    """All cgroups in these ones, at any depth; what cannot be read raises as `subdirectories` does."""
    found: set[str] = set()
    pending = list(paths)
    while pending:
        inside = {directory.path for directory in subdirectories(root, pending.pop())} - found
        found |= inside
        pending += inside
    return found
