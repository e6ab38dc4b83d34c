"""Whom a restraint holds in this tick.

Invariant: nobody but a Batch pod in scope, and never beyond the lease.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType

from nodeagent.core.rates import View
from nodeagent.model.interference import Restraint

NONE: Mapping[str, Restraint] = MappingProxyType({})


def in_force(
    view: View, scope: AbstractSet[str], restraints: Mapping[str, Restraint]
) -> dict[str, Restraint]:
    """Those of `restraints` (by cgroup) that hold now."""
    if not restraints:
        return {}
    pods = (p.pod.spec for p in view.pods)
    return {
        spec.cgroup: found
        for spec in pods
        if (found := restraints.get(spec.cgroup)) is not None
        and found.uid == spec.uid
        and not spec.online
        and spec.cgroup in scope
        and view.snapshot.at < found.until
    }
