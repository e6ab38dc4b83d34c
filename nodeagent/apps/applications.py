"""All that applications tell, for the loop, which takes what is there, and for those who push.

Invariant: `told` and `sync` wait for nobody; an application tells only of the pod that it is in, unless a
director speaks.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from nodeagent.apps.directory import CgroupOf, Directory
from nodeagent.apps.pushed import Pushed
from nodeagent.apps.targets import Key, Target, targets
from nodeagent.apps.thread import AppThread
from nodeagent.model.app import AppFigures, AppRule, AppSettings, Push
from nodeagent.model.directive import Code, Refused
from nodeagent.model.pod import Member, PodSpec
from nodeagent.model.snapshot import Pod
from nodeagent.model.symptom import AppReading

HOW = (
    "it is found by the process that connected to the unix socket, which takes an agent that sees it "
    "(hostPID); grpc.director_uids and grpc.directors may name any pod"
)


class Applications:
    """`rules` are the [[apps]] entries, which may be replaced; `cgroup_of` tells where a process is.

    Failed where a StatsD socket cannot be had. `close` it.
    """

    def __init__(self, settings: AppSettings, rules: tuple[AppRule, ...], cgroup_of: CgroupOf) -> None:
        self.rules = rules
        self.cgroup_of = cgroup_of
        self._settings = settings
        self._thread = AppThread(settings, cgroup_of)
        self._targets: Mapping[Key, Target] = {}
        self._silent: Mapping[Key, AppReading] = {}  # of those of whom nothing has come
        self._directory = Directory()
        self._pushes: dict[Key, Pushed] = {}
        self._pushed: dict[Key, AppReading] = {}

    def sync(self, members: Iterable[Member]) -> None:
        """These are the pods of now. For the loop's thread."""
        members = tuple(members)
        self._directory = Directory(member.spec for member in members)
        self._targets = targets(members, self.rules, annotations=self._settings.annotations)
        live = {(member.spec.uid, member.spec.inode) for member in members}
        for key in self._pushes.keys() - live:
            self._pushes.pop(key, None)
            self._pushed.pop(key, None)
        self._silent = {key: _nothing(target) for key, target in self._targets.items()}
        self._thread.want(self._targets, self._directory)

    def told(self, pods: tuple[Pod, ...], at: float) -> tuple[Pod, ...]:
        """The pods with what is known of their applications at `at`. For the loop's thread."""
        if not self._targets and not self._pushed:
            return pods
        return tuple(
            pod if (app := self._of((pod.spec.uid, pod.spec.inode), at)) is None else replace(pod, app=app)
            for pod in pods
        )

    def push(self, push: Push, *, cgroup: str, name: str, director: bool) -> PodSpec | Refused:
        """An application in `cgroup` ("" is not known) tells of itself, or a director of the pod `name`.

        The pod that it was taken for. For one thread.
        """
        if not self._settings.push:
            return Refused(Code.FAILED_PRECONDITION, "app_signals.push is false: nothing is taken")
        spec = self._pushing(cgroup, name, director=director)
        if isinstance(spec, Refused):
            return spec
        if not spec.online:
            return Refused(Code.FAILED_PRECONDITION, f"{spec.name} is a Batch pod; online pods have SLOs")
        key = spec.uid, spec.inode
        target = self._targets.get(key)
        known = self._pushes.setdefault(key, Pushed())
        self._pushed[key] = known.take(push, None if target is None else target.slo, time.monotonic())
        return spec

    def figures(self) -> AppFigures:
        """How often applications were asked, and how much of what they sent had no effect."""
        return self._thread.figures()

    def close(self) -> None:
        """End the thread, close the sockets."""
        self._thread.close()

    def _of(self, key: Key, at: float) -> AppReading | None:
        """Of the first source that has something new, so that the count of one goes on as long as it can."""
        ways = (self._thread.scraped, self._pushed, self._thread.heard)
        known = [reading for way in ways if (reading := way.get(key)) is not None]
        if not known:
            return self._silent.get(key)
        fresh = (each for each in known if each.at is not None and at - each.at <= each.stale_after_s)
        return next(fresh, known[0])

    def _pushing(self, cgroup: str, name: str, *, director: bool) -> PodSpec | Refused:
        own = self._directory.of(cgroup)
        if not name:
            return own or Refused(Code.FAILED_PRECONDITION, f"the caller is in no known pod; {HOW}")
        named = self._directory.called(name)
        if own is not None and own in named:
            return own
        if not director:
            return Refused(Code.PERMISSION_DENIED, f"pod: an application tells of its own pod alone; {HOW}")
        if len(named) != 1:
            told = f"{len(named)} pods are called so: give a uid" if named else "there is no such pod"
            return Refused(Code.INVALID_ARGUMENT if named else Code.NOT_FOUND, f"pod: {told}")
        return named[0]


def _nothing(target: Target) -> AppReading:
    source = "prometheus" if target.place or target.wrong else "statsd" if target.statsd else "grpc"
    return AppReading(source, slo=target.slo, stale_after_s=3.0 * target.period_s, error=target.wrong)
