"""The pods of the last walk: by cgroup, uid and name. Immutable, so that any thread may have one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nodeagent.model.pod import PodSpec

CgroupOf = Callable[[int], str]  # of a process, as PodSpec has it; "" where it is not known


class Directory:
    """For those who come and say who they are, or are found to be."""

    def __init__(self, specs: Iterable[PodSpec] = ()) -> None:
        self._by_cgroup = {spec.cgroup: spec for spec in specs}
        self._by_uid = {spec.uid: spec for spec in self._by_cgroup.values()}

    def of(self, cgroup: str) -> PodSpec | None:
        """The pod in whose cgroup this one is; pods do not nest."""
        while cgroup:
            if (found := self._by_cgroup.get(cgroup)) is not None:
                return found
            cgroup = cgroup.rpartition("/")[0]
        return None

    def called(self, name: str) -> tuple[PodSpec, ...]:
        """The pod with this uid, else those with this name."""
        if (found := self._by_uid.get(name)) is not None:
            return (found,)
        return tuple(spec for spec in self._by_uid.values() if spec.name == name)
