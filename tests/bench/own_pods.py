"""Real pods where `nodeagent exec` makes them, with a living process in each; made and removed here."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.kernel.place import make_pod_cgroup, remove_if_empty
from nodeagent.kernel.tree import walk
from nodeagent.model.pod import OWN_ROOT, Member, Qos
from nodeagent.pods.recognise import recognise
from tests.bench.inhabited import inhabited

_CLASSES = (Qos.LS, Qos.MID, Qos.LS, Qos.BATCH)


@contextlib.contextmanager
def own_pods(count: int, active_ratio: float = 0.1, wake_ms: int = 50) -> Iterator[tuple[Member, ...]]:
    """`count` pods nodeagent/QOS/na-bench-*; this share of them wakes up every `wake_ms`.

    Classes and active ones are mixed, so that any hundred of them in a row is like any other.
    """
    places = find_hierarchies()
    mark = f"na-bench-{os.getpid()}-{time.monotonic_ns()}"
    made: list[str] = []
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: [remove_if_empty(places, path) for path in reversed(made)])
        homes = []
        for number in range(count):
            path = f"{OWN_ROOT}/{_CLASSES[number % len(_CLASSES)].value}/{mark}-{number}"
            procs = make_pod_cgroup(places, path).procs
            made.append(path)
            active = number * 7 % 100 < active_ratio * 100  # 7 and 4 share no divisor: of each class some
            homes.append((wake_ms if active else 0, [os.path.dirname(file) for file in procs]))
        stack.enter_context(inhabited(homes))
        here = {member.spec.cgroup: member for member in recognise(walk(places.walk_root), (), {})}
        yield tuple(here[path] for path in made)
